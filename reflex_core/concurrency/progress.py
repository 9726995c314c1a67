# SPDX-License-Identifier: Apache-2.0
"""How far slow work is: whoever does it reports, whoever started it may listen. Nothing on the way of a request reports.

Like logging, it needs no argument handed through every layer; the listener is that of the thread that does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[float, str], None]  # share that is done, 0 to 1; "task: detail"


def _nobody(fraction: float, text: str) -> None:
    pass


_listener: ContextVar[Listener] = ContextVar("listener", default=_nobody)


def report(fraction: float, task: str, detail: str = "") -> None:
    """Say how much of a task is done, and what comes next."""
    _listener.get()(fraction, f"{task}: {detail}" if detail else task)


@contextmanager
def reported_to(listener: Listener) -> Iterator[None]:
    """What is reported by this thread meanwhile goes to the listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
