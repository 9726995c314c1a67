# SPDX-License-Identifier: Apache-2.0
"""Progress of slow work: the working thread reports, the thread that started it may listen. Never on the request path.

Like logging, it needs no argument handed through every layer; the listener is that of the thread that does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[float, str], None]  # share that is done, 0 to 1; "task: detail"


def _ignore(fraction: float, text: str) -> None:
    pass


_listener: ContextVar[Listener] = ContextVar("listener", default=_ignore)


def report(fraction: float, task: str, detail: str = "") -> None:
    """Report the finished fraction of a task (0..1), and what is next."""
    _listener.get()(fraction, f"{task}: {detail}" if detail else task)


@contextmanager
def reported_to(listener: Listener) -> Iterator[None]:
    """Send what this thread reports meanwhile to the listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
