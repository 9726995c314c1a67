# SPDX-License-Identifier: Apache-2.0
"""A latency objective such as p99=150ms, and whether the answers of the last minute meet it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from reflex_core.errors import SettingError
from reflex_core.metrics.latency_window import LatencyWindow

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
    """Parse `p<percentile>=<milliseconds>ms`. Raises SettingError."""
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
        self._recompute_s, self._clock = recompute_s, clock
        self._lock = threading.Lock()
        self._latencies_ms = LatencyWindow(MOST_SAMPLES, window_s, lambda: self._clock())
        self._violated = False
        self._calm_rounds = 0
        self._next_round = 0.0

    def add(self, latency_ms: float) -> None:
        """Count the latency of one answer."""
        with self._lock:
            now = self._clock()
            self._latencies_ms.add(latency_ms)
            self._judge(now)

    @property
    def violated(self) -> bool:
        """Whether the objective is missed now."""
        with self._lock:
            self._judge(self._clock())
            return self._violated

    @property
    def measured_ms(self) -> float:
        """The percentile of the objective over the window; 0.0 of nothing."""
        with self._lock:
            return self._latencies_ms.percentile(self.slo.percentile)

    def _judge(self, now: float) -> None:
        if len(self._latencies_ms) < LEAST_SAMPLES:
            if self._violated:
                self._recovered()
            return
        measured_ms = self._latencies_ms.percentile(self.slo.percentile)
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
        self._latencies_ms.clear()
