# SPDX-License-Identifier: Apache-2.0
"""Watches the slot that has just been given traffic, and takes that back when it does worse than the one before."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from reflex_core.metrics.intervals import wilson
from reflex_core.slots.changing import ROLLBACK, Swap, SwapError
from reflex_core.slots.routing import other
from reflex_core.values import POLICY, Request, Served

SAMPLES_KEPT = 10_000
NON_FINITE = "non_finite"  # a hold reason that is not about limits
CLAMPS, ERRORS, DIVERGENCE = "clamp rate", "error rate", "divergence"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tripwires:
    """When a swap is taken back, within `window_s` of it and after at least `least` answers of the slot.

    A rate trips when even the lower end of its Wilson interval (`sigmas` wide: it is looked at again and again) is above
    both `factor` times the rate before and that rate plus `margin`. Divergence trips on its mean after `least` values:
    above `divergence_limit`, or, without one, above `factor` times the mean before.
    """

    window_s: float = 600.0
    least: int = 20
    factor: float = 2.0
    margin: float = 0.05
    sigmas: float = 3.0
    divergence_limit: float | None = None


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    slot: str
    clamped: bool = False
    failed: bool = False


@dataclass(slots=True)
class _Counts:
    """Answers, and what was wrong with them; divergences, and their sum."""

    answers: int = 0
    clamped: int = 0
    failed: int = 0
    divergences: int = 0
    sum: float = 0.0

    def add(self, sample: _Sample) -> None:
        self.answers += 1
        self.clamped += sample.clamped
        self.failed += sample.failed

    def diverged(self, value: float) -> None:
        self.divergences += 1
        self.sum += value


@dataclass(frozen=True, slots=True)
class Tripped:
    """Why a swap was taken back. before, after: rates 0..1, or mean divergence; count: answers after the swap."""

    wire: str
    slot: str
    before: float
    after: float
    count: int

    def __str__(self) -> str:
        return f"{self.wire} of slot '{self.slot}' is {self.after:.3g} over {self.count} answers, before {self.before:.3g}"


class Monitor:
    """A listener of the engine, of the router's failures, of the shadow and of `Operating`. Thread-safe.

    rollback: called with the reason, at most once per swap. A rollback opens no window of its own.
    """

    def __init__(
        self,
        rollback: Callable[[str], object],
        wires: Tripwires | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rollback, self._wires, self._clock = rollback, wires or Tripwires(), clock
        self._lock = threading.Lock()
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES_KEPT)
        self._divergences: deque[tuple[float, float]] = deque(maxlen=SAMPLES_KEPT)
        self._slot: str | None = None
        self._since_s = 0.0
        self._before, self._after = _Counts(), _Counts()
        self._last: Tripped | None = None

    @property
    def watching(self) -> str | None:
        """The slot that is on trial; None when no window is open."""
        with self._lock:
            return self._slot if self._open() else None

    @property
    def last(self) -> Tripped | None:
        """What tripped last; None if nothing ever did."""
        return self._last

    def swapped(self, swap: Swap) -> None:
        """Open a window on the slot that gains traffic; a rollback closes the one that is open."""
        with self._lock:
            self._slot = None if swap.kind == ROLLBACK else swap.gains
            self._since_s = self._clock()
            self._before, self._after = self._baseline(other(swap.gains)), _Counts()

    def answered(self, _: Request, served: Served) -> None:
        """Count an answer. A hold of the guard counts as clamped; NaN, and the fallback for a late policy, as an error."""
        if served.hold_reason == NON_FINITE or served.fallback.deadline_exceeded:
            self._add(_Sample(self._clock(), served.slot, failed=True))
        elif served.chunk.source == POLICY or served.hold_reason:
            clamped = served.guard.clamped or bool(served.hold_reason)
            self._add(_Sample(self._clock(), served.slot, clamped=clamped))

    def failed(self, slot: str) -> None:
        """Count a failure of a slot's model."""
        self._add(_Sample(self._clock(), slot, failed=True))

    def diverged(self, value: float) -> None:
        """Count how far two policies are apart on one observation: any one measure, always the same."""
        if not math.isfinite(value):
            return
        with self._lock:
            self._divergences.append((self._clock(), value))
            self._after.diverged(value)
            tripped = self._judge_divergence()
        self._act(tripped)

    def _baseline(self, loses: str) -> _Counts:
        """Return the window before now of the slot that loses traffic; where it had none, of whatever there was."""
        oldest = self._since_s - self._wires.window_s
        samples = [sample for sample in self._samples if sample.at_s >= oldest]
        counts = _Counts()
        for sample in [sample for sample in samples if sample.slot == loses] or samples:
            counts.add(sample)
        for at_s, value in self._divergences:
            if at_s >= oldest:
                counts.diverged(value)
        return counts

    def _add(self, sample: _Sample) -> None:
        tripped = None
        with self._lock:
            self._samples.append(sample)
            if sample.slot == self._slot:
                self._after.add(sample)
                tripped = self._judge_rates()
        self._act(tripped)

    def _open(self) -> bool:
        if self._slot is not None and self._clock() - self._since_s > self._wires.window_s:
            self._slot = None
        return self._slot is not None

    def _judge_rates(self) -> Tripped | None:
        slot, before, after = self._slot, self._before, self._after
        if not self._open() or slot is None or after.answers < self._wires.least:
            return None
        for wire, known, bad in (
            (CLAMPS, before.clamped, after.clamped),
            (ERRORS, before.failed, after.failed),
        ):
            rate = known / before.answers if before.answers else 0.0
            allowed = max(self._wires.factor * rate, rate + self._wires.margin)
            if wilson(bad, after.answers, self._wires.sigmas)[0] > allowed:
                return Tripped(wire, slot, rate, bad / after.answers, after.answers)
        return None

    def _judge_divergence(self) -> Tripped | None:
        slot, before, after, wires = self._slot, self._before, self._after, self._wires
        if not self._open() or slot is None or after.divergences < wires.least:
            return None
        known = before.sum / before.divergences if before.divergences else 0.0
        limit = wires.divergence_limit
        if limit is None:
            if before.divergences < wires.least:
                return None
            limit = wires.factor * known
        mean = after.sum / after.divergences
        return Tripped(DIVERGENCE, slot, known, mean, after.divergences) if mean > limit else None

    def _act(self, tripped: Tripped | None) -> None:
        if tripped is None:
            return
        with self._lock:
            if self._slot is None:
                return  # another thread saw it too
            self._slot, self._last = None, tripped
        log.error("post-swap monitor: %s: rolling back", tripped)
        try:
            self._rollback(str(tripped))
        except SwapError as error:
            log.error("post-swap monitor: the swap cannot be rolled back: %s", error)
