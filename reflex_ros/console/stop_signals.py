# SPDX-License-Identifier: Apache-2.0
"""Turn SIGINT and SIGTERM into a request to stop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOOKED_EVERY_S = 1.0


class StopRequest:
    """A request to stop this process, set from a thread or signal handler.

    A queue and no threading.Event: the handler of a signal runs on the main thread, between any two of its steps. An Event
    holds a lock for some of them, and setting it there waits for that lock for ever. SimpleQueue.put may be called anywhere.
    """

    def __init__(self) -> None:
        self._requests: SimpleQueue[None] = SimpleQueue()

    def request(self) -> None:
        """Request the stop, from any thread or signal handler."""
        self._requests.put(None)

    @property
    def requested(self) -> bool:
        """True once a stop was requested; stays True."""
        return not self._requests.empty()

    def wait(self) -> None:
        """Block until a stop is requested."""
        self._next(math.inf)
        self._requests.put(None)

    def wait_for_another(self, within_s: float) -> bool:
        """Block until a stop is requested once more, for so many seconds at most. True when it was."""
        self._requests.get()
        found = self._next(within_s)
        self._requests.put(None)
        return found

    def _next(self, within_s: float) -> bool:
        """Take a request out.

        It looks once a second: a signal that another thread is given, or that comes just before the main thread sleeps, does
        not wake it, and its handler runs when it wakes.
        """
        end_s = time.monotonic() + within_s
        while (left_s := end_s - time.monotonic()) > 0.0:
            with suppress(Empty):
                self._requests.get(timeout=min(left_s, LOOKED_EVERY_S))
                return True
        return False


def request_on_signals(stop: StopRequest) -> None:
    """Have SIGINT and SIGTERM request a stop from now on."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: stop.request())


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Have SIGINT and SIGTERM request a stop inside the `with` block; they have their usual effect afterwards."""
    stop = StopRequest()
    known = {number: signal.getsignal(number) for number in SIGNALS}
    request_on_signals(stop)
    try:
        yield stop
    finally:
        for number, before in known.items():
            signal.signal(number, before)
