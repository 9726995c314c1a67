# SPDX-License-Identifier: Apache-2.0
"""A2C2 at every control step (arXiv 2509.23224): what is added to the row that is due, by the newest observation.

The head runs once per chunk and observation for all rows still to come, as nothing that it sees changes in between. Ticks
sample what it said: cubic between the rows, and led over from what was added before within a control period, so that neither a
new chunk nor a new observation makes the command jump, in position or velocity.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reflex_core.chunks.a2c2.correction import Correction
from reflex_core.chunks.a2c2.features import Moment
from reflex_core.chunks.a2c2.reasons import APPLIED, GUARDED, LOW_LATENCY, TOO_LARGE
from reflex_core.chunks.interpolation import Doubles, Mask, Spline
from reflex_core.chunks.setpoints import Adjust
from reflex_core.reports import A2C2Report
from reflex_core.values import Columns, Floats, Observation

LONGEST_S = 1e6
WITHDRAWN_S = 0.2  # in which what was added is taken back once the newest observation is too old
RATE = 4.0  # per control period, of the approach to another correction: within one a tenth is left, and the lag is half of it


@dataclass(frozen=True, slots=True)
class Running:
    """The chunk that the robot follows.

    Attributes:
        rows: (n, action_dim) as its policy made them, inside the limits and uncorrected; rad, m or per second.
        led: (n, action_dim) as the robot is led to them.
        motion: Through `led` from now on, on the same clock: what is streamed, uncorrected.
        stamp_ns: Row i is due at stamp_ns + (i + 1) * dt_s, on the clock of the observations.
        start: The first row that is followed.
        seen: The observation that the chunk was made from.
        request_id: Of the request that it answers.
        joined: Whether `led` was faded in from the chunk before; else the robot is led from rest.
        skip: Why the chunk is not to be corrected; empty: it is.
    """

    rows: Floats
    led: Floats
    motion: Spline
    stamp_ns: int
    dt_s: float
    start: int
    seen: Observation
    request_id: str = ""
    joined: bool = True
    skip: str = ""

    @property
    def end_ns(self) -> int:
        """When the last row is due."""
        return self.stamp_ns + len(self.rows) * self.dt_ns

    @property
    def dt_ns(self) -> int:
        """The time from row to row."""
        return round(self.dt_s * 1e9)


@dataclass(frozen=True, slots=True)
class Executed:
    """A chunk as it is executed. request_id: whose answer it was. rows: (n, action_dim), corrected until now."""

    request_id: str
    rows: Floats


@dataclass(frozen=True, slots=True)
class Addition:
    """What is added from `since_ns` on: `wanted`, approached from `away` of it, which changes at `pace`.

    It is approached as a critically damped spring does, which goes on alike where it is begun anew on the way. From `until_ns` on
    it is taken back. away, pace: (action_dim,), and per second. rate: per second.
    """

    wanted: Spline
    since_ns: int
    away: Doubles
    pace: Doubles
    rate: float
    until_ns: int

    def at(self, now_ns: int) -> tuple[Doubles, Doubles]:
        """Return (action_dim,) what is added at a moment, and (action_dim,) its velocity."""
        added, velocity = self.wanted.at(now_ns)
        seconds = max(now_ns - self.since_ns, 0) * 1e-9
        left, push = math.exp(-self.rate * seconds), self.pace + self.rate * self.away
        added += left * (self.away + seconds * push)
        velocity += left * (self.pace - seconds * self.rate * push)
        s = (now_ns - self.until_ns) * 1e-9 / WITHDRAWN_S
        if s <= 0.0:
            return added, velocity
        if s >= 1.0:
            return np.zeros_like(added), np.zeros_like(added)
        kept = 1.0 - s * s * (3.0 - 2.0 * s)
        return added * kept, velocity * kept - added * (6.0 * s * (1.0 - s) / WITHDRAWN_S)


def admit_all(_: Running, rows: Floats, __: int) -> Floats:
    """Let every row pass: the robot has no guard."""
    return rows


class StepCorrection:
    """The correction of the row that is due, for one robot.

    `follow`, `observe` and `end` may be called from several threads, and take about as long as the head and the features of one
    observation; ticks wait for none of them.
    """

    def __init__(
        self, correction: Correction, low: Doubles, high: Doubles, streamed: Mask, *,
        latency_threshold_ms: float = 40.0, max_age_s: Callable[[], float] = lambda: np.inf,
        admitted: Callable[[Running, Floats, int], Floats | None] = admit_all,
        on_outcome: Callable[[A2C2Report], None] = lambda _: None,
        on_error: Callable[[Exception], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """Start without a chunk.

        Args:
            correction: The head.
            low: (action_dim,) the range that no corrected row leaves; infinite where there is none.
            high: (action_dim,).
            streamed: (action_dim,) the columns that are streamed; no others are corrected.
            latency_threshold_ms: How much newer than the chunk's an observation must be to correct it.
            max_age_s: How old an observation may be that corrections come from.
            admitted: Returns the corrected rows as they may be executed from a row on, None where they may not.
            on_outcome: Called with what became of every chunk and observation.
            on_error: Called with what the features or the head raised.
        """
        self._correction, self._low, self._high, self._streamed = correction, low, high, streamed
        self._latency_threshold_ns, self._max_age_s = round(latency_threshold_ms * 1e6), max_age_s
        self._admitted, self._on_outcome, self._on_error = admitted, on_outcome, on_error
        self._most_per_row = correction.head.checkpoint.output_saturation_scale
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._newest: Observation | None = None
        self._addition: Addition | None = None

    def follow(self, running: Running, now_ns: int) -> A2C2Report:
        """Correct this chunk from now on, by the newest observation that is known, instead of the one before."""
        with self._lock:
            previous = self._commanded(now_ns)
            self._running = running
            return self._plan(running, previous, now_ns)

    def observe(self, observation: Observation, now_ns: int) -> A2C2Report | None:
        """Take note of what is seen now; None where it is no newer than what was known, or nothing is followed."""
        with self._lock:
            if self._newest is not None and observation.stamp_ns <= self._newest.stamp_ns:
                return None
            self._newest = observation
            if self._running is None or now_ns >= self._running.end_ns:
                return None
            return self._plan(self._running, self._commanded(now_ns), now_ns)

    def end(self) -> None:
        """Add nothing any more: the robot is held, or another's. What was seen is forgotten: clocks may have been set."""
        with self._lock:
            self._running = self._newest = self._addition = None

    def freeze(self) -> None:
        """Let no observation change what is added to the rest of this chunk: clocks have been set."""
        with self._lock:
            self._running = self._newest = None

    def commanded(self, now_ns: int) -> Doubles | None:
        """Return (action_dim,) what is commanded at a moment; None where nothing is followed."""
        with self._lock:
            return self._commanded(now_ns)

    def executed(self) -> Executed | None:
        """Return the chunk that is followed as it is corrected now; None where none is followed, or nothing is added."""
        with self._lock:
            running, addition = self._running, self._addition
        if running is None or addition is None:
            return None
        due_ns = running.stamp_ns + np.arange(1, len(running.led) + 1) * running.dt_ns
        rows = running.led + addition.wanted.sampled(due_ns)
        return Executed(running.request_id, rows.astype(np.float32))

    def added(self, now_ns: int) -> tuple[Doubles, Doubles] | None:
        """Return (action_dim,) what is added to the row that is due now, and (action_dim,) its velocity; None: nothing."""
        addition = self._addition
        return None if addition is None else addition.at(now_ns)

    def adjust(self, columns: Columns | slice) -> Adjust:
        """Return what corrects the rows of one group of columns, tick by tick: (row (width,), when) -> row (width,)."""
        low, high = self._low[columns], self._high[columns]

        def corrected(row: Doubles, now_ns: int) -> Doubles:
            added = self.added(now_ns)
            if added is None:
                return row
            # a row that is outside already was let pass as it is, and is not taken further
            inside: Doubles = np.minimum(
                np.maximum(row + added[0][columns], np.minimum(low, row)), np.maximum(high, row)
            )
            return inside

        return corrected

    def _commanded(self, now_ns: int) -> Doubles | None:
        if self._running is None:
            return None
        row, added = self._running.motion.at(now_ns)[0], self.added(now_ns)
        return row if added is None else row + added[0]

    def _plan(self, running: Running, previous: Doubles | None, now_ns: int) -> A2C2Report:
        """Replace what is added, and report it. previous: (action_dim,) what is commanded now."""
        first, rows, outcome = running.start, None, A2C2Report(False, running.skip)
        if not running.skip:
            first, rows, outcome = self._corrected(running, previous)
        if rows is not None:
            self._addition = self._led_over(running, _course(running, rows, first), now_ns)
        elif self._addition is not None:
            self._addition = self._led_over(running, _nothing(running), now_ns)
        self._on_outcome(outcome)
        return outcome

    def _led_over(self, running: Running, wanted: Spline, now_ns: int) -> Addition:
        """Return what is added from now on, which begins as what is added now."""
        (there, speed), before = wanted.at(now_ns), self._addition
        zeros = np.zeros_like(there)
        added, velocity = (zeros, zeros) if before is None else before.at(now_ns)
        until_ns = now_ns if self._newest is None else self._newest.stamp_ns
        until_ns += round(min(self._max_age_s(), LONGEST_S) * 1e9)
        return Addition(wanted, now_ns, added - there, velocity - speed, RATE / running.dt_s, until_ns)

    def _corrected(self, running: Running, previous: Doubles | None) -> tuple[int, Floats | None, A2C2Report]:
        """Return the first row that is still to come, the rows wanted (n, action_dim), None: those streamed, and the outcome."""
        now, first = self._newest, running.start
        between_ns = 0 if now is None else now.stamp_ns - running.seen.stamp_ns
        try:
            if now is None or between_ns <= 0 or between_ns < self._latency_threshold_ns:
                # the rows were faded in from where the chunk before leads, which is not where its corrections led
                faded = running.joined and self._addition is not None
                rows = self._admissible(running, running.rows, first) if faded else None
                return first, rows, A2C2Report(False, LOW_LATENCY)
            first = min(max(between_ns // running.dt_ns, first), len(running.rows) - 1)
            commanded = None if previous is None else previous.astype(np.float32)
            vector = self._correction.features_of(Moment(now, running.seen, commanded))
            corrected = self._correction.chunk(running.rows, vector, between_ns * 1e-6, first)
            if not np.isfinite(corrected.actions).all():
                return first, None, A2C2Report(False, TOO_LARGE)
            if corrected.magnitude > np.sqrt(len(running.rows)) * self._most_per_row:
                return first, None, A2C2Report(False, TOO_LARGE, corrected.magnitude)
            rows = self._admissible(running, corrected.actions, first)
        except Exception as error:  # a correction is an extra: the chunk's own rows are still good
            self._on_error(error)
            return first, None, A2C2Report(False, f"error:{type(error).__name__}")
        if rows is None:
            return first, None, A2C2Report(False, GUARDED, corrected.magnitude)
        return first, rows, A2C2Report(True, APPLIED, corrected.magnitude)

    def _admissible(self, running: Running, rows: Floats, first: int) -> Floats | None:
        """Return the rows as they may be executed from `first` on; None where they may not. Those led from rest are added to."""
        wanted = rows if running.joined else running.led + (rows - running.rows)
        return self._admitted(running, np.where(self._streamed, wanted, running.led), first)


def _course(running: Running, rows: Floats, first: int) -> Spline:
    """Return what is added on the way through the corrected rows, from a row before `first` on, which begins like it.

    Where the stream goes on from the chunk before, its rows were faded in: that is undone, as corrected chunks agree.
    """
    added = rows[first:].astype(np.float64) - running.led[first:]
    added = np.concatenate([added[:1], added])
    times_ns = running.stamp_ns + np.arange(first, first + len(added)) * running.dt_ns
    velocities = np.gradient(added, running.dt_s, axis=0)
    velocities[0] = velocities[-1] = 0.0
    return Spline(times_ns, added, velocities)


def _nothing(running: Running) -> Spline:
    zeros = np.zeros((1, running.rows.shape[1]))
    return Spline(np.array([running.stamp_ns]), zeros, zeros)
