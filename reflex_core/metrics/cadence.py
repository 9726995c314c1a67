# SPDX-License-Identifier: Apache-2.0
"""How punctual the ticks of a stream of setpoints are: lateness of the newest ones, what was left out, whether the rate is kept."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from reflex_core.metrics.latency_window import percentile_of

NEWEST = 1000  # ticks that figures are about
LEAST_S = 2.0  # of ticks, before it is said that a rate is not kept
UNKEPT_SHARE, KEPT_SHARE = (
    0.05,
    0.02,
)  # left out of the newest: above, and below, which a rate is not kept, and is


@dataclass(frozen=True, slots=True)
class TickFigures:
    """Of one group. late_*_s: from when a tick was due to its beginning, over the newest ticks; NaN where there were none.

    ticks: how many those are. skipped: ticks left out, ever. unkept: how often the rate began not to be kept; keeps: whether it is.
    unadjusted: rows that could not be adjusted.
    """

    group: str
    rate_hz: float
    late_p50_s: float
    late_p99_s: float
    late_max_s: float
    ticks: int = 0
    skipped: int = 0
    unkept: int = 0
    unadjusted: int = 0
    keeps: bool = True


class Cadence:
    """One per stream: written by the thread that ticks, read by any."""

    def __init__(self, rate_hz: float) -> None:
        self.rate_hz = rate_hz
        self._newest: deque[tuple[float, int]] = deque(maxlen=NEWEST)
        self._left_out = 0  # among the newest
        self._skipped = 0
        self.unkept = 0  # how often the rate began not to be kept
        self._keeps = True

    def tick(self, late_s: float, skipped: int) -> None:
        """Note a tick that began so late, and how many were left out after it."""
        if len(self._newest) == NEWEST:
            self._left_out -= self._newest[0][1]
        self._newest.append((late_s, skipped))
        self._left_out += skipped
        self._skipped += skipped
        due = len(self._newest) + self._left_out
        share = self._left_out / due
        if self._keeps and due >= LEAST_S * self.rate_hz and share > UNKEPT_SHARE:
            self._keeps = False
            self.unkept += 1
        elif share < KEPT_SHARE:
            self._keeps = True

    def figures(self, group: str, unadjusted: int = 0) -> TickFigures:
        """Return what is known now."""
        late_s = sorted(late_s for late_s, _ in list(self._newest))
        p50_s, p99_s, max_s = (
            percentile_of(late_s, percent) if late_s else math.nan for percent in (50.0, 99.0, 100.0)
        )
        return TickFigures(
            group, self.rate_hz, p50_s, p99_s, max_s, len(late_s), self._skipped, self.unkept, unadjusted, self._keeps
        )  # fmt: skip


def worst(figures: Iterable[TickFigures]) -> TickFigures:
    """Return the figures of all groups as one: the latest, and the sums of what is counted."""
    found = list(figures)
    late = [one for one in found if one.ticks]
    p50_s, p99_s, max_s = (
        max((getattr(one, name) for one in late), default=math.nan)
        for name in ("late_p50_s", "late_p99_s", "late_max_s")
    )
    return TickFigures(
        "", max((one.rate_hz for one in found), default=math.nan), p50_s, p99_s, max_s,
        sum(one.ticks for one in found), sum(one.skipped for one in found), sum(one.unkept for one in found),
        sum(one.unadjusted for one in found), all(one.keeps for one in found),
    )  # fmt: skip
