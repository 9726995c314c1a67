# SPDX-License-Identifier: Apache-2.0
"""Run work that cannot be stopped under a time limit: loading a graph may hang on a disk or a driver."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class OverTimeError(Exception):
    """The work did not end in its time; its thread goes on alone and what it makes is dropped."""


def within(limit_s: float, work: Callable[[], Result], name: str) -> Result:
    """Return what `work` returns, or raise what it raises. limit_s 0: however long it takes, on this thread.

    Raises OverTimeError after `limit_s`. name: of the thread.
    """
    if not limit_s:
        return work()
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    # the listener of progress is that of the caller
    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True)
    thread.start()
    thread.join(limit_s)
    if results:
        return results[0]
    if errors:
        raise errors[0]
    raise OverTimeError(f"{name} did not end within {limit_s:g} s")
