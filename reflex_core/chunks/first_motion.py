# SPDX-License-Identifier: Apache-2.0
"""The first slow motion of a dry run: how far each joint goes there and back, and what its readings say of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.chunks.interpolation import Bounds, Spline, through
from reflex_core.errors import ReflexError
from reflex_core.robot.groups import GRIPPER, JOINTS, POSITION, Group
from reflex_core.robot.limits.check import Check, inner_limits
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.reachable import Motion, Start
from reflex_core.robot.limits.safety_config import REJECT

Doubles = NDArray[np.float64]

DT_S = 0.05  # between two rows
RANGE_SHARE, SPEED_SHARE = 0.05, 0.1  # of a joint's range and speed limit
FARTHEST, FARTHEST_M = 0.1, 0.01  # rad, m
MAYBE_METRES = 1.5  # a joint with less range than that may count in m, which no embodiment says
FASTEST = 1.0  # rad/s or m/s taken for the limit of a joint that has none, or a higher one
SHORTEST_S, LONGEST_S = 1.0, 4.0  # of one way
PEAK_SPEED, PEAK_ACCELERATION = 1.875, 5.774  # of a smooth way of length 1 within 1 s
OUTSIDE_SHARE = 0.01  # of its range that a joint at its end may read outside it
LEAST_SHARE, SURE_SHARE, MOST_SHARE = (
    0.3,
    0.6,
    1.5,
)  # of the way commanded: moved at all, as commanded, and no further
OTHER_SHARE = 0.5  # of its own way that another joint may not move meanwhile


class FirstMotionError(ReflexError):
    """The first motion is not begun, or has been ended; the message says why."""

    slug = "first-motion"


@dataclass(frozen=True, slots=True)
class Step:
    """One joint's way. away: rad or m, with its sign; duration_s: of one direction; closes: None for what is no gripper."""

    name: str
    column: int
    away: float
    duration_s: float
    closes: bool | None = None

    def target(self, base: Doubles) -> Doubles:
        """Return (dim,) positions with this joint away from `base` (dim,)."""
        there = base.copy()
        there[self.column] += self.away
        return there


def moving(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Return the groups whose joints can be tried one by one: joints and grippers that are commanded positions.

    Not those whose robot interface commands where the tool is: which joints that moves is for its controller to choose.
    """
    return tuple(
        group for group in groups
        if group.commands == POSITION and group.space in (JOINTS, GRIPPER) and group.arm is None
    )  # fmt: skip


def inside(groups: Sequence[Group], limits: Limits, measured: Doubles) -> Doubles:
    """Return (dim,) where the motion begins: as measured, moved into the range where a joint reads a little outside it.

    Raises FirstMotionError for a joint further outside.
    """
    base = np.clip(measured, *inner_limits(limits.position_min, limits.position_max))
    for group in moving(groups):
        for column in group.columns:
            low, high = float(limits.position_min[column]), float(limits.position_max[column])
            if abs(base[column] - measured[column]) > OUTSIDE_SHARE * (high - low):
                raise FirstMotionError(
                    f"'{limits.names[column]}' must be inside its range of {low:g} to {high:g}, got {measured[column]:g}:"
                    " move it there"
                )
    return base


def plan(groups: Sequence[Group], limits: Limits, base: Doubles) -> tuple[Step, ...]:
    """Return one step for each joint of each group that `moving` names, in their order.

    Joints move towards the middle of their range, grippers towards closed, where they are not closed already.
    base: (dim,) rad or m, inside the limits. Raises FirstMotionError where the guard would not let it pass.
    """
    steps = tuple(_step(group, column, limits, base) for group in moving(groups) for column in group.columns)
    if not steps:
        raise FirstMotionError(
            "no group of this robot commands the positions of joints, so that none can be tried"
        )
    columns = np.zeros(limits.dim, np.bool_)
    columns[[step.column for step in steps]] = True
    check = Check(limits.chosen(columns), DT_S, REJECT)
    at_rest = Motion(Start(base[columns], base[columns], np.zeros(len(steps))))
    for step in steps:
        there = leg(base, step.target(base), step.duration_s, 0)
        checked = check(there.positions[1:, columns].astype(np.float32), at_rest)
        if not checked.clean:
            raise FirstMotionError(
                f"the first motion of '{step.name}' breaks a limit: {checked.violations[0]}"
            )
    return steps


def _step(group: Group, column: int, limits: Limits, base: Doubles) -> Step:
    low, high = float(limits.position_min[column]), float(limits.position_max[column])
    speed = SPEED_SHARE * min(float(limits.velocity_max[column]), FASTEST)
    in_metres = bool(limits.workspace[column]) or (group.space != GRIPPER and high - low < MAYBE_METRES)
    farthest = FARTHEST_M if in_metres else FARTHEST
    way = min(RANGE_SHARE * (high - low), farthest, speed * LONGEST_S / PEAK_SPEED)
    hardest_s = math.sqrt(PEAK_ACCELERATION * way / float(limits.acceleration_max[column]))
    duration_s = max(SHORTEST_S, PEAK_SPEED * way / speed, hardest_s)
    at, name = float(base[column]), limits.names[column]
    if group.gripper is None:
        up = at + way <= high if math.isinf(high - low) else at < (low + high) / 2.0
        return Step(name, column, way if up else -way, duration_s)
    left = group.gripper.closed - at
    closes = abs(left) > way
    towards = left if closes else group.gripper.open - at
    return Step(name, column, math.copysign(way, towards), duration_s, closes)


def leg(begin: Doubles, end: Doubles, duration_s: float, now_ns: int) -> Spline:
    """Return the way from rest to rest, its acceleration 0 at both ends. begin, end: (dim,) rad or m; now_ns: its beginning."""
    count = math.ceil(duration_s / DT_S - 1e-9)
    u = np.linspace(0.0, 1.0, count + 1)[:, None]
    positions = begin + (10.0 * u**3 - 15.0 * u**4 + 6.0 * u**5) * (end - begin)
    times_ns = now_ns + np.arange(count + 1, dtype=np.int64) * round(DT_S * 1e9)
    return through(times_ns, positions, np.zeros(len(begin)), Bounds.unlimited(len(begin)))


def braked(motion: Spline, elapsed_ns: int, now_ns: int) -> Spline:
    """Return the motion, `elapsed_ns` after its beginning, brought to rest within DT_S from now.

    Both are given as the clock of `now_ns` may have been set since the motion began.
    """
    position, velocity = motion.at(int(motion.times_ns[0]) + elapsed_ns)
    times_ns = now_ns + np.array([0, round(DT_S * 1e9)], np.int64)
    end = position + velocity * DT_S / 2.0
    return Spline(
        times_ns, np.stack([position, end]), np.stack([velocity, np.zeros_like(velocity)]), anchored=True
    )


def deviates(step: Step, steps: Sequence[Step], away: Doubles) -> bool:
    """Return whether something moves that was not meant to. away: (dim,) from where everything began."""
    share = away[step.column] / step.away
    return bool(share < -LEAST_SHARE or share > MOST_SHARE) or bool(_others(step, steps, away))


def elsewhere(steps: Sequence[Step], away: Doubles) -> tuple[str, ...]:
    """Return the joints that are not where the next motion would begin. away: (dim,) from there to where they are measured."""
    return tuple(
        step.name for step in steps if not abs(float(away[step.column])) <= OTHER_SHARE * abs(step.away)
    )


def came_back(step: Step, away: Doubles) -> bool:
    """Return whether the joint is where it began. away: (dim,) from there."""
    return abs(float(away[step.column])) < LEAST_SHARE * abs(step.away)


def arrived(step: Step, away: Doubles) -> bool:
    """Return whether the joint is as good as where it was commanded. away: (dim,) from where it began."""
    return abs(float(away[step.column]) / step.away - 1.0) < 0.1


def verdict(step: Step, steps: Sequence[Step], away: Doubles) -> tuple[bool, str]:
    """Return whether the joint moved as commanded, and a phrase that says what moved.

    away: (dim,) from where everything began to where it is measured at the end of the way, or when that was broken off.
    """
    share, others = float(away[step.column]) / step.away, ", ".join(_others(step, steps, away))
    if others and abs(share) < LEAST_SHARE:
        return False, f"{others} moved instead of {step.name}"
    if share < -LEAST_SHARE:
        sense = "" if step.closes is None else f": it {'opens' if step.closes else 'closes'}"
        return False, f"{step.name} moved the other way{sense}"
    if others:
        return False, f"{others} moved with {step.name}"
    if share < LEAST_SHARE:
        return False, f"{step.name} did not move"
    if SURE_SHARE <= share <= MOST_SHARE:
        return True, f"{step.name} moved as commanded"
    return False, f"{step.name} moved by {away[step.column]:.3g}, commanded {step.away:.3g}"


def _others(step: Step, steps: Sequence[Step], away: Doubles) -> list[str]:
    """Return the joints that moved without being commanded. Arms shake a little while a gripper moves, and the other way round."""
    found = []
    for other in steps:
        if other.column == step.column:
            continue
        alike = (other.closes is None) == (step.closes is None)
        way = min(abs(other.away), abs(step.away)) if alike else abs(other.away)
        if abs(float(away[other.column])) > OTHER_SHARE * way:
            found.append(other.name)
    return found
