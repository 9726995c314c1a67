# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM as a request to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether somebody has asked this process to stop.

    A queue and no threading.Event: the handler of a signal runs on the main thread, between any two of its steps. An Event
    holds a lock for some of them, and setting it there waits for that lock for ever. SimpleQueue.put may be called anywhere.
    """

    def __init__(self) -> None:
        self._asked: SimpleQueue[None] = SimpleQueue()

    def ask(self) -> None:
        """Ask to stop, from any thread or signal handler."""
        self._asked.put(None)

    @property
    def asked(self) -> bool:
        """Whether it was asked; stays True."""
        return not self._asked.empty()

    def wait(self) -> None:
        """Return once it was asked."""
        self._asked.get()
        self._asked.put(None)


def ask_on_signals(stop: StopRequest) -> None:
    """Let SIGINT and SIGTERM ask to stop from now on."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: stop.ask())


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Let SIGINT and SIGTERM ask to stop while this is open; they have their usual effect afterwards."""
    stop = StopRequest()
    known = {number: signal.getsignal(number) for number in SIGNALS}
    ask_on_signals(stop)
    try:
        yield stop
    finally:
        for number, before in known.items():
            signal.signal(number, before)
