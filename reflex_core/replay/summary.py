# SPDX-License-Identifier: Apache-2.0
"""Summarise a whole replay: counts per slot and mode, and medians of the latency. Constant memory."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from reflex_core.replay.comparison import MODES, RequestDiff

KEPT = 4096  # latencies that the medians are taken from; more would not narrow the interval by much
LEAST_FOR_INTERVAL = (
    6  # of fewer values not even the smallest and the largest enclose the median with 95 per cent
)

SLOWER, FASTER, SAME, UNCLEAR = "slower", "faster", "same", "unclear"


@dataclass(frozen=True, slots=True)
class Median:
    """A median and an interval that holds the true one with 95 per cent; None with too few values."""

    value: float
    low: float | None
    high: float | None


def median(values: list[float]) -> Median:
    """Return the median with an interval from order statistics, which supposes nothing about the distribution.

    The interval's ranks are the binomial's quantiles (Conover, Practical Nonparametric Statistics, 3.2), for more than
    50 values by its normal approximation. Raises ValueError for no values.
    """
    if not values:
        raise ValueError("the median of no values")
    ordered = sorted(values)
    count = len(ordered)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    if count < LEAST_FOR_INTERVAL:
        return Median(middle, None, None)
    rank = _rank(count)
    return Median(middle, ordered[rank], ordered[count - 1 - rank])


def _rank(count: int) -> int:
    """Return how many values may be left out at either end of `count`, each end with a risk of 2.5 per cent."""
    if count > 50:
        return max(0, math.floor((count - 1.96 * math.sqrt(count)) / 2) - 1)
    below, rank = 0.0, 0
    while (below := below + math.comb(count, rank) * 0.5**count) <= 0.025:
        rank += 1
    return rank - 1


class Sample:
    """At most KEPT of the values that were added, each as likely as any other (reservoir sampling, seeded)."""

    def __init__(self) -> None:
        self.values: list[tuple[float, float, float]] = []
        self._seen = 0
        self._random = random.Random(0)  # noqa: S311 - which latencies are drawn

    def add(self, recorded_ms: float, replayed_ms: float, pct: float) -> None:
        """Take one request's latencies into account."""
        self._seen += 1
        if len(self.values) < KEPT:
            self.values.append((recorded_ms, replayed_ms, pct))
            return
        place = self._random.randrange(self._seen)
        if place < KEPT:
            self.values[place] = (recorded_ms, replayed_ms, pct)


class Tally:
    """The requests of one slot, or of all."""

    def __init__(self) -> None:
        self.diffed = self.raised = self.shape_mismatches = self.other_steps = 0
        self.passed = dict.fromkeys(MODES, 0)
        self.max_abs: float | None = None
        self.batched = 0
        self.max_abs_batched: float | None = (
            None  # of those that shared a run of the network when they were recorded
        )
        self.min_cosine: float | None = None
        self.joints: dict[str, float] = {}
        self._latencies = Sample()

    def add(self, made: RequestDiff) -> None:
        """Count one replayed request."""
        self.diffed += 1
        if made.error:
            self.raised += 1
            return
        for mode in MODES:
            self.passed[mode] += made.passed(mode)
        if made.steps is not None and made.steps[0] > 0:
            self.other_steps += made.steps[0] != made.steps[1]
        self._add_actions(made)
        latency = made.latency
        if latency is not None and latency.pct is not None:
            self._latencies.add(latency.recorded_ms, latency.replayed_ms, latency.pct)

    def _add_actions(self, made: RequestDiff) -> None:
        actions = made.actions
        if actions is None:
            return
        if actions.cosine is None or actions.max_abs is None:
            self.shape_mismatches += 1
            return
        self.max_abs = max(actions.max_abs, self.max_abs or 0.0)
        if made.batch_size > 1:
            self.batched += 1
            self.max_abs_batched = max(actions.max_abs, self.max_abs_batched or 0.0)
        self.min_cosine = min(actions.cosine, 1.0 if self.min_cosine is None else self.min_cosine)
        for joint in actions.joints:
            self.joints[joint.name] = max(joint.max_abs, self.joints.get(joint.name, 0.0))

    def latency(self, allowed_pct: float) -> dict[str, Any] | None:
        """Return medians of the latencies, and whether the change of each request is beyond `allowed_pct` in the middle.

        None where no latency was compared. `verdict`: slower or faster where the whole interval is beyond, same where
        it is within, else unclear.
        """
        values = self._latencies.values
        if not values:
            return None
        recorded, replayed, change = (median([row[column] for row in values]) for column in range(3))
        return {
            "requests": len(values),
            "recorded_median_ms": recorded.value,
            "replayed_median_ms": replayed.value,
            "median_delta_pct": change.value,
            "low_pct": change.low,
            "high_pct": change.high,
            "verdict": verdict(change, allowed_pct),
        }


def verdict(change: Median, allowed_pct: float) -> str:
    """Return what an interval of changes in per cent means: slower, faster, same or unclear."""
    if change.low is None or change.high is None:
        return UNCLEAR
    if change.low > allowed_pct:
        return SLOWER
    if change.high < -allowed_pct:
        return FASTER
    return SAME if change.low >= -allowed_pct and change.high <= allowed_pct else UNCLEAR


class Totals:
    """The whole replay: all records read, those left out and why, and a tally per slot."""

    def __init__(self) -> None:
        self.records = 0
        self.left_out: Counter[str] = Counter()
        self.everything = Tally()
        self.slots: dict[str, Tally] = {}
        self.without_seed = 0

    def add(self, made: RequestDiff) -> None:
        """Count one replayed request, in its slot too."""
        self.everything.add(made)
        self.slots.setdefault(made.slot, Tally()).add(made)

    @property
    def compared(self) -> int:
        """Requests whose chunk could be compared with the recorded one."""
        return self.everything.diffed - self.everything.raised
