# SPDX-License-Identifier: Apache-2.0
"""The newest latencies and their percentiles: the one window and the one percentile routine of the package."""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence


def percentile_of(ordered: Sequence[float], percentile: float) -> float:
    """Return the percentile (0 to 100) of values in ascending order, linear between neighbours; 0.0 of nothing."""
    if not ordered:
        return 0.0
    position = percentile / 100 * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


class LatencyWindow:
    """The newest `most` values, none older than `max_age_s`, sorted: a percentile costs no sorting.

    Any unit; percentiles have the same. Not thread-safe: a caller that shares one has a lock already, for more than this.
    """

    __slots__ = ("_clock", "_max_age_s", "_most", "_ordered", "_values")

    def __init__(
        self, most: int, max_age_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start empty. max_age_s: None holds values of any age. clock: seconds, monotonic; read only where age counts."""
        self._most, self._max_age_s, self._clock = most, max_age_s, clock
        self._values: deque[tuple[float, float]] = deque()
        self._ordered: list[float] = []

    def add(self, value: float) -> None:
        """Keep a value as the newest."""
        self._values.append((self._clock() if self._max_age_s is not None else 0.0, value))
        insort(self._ordered, value)
        if len(self._values) > self._most:
            self._drop_oldest()

    def percentile(self, percentile: float) -> float:
        """Return the percentile (0: the smallest, 100: the largest) of what is in the window; 0.0 of nothing."""
        self._age()
        return percentile_of(self._ordered, percentile)

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._ordered.clear()

    def __len__(self) -> int:
        self._age()
        return len(self._values)

    def _age(self) -> None:
        if self._max_age_s is None:
            return
        oldest_s = self._clock() - self._max_age_s
        while self._values and self._values[0][0] < oldest_s:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        del self._ordered[bisect_left(self._ordered, self._values.popleft()[1])]
