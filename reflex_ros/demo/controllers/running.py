# SPDX-License-Identifier: Apache-2.0
"""The trajectory that a controller follows, and where it is at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from reflex_ros.demo.controllers.interpolate import S_PER_NS, between, deduced
from reflex_ros.demo.controllers.points import State


@dataclass(frozen=True, slots=True)
class Sample:
    """Where a trajectory is. segment: the points it lies between: (0, 0) before the first, (n - 1, n) from the last on."""

    state: State
    segment: tuple[int, int]


class RunningTrajectory:
    """States of all joints at increasing times. It begins with the first update, which says from where."""

    def __init__(
        self, stamp_ns: int, times_ns: Sequence[int], states: Sequence[State], *, splines: bool = True
    ) -> None:
        """Create it. stamp_ns: what `times_ns` are counted from; 0: from the first update. splines: False: no interpolation."""
        self.start_ns = stamp_ns
        self.times_ns = tuple(times_ns)
        self.states = list(states)
        self.begun = False
        self._splines = splines
        self._before_ns, self._before = 0, State(None)

    @property
    def ends_ns(self) -> int:
        """Return when the last point is due; defined once it has begun."""
        return self.start_ns + self.times_ns[-1]

    def begin(self, now_ns: int, before_ns: int, before: State) -> None:
        """Begin at `now_ns`; `before`, at `before_ns`, is where the joints come from. What the points lack is deduced."""
        self.begun = True
        if self.start_ns == 0:
            self.start_ns = now_ns
        self._before_ns, self._before = before_ns, _as_full_as(self.states[0], before)
        if self._splines:
            self._deduce()

    def _deduce(self) -> None:
        # The controller does it segment by segment as it comes to them; the result is the same, but for segments that it
        # skips, where it reads memory that it should not.
        due_ns = [self.start_ns + time_ns for time_ns in self.times_ns]
        if due_ns[0] > self._before_ns:
            span_s = (due_ns[0] - self._before_ns) * S_PER_NS
            self._before, self.states[0] = deduced(self._before, self.states[0], span_s)
        for index in range(1, len(self.states)):
            span_s = (due_ns[index] - due_ns[index - 1]) * S_PER_NS
            self.states[index - 1 : index + 1] = deduced(self.states[index - 1], self.states[index], span_s)

    def sample(self, at_ns: int) -> Sample | None:
        """Return where it is at `at_ns`; None for times before it was begun from, and where no position is known."""
        if at_ns < self._before_ns:
            return None
        last = len(self.states) - 1
        index = bisect_right(self.times_ns, at_ns - self.start_ns) - 1
        if index == last:
            return _resting(self.states[last], (last, last + 1))
        start_ns, start = (
            (self._due_ns(index), self.states[index]) if index >= 0 else (self._before_ns, self._before)
        )
        end_ns, end = self._due_ns(index + 1), self.states[index + 1]
        segment = (max(index, 0), index + 1)
        if not self._splines:
            return Sample(end if index >= 0 else start, segment)
        if start.positions is None or end.positions is None:
            return None
        return Sample(between(start_ns, start, end_ns, end, at_ns), segment)

    def _due_ns(self, index: int) -> int:
        return self.start_ns + self.times_ns[index]


def _as_full_as(first: State, before: State) -> State:
    """Return `before` with zeros for the velocities and accelerations that the first point has and it lacks."""
    if before.velocities is None and first.velocities is not None:
        before = replace(before, velocities=np.zeros_like(first.velocities))
    if before.accelerations is None and first.accelerations is not None:
        before = replace(before, accelerations=np.zeros_like(first.accelerations))
    return before


def _resting(state: State, segment: tuple[int, int]) -> Sample | None:
    """Return the last point: its position for ever, velocity and acceleration as written, else 0."""
    if state.positions is None:
        return None
    zeros = np.zeros_like(state.positions)
    velocities = zeros if state.velocities is None else state.velocities
    accelerations = zeros if state.accelerations is None else state.accelerations
    return Sample(State(state.positions, velocities, accelerations), segment)
