# SPDX-License-Identifier: Apache-2.0
"""Have Python hand its lock to a waiting thread sooner while some thread must be in time."""

from __future__ import annotations

import sys
import threading

SHORT_S = 0.0005  # Python's own is 5 ms: half a period of a hundred ticks a second


class SwitchInterval:
    """A shorter `sys.setswitchinterval` as long as a caller needs it; the one before is restored. Thread-safe."""

    def __init__(self, short_s: float = SHORT_S) -> None:
        self._short_s = short_s
        self._lock = threading.Lock()
        self._users = 0
        self._before_s = 0.0

    def shorten(self) -> None:
        """Shorten it, until as many calls of `restore`."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before_s = sys.getswitchinterval()
                sys.setswitchinterval(min(self._short_s, self._before_s))

    def restore(self) -> None:
        """End one use."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                sys.setswitchinterval(self._before_s)


SWITCH_INTERVAL = SwitchInterval()  # one per process, as the interval is
