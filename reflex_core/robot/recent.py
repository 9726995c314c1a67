# SPDX-License-Identifier: Apache-2.0
"""The newest values of a stream at the control rate: what a policy of several observations looks back at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")

PARTS = 4  # of a control period: so near to each other are values that are kept apart


@dataclass(frozen=True, slots=True)
class Moment(Generic[Value]):
    """A value, and when it was measured."""

    at_ns: int
    value: Value


class Recent(Generic[Value]):
    """Values no older than `steps` control periods and a quarter of one apart, so that their number is bounded.

    Not thread-safe. period_ns: of control; steps: how many observations are seen, the newest one included.
    """

    def __init__(self, period_ns: int, steps: int) -> None:
        self._period_ns, self._steps = period_ns, steps
        self._moments: list[Moment[Value]] = []

    def wants(self, at_ns: int) -> bool:
        """Return whether a value of this moment is far enough from the newest one to be kept beside it."""
        if not self._moments:
            return True
        apart_ns = at_ns - self._moments[-1].at_ns
        return apart_ns * PARTS >= self._period_ns or -apart_ns > self._steps * self._period_ns

    def add(self, at_ns: int, value: Value) -> None:
        """Add the newest value. One that is older than the newest changes nothing, unless the clock was set back."""
        moments, oldest_ns = self._moments, at_ns - self._steps * self._period_ns
        if moments and at_ns <= moments[-1].at_ns:
            if moments[-1].at_ns - at_ns <= self._steps * self._period_ns:
                return
            moments.clear()
        if len(moments) > 1 and (moments[-1].at_ns - moments[-2].at_ns) * PARTS < self._period_ns:
            moments.pop()
        moments.append(Moment(at_ns, value))
        while moments[0].at_ns < oldest_ns:
            moments.pop(0)

    def before(self, at_ns: int) -> tuple[Moment[Value], ...]:
        """Return the values nearest to one, two, ... control periods before `at_ns`, oldest first.

        They are fewer than `steps` - 1 where the next one is more than a period from where it should be: at an episode's
        start, or where nothing was measured for too long.
        """
        found: list[Moment[Value]] = []
        for step in range(1, self._steps):
            wanted_ns = at_ns - step * self._period_ns
            newer_ns = found[-1].at_ns if found else at_ns
            older = [moment for moment in self._moments if moment.at_ns < newer_ns]
            if not older:
                break
            nearest = min(older, key=lambda moment: abs(moment.at_ns - wanted_ns))
            if abs(nearest.at_ns - wanted_ns) > self._period_ns:
                break
            found.append(nearest)
        return tuple(reversed(found))

    def remove_at(self, at_ns: int) -> None:
        """Forget the value of a moment: it turned out to be unusable."""
        self._moments = [moment for moment in self._moments if moment.at_ns != at_ns]

    def clear(self) -> None:
        """Forget everything."""
        self._moments.clear()

    @property
    def values(self) -> tuple[Value, ...]:
        """All of them, oldest first."""
        return tuple(moment.value for moment in self._moments)
