# SPDX-License-Identifier: Apache-2.0
"""What the joints' readings show while a person moves them: which have moved, and what cannot be right about their units.

For a dry run, before a policy commands them. Readings are as the robot reports them, before any gate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import velocity_columns

MOVED_SHARE = 0.05  # of its range that a joint has to be moved
JUMP_SHARE = 0.5  # of its range from one message to the next: no hand moves a joint so fast
FAR_SHARE = 3.0  # of its range: a joint that reads so far outside it counts in another unit
DEGREES = 180.0 / math.pi


@dataclass(slots=True)
class _Seen:
    """One joint. low, high: its range in rad or m; least, most: of its readings."""

    low: float
    high: float
    least: float = math.inf
    most: float = -math.inf
    last: float = math.nan
    jumps: int = 0

    @property
    def moved(self) -> bool:
        return self.most - self.least >= MOVED_SHARE * (self.high - self.low)

    def put(self, reading: float) -> None:
        if not math.isfinite(reading):
            return
        self.jumps += abs(reading - self.last) > JUMP_SHARE * (self.high - self.low)
        self.least, self.most, self.last = min(self.least, reading), max(self.most, reading), reading

    def verdict(self) -> str:
        """Return in a few words what the readings show."""
        if math.isnan(self.last):
            return "not in the joint states"
        seen = f"{self.least:.3g} to {self.most:.3g} of {self.low:.3g} to {self.high:.3g}"
        width = self.high - self.low
        if max(self.low - self.least, self.most - self.high) > FAR_SHARE * width:
            inside = self.low - width <= self.most / DEGREES <= self.high + width
            return f"{seen}: {'counts in degrees' if inside else 'counts in another unit'}"
        if self.jumps:
            return f"{seen}: leapt {self.jumps} times"
        return f"{seen}: {'moved' if self.moved else 'not moved yet'}"


@dataclass(slots=True)
class MotionCheck:
    """The joints of one robot by name. Not thread-safe: its owner has the lock."""

    _seen: dict[str, _Seen] = field(default_factory=dict)

    def put(self, names: Iterable[str], positions: Iterable[float]) -> None:
        """Take one message of joint states; joints of others are ignored."""
        for name, position in zip(names, positions, strict=False):
            if name in self._seen:
                self._seen[name].put(float(position))

    def verdicts(self) -> Mapping[str, str]:
        """Return what is known of each joint, in a few words."""
        return {name: seen.verdict() for name, seen in self._seen.items()}

    @property
    def unmoved(self) -> tuple[str, ...]:
        """The joints that were not moved yet, or of which something cannot be right."""
        return tuple(name for name, seen in self._seen.items() if not seen.verdict().endswith(": moved"))


def motion_check(embodiment: Embodiment | None) -> MotionCheck:
    """Return the check of a robot's joints, but for what is commanded by velocity; of none without an embodiment."""
    if embodiment is None:
        return MotionCheck()
    rates = velocity_columns(embodiment.groups, embodiment.action_dim)
    return MotionCheck({
        name: _Seen(float(embodiment.action_min[column]), float(embodiment.action_max[column]))
        for column, name in enumerate(embodiment.joint_names)
        if rates is None or not rates[column]
    })  # fmt: skip
