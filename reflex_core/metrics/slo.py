# SPDX-License-Identifier: Apache-2.0
"""A latency objective such as p99=150ms, and whether the answers of the last minute meet it."""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reflex_core.errors import SettingError

WINDOW_S = 60.0
RECOMPUTE_S = 1.0
MOST_SAMPLES = 8192
LEAST_SAMPLES = 32
RECOVERY_SHARE = 0.8
RECOVERY_ROUNDS = 3

_GRAMMAR = re.compile(r"^p(\d+(?:\.\d+)?)\s*=\s*(\d+(?:\.\d+)?)\s*ms$", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Slo:
    """`percentile` (0..100] of the latencies must not exceed `threshold_ms`."""

    percentile: float
    threshold_ms: float

    @property
    def name(self) -> str:
        """p99, p99.9."""
        return f"p{self.percentile:g}"


def parse_slo(text: str) -> Slo:
    """`p<percentile>=<milliseconds>ms`. Raises SettingError in one sentence."""
    found = _GRAMMAR.match(text.strip())
    if found is None:
        raise SettingError(f"slo: expected p<percentile>=<milliseconds>ms such as p99=150ms, got '{text}'")
    slo = Slo(float(found[1]), float(found[2]))
    if not 0 < slo.percentile <= 100:
        raise SettingError(
            f"slo: the percentile must be above 0 and at most 100 as in p99=150ms, got '{text}'"
        )
    if slo.threshold_ms <= 0:
        raise SettingError(f"slo: the threshold must be above 0 ms as in p99=150ms, got '{text}'")
    return slo


def percentile_of(ordered: Sequence[float], percentile: float) -> float:
    """The percentile (0..100) of values in ascending order, linear between neighbours; 0.0 of nothing."""
    if not ordered:
        return 0.0
    position = percentile / 100 * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


class SloWindow:
    """The latencies of the last `window_s`, and whether they violate the objective. Thread-safe.

    It is violated once the percentile of at least 32 latencies exceeds the threshold. It is met again when the percentile
    was below 0.8 times the threshold three times in a row, `recompute_s` apart; or when so many latencies have grown
    too old that nothing is known any more, which is how a service that refuses everything finds back.
    """

    def __init__(
        self,
        slo: Slo,
        window_s: float = WINDOW_S,
        recompute_s: float = RECOMPUTE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slo = slo
        self._window_s, self._recompute_s, self._clock = window_s, recompute_s, clock
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, float]] = deque()
        self._ordered_ms: list[float] = []
        self._violated = False
        self._calm_rounds = 0
        self._next_round = 0.0

    def add(self, latency_ms: float) -> None:
        """Count the latency of one answer."""
        with self._lock:
            now = self._clock()
            self._samples.append((now, latency_ms))
            insort(self._ordered_ms, latency_ms)
            self._judge(now)

    @property
    def violated(self) -> bool:
        """Whether the objective is missed now."""
        with self._lock:
            if self._samples:
                self._judge(self._clock())
            return self._violated

    @property
    def measured_ms(self) -> float:
        """The percentile of the objective over the window; 0.0 of nothing."""
        with self._lock:
            return percentile_of(self._ordered_ms, self.slo.percentile)

    def _judge(self, now: float) -> None:
        self._age(now)
        if len(self._ordered_ms) < LEAST_SAMPLES:
            if self._violated:
                self._recovered()
            return
        measured_ms = percentile_of(self._ordered_ms, self.slo.percentile)
        if not self._violated:
            self._violated = measured_ms > self.slo.threshold_ms
            self._calm_rounds, self._next_round = 0, now + self._recompute_s
        elif now >= self._next_round:
            self._next_round = now + self._recompute_s
            calm = measured_ms < RECOVERY_SHARE * self.slo.threshold_ms
            self._calm_rounds = self._calm_rounds + 1 if calm else 0
            if self._calm_rounds >= RECOVERY_ROUNDS:
                self._violated = False

    def _recovered(self) -> None:
        """Begin anew: the few old latencies that are left would condemn the first new one."""
        self._violated = False
        self._samples.clear()
        self._ordered_ms.clear()

    def _age(self, now: float) -> None:
        oldest = now - self._window_s
        while self._samples and (self._samples[0][0] < oldest or len(self._samples) > MOST_SAMPLES):
            del self._ordered_ms[bisect_left(self._ordered_ms, self._samples.popleft()[1])]
