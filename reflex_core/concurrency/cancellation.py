# SPDX-License-Identifier: Apache-2.0
"""Cancel the work of another thread whose answer is no longer needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from reflex_core.errors import CancelledError


class Cancellation:
    """Belongs to one request. `cancel` may be called from any thread, any number of times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        """True once `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Stop whatever runs for this request."""
        with self._lock:
            self._cancelled = True
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise CancelledError after `cancel`."""
        if self._cancelled:
            raise CancelledError("the request was cancelled: its deadline has passed")

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have `cancel` call back while this is open; at once when it came before."""
        with self._lock:
            self._callbacks.append(callback)
            already = self._cancelled
        if already:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)
