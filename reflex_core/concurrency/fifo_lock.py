# SPDX-License-Identifier: Apache-2.0
"""A lock that is granted in the order of the requests, so that sixteen callers wait equally long."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from reflex_core.concurrency.cancellation import Cancellation


class FifoLock:
    """First come, first served. threading.Lock makes no such promise."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def turn(self, cancellation: Cancellation | None = None) -> Iterator[None]:
        """Hold the lock; block until all earlier callers are done. Raises CancelledError when cancelled."""
        with self._guard:
            mine = threading.Event() if self._taken else None
            if mine is None:
                self._taken = True
            else:
                self._waiting.append(mine)
        if mine is not None:
            self._wait(mine, cancellation or Cancellation())
        try:
            yield
        finally:
            self._pass_on()

    def _wait(self, mine: threading.Event, cancellation: Cancellation) -> None:
        try:
            with cancellation.calling(mine.set):
                mine.wait()
            cancellation.check()
        except (
            BaseException
        ):  # cancelled, or Ctrl-C: an abandoned place in the queue would block all callers behind it
            with self._guard:
                waiting = mine in self._waiting
                if waiting:
                    self._waiting.remove(mine)
            if not waiting:
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()  # the lock passes on without being free in between
            else:
                self._taken = False
