# SPDX-License-Identifier: Apache-2.0
"""What the joints' readings show while a person moves them: which have moved, and what cannot be right about their units.

For a dry run, before a policy commands them. Readings are as the robot reports them, before any gate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from reflex_core.normalization.affine import Affine
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import velocity_columns

MOVED_SHARE = 0.05  # of its range that a joint has to be moved
JUMP_SHARE = 0.5  # of its range from one message to the next: no hand moves a joint so fast
FAR_SHARE = 3.0  # of its range: a joint that reads so far outside it counts in another unit
DEGREES = 180.0 / math.pi
SPREADS = 4.0  # standard deviations around the mean that a policy has seen
TOGETHER, FAR_ENOUGH = 0.99, 0.2  # a correlation, and over what in rad or m of each joint
LEAST_CHANGE, LEAST_COUNT = 0.005, 10  # rad or m from one sample to the next, and how many are needed


@dataclass(slots=True)
class _Seen:
    """One joint. low, high: its range in rad or m; least, most: of its readings; known: what the policy has seen of it."""

    low: float
    high: float
    known: tuple[float, float] = (-math.inf, math.inf)
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

    def remark(self) -> str:
        """Return a phrase where every reading is outside what the policy has seen, else ""."""
        low, high = self.known
        if math.isnan(self.last) or (self.most >= low and self.least <= high):
            return ""
        return f"the policy has seen {low:.3g} to {high:.3g}"


class _Together:
    """Which joints have moved with one another and never alone: of samples that differ from one another."""

    def __init__(self, count: int) -> None:
        self._last = np.full(count, np.inf)
        self._origin = np.zeros(count)
        self._count = 0
        self._sums, self._products = np.zeros(count), np.zeros((count, count))

    def put(self, readings: Sequence[float]) -> None:
        """Take (count,) readings of all joints; NaN before there is one."""
        now = np.array(readings)
        if not np.isfinite(now).all() or np.abs(now - self._last).max(initial=0.0) < LEAST_CHANGE:
            return
        if self._count == 0:
            self._origin = now
        self._last, away = now, now - self._origin
        self._count += 1
        self._sums += away
        self._products += np.outer(away, away)

    def partners(self, far: Sequence[bool]) -> dict[int, int]:
        """Return for each joint the one that it has always moved with. far: (count,) those that have moved far enough."""
        if self._count < LEAST_COUNT:
            return {}
        spread = self._products - np.outer(self._sums, self._sums) / self._count
        deviations = np.sqrt(np.diag(spread).clip(min=1e-12))
        alike = np.abs(spread) / np.outer(deviations, deviations)
        np.fill_diagonal(alike, 0.0)
        alike *= np.outer(far, far)
        return {joint: int(row.argmax()) for joint, row in enumerate(alike) if row.max() > TOGETHER}


@dataclass(slots=True)
class MotionCheck:
    """The joints of one robot by name. Not thread-safe: its owner has the lock."""

    _seen: dict[str, _Seen] = field(default_factory=dict)
    _together: _Together = field(init=False)

    def __post_init__(self) -> None:
        self._together = _Together(len(self._seen))

    def put(self, names: Iterable[str], positions: Iterable[float]) -> None:
        """Take one message of joint states; joints of others are ignored."""
        for name, position in zip(names, positions, strict=False):
            if name in self._seen:
                self._seen[name].put(float(position))
        if self._seen:
            self._together.put([seen.last for seen in self._seen.values()])

    def verdicts(self) -> Mapping[str, str]:
        """Return what is known of each joint, in a few words."""
        partners, names = self._partners(), (*self._seen,)
        return {
            name: "; ".join(filter(None, (seen.verdict(), seen.remark(), partners.get(name, ""))))
            for name, seen in zip(names, self._seen.values(), strict=True)
        }

    def _partners(self) -> dict[str, str]:
        """Return a phrase for each joint that always moved with another one."""
        names = (*self._seen,)
        far = [seen.most - seen.least >= FAR_ENOUGH for seen in self._seen.values()]
        return {
            names[
                joint
            ]: f"always moved with {names[other]}: move it alone, they are coupled or one joint by two names"
            for joint, other in self._together.partners(far).items()
        }

    @property
    def unmoved(self) -> tuple[str, ...]:
        """The joints that were not moved yet, or of which something cannot be right."""
        return tuple(name for name, seen in self._seen.items() if not seen.verdict().endswith(": moved"))


def motion_check(
    embodiment: Embodiment | None, state_names: Sequence[str] = (), statistics: Affine | None = None
) -> MotionCheck:
    """Return the check of a robot's joints, but for what is commanded by velocity; of none without an embodiment.

    statistics: of the policy's state in rad and m, in the order of `state_names`; None: nothing is known of what it has seen.
    """
    if embodiment is None:
        return MotionCheck()
    rates = velocity_columns(embodiment.groups, embodiment.action_dim)
    known = {} if statistics is None else _known(state_names, statistics)
    return MotionCheck({
        name: _Seen(
            float(embodiment.action_min[column]), float(embodiment.action_max[column]),
            known.get(name, (-math.inf, math.inf)),
        )
        for column, name in enumerate(embodiment.joint_names)
        if rates is None or not rates[column]
    })  # fmt: skip


def _known(names: Sequence[str], statistics: Affine) -> dict[str, tuple[float, float]]:
    """Return what a policy has seen of each joint that moved in training, in rad or m."""
    if statistics.dim != len(names):
        return {}
    away = SPREADS * np.abs(statistics.back)
    found = zip((statistics.shift - away).tolist(), (statistics.shift + away).tolist(), strict=True)
    still = np.zeros(len(names), np.bool_) if statistics.constant is None else statistics.constant
    return {name: seen for name, seen, never in zip(names, found, still, strict=True) if not never}
