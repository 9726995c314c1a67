# SPDX-License-Identifier: Apache-2.0
"""What can be known of clocks: whether this machine's was set, and how far the sensors' are from it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

STEP_S = 0.05  # NTP slews by half a millisecond a second; a smaller step is within what messages are late by
BLURRED_NS = 5_000_000  # two clocks read so far apart say nothing of each other
WINDOW_S = 5.0


class ClockSteps:
    """Sees the wall clock being set, against the monotonic clock. For one thread."""

    def __init__(
        self, clock_ns: Callable[[], int], monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._clock_ns, self._monotonic_ns = clock_ns, monotonic_ns
        self._offset_ns = self._offset()

    def step_s(self) -> float:
        """Return by how many seconds the clock was set since the last call; 0.0 when it was not."""
        offset = self._offset()
        if offset is None:
            return 0.0
        before, self._offset_ns = self._offset_ns, offset
        step_s = 0.0 if before is None else (offset - before) * 1e-9
        return step_s if abs(step_s) >= STEP_S else 0.0

    def _offset(self) -> int | None:
        """Return wall clock less monotonic clock, ns; None where this thread was interrupted between reading the two."""
        began, wall, ended = self._monotonic_ns(), self._clock_ns(), self._monotonic_ns()
        return None if ended - began > BLURRED_NS else wall - (began + ended) // 2


class StampLags:
    """The smallest age on arrival of each stream's messages over the last seconds. Thread-safe.

    It is the delay of the transport plus the distance of the two clocks; below zero only the clocks explain it.
    """

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_ns = int(window_s * 1e9)
        self._lock = threading.Lock()
        self._streams: dict[str, tuple[int, float, float]] = {}  # since when, least of it, least before

    def note(self, stream: str, age_ns: int, now_ns: int) -> None:
        """Count one message that arrived `age_ns` after its stamp. now_ns: monotonic."""
        age_s = age_ns * 1e-9
        with self._lock:
            began, least, before = self._streams.get(stream, (now_ns, age_s, age_s))
            if now_ns - began >= self._window_ns:
                began, before, least = now_ns, least, age_s
            self._streams[stream] = (began, min(least, age_s), before)

    def smallest_s(self) -> dict[str, float]:
        """Return the least age in seconds by stream, of this window and the one before."""
        with self._lock:
            return {stream: min(least, before) for stream, (_, least, before) in self._streams.items()}

    def clear(self) -> None:
        """Drop all measurements, after the clock was set."""
        with self._lock:
            self._streams.clear()
