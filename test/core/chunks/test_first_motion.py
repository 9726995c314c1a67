# SPDX-License-Identifier: Apache-2.0
"""The first slow motion of a dry run: small, slow, inside the limits; and what is said of what moved."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from guarded import FRANKA
from numpy.typing import NDArray
from rolling import ROLLING

from reflex_core.chunks import first_motion
from reflex_core.chunks.first_motion import FirstMotionError, Step
from reflex_core.chunks.interpolation import Spline
from reflex_core.robot.groups import BASE, GRIPPER, VELOCITY, GripperEnds, Group
from reflex_core.robot.limits.limits import Limits, effective_limits

NAMES = FRANKA.joint_names
ARM = (Group("arm", tuple(range(7)), NAMES),)
MIDDLE = (FRANKA.action_min + FRANKA.action_max) / 2.0


def franka(**changes: object) -> Limits:
    limits = effective_limits(NAMES, FRANKA, None)
    assert limits is not None
    return dataclasses.replace(limits, **changes)  # type: ignore[arg-type]


def sampled(motion: Spline) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    both = [motion.at(now_ns) for now_ns in range(0, motion.end_ns, 1_000_000)]
    return np.array([position for position, _ in both]), np.array([velocity for _, velocity in both])


@pytest.mark.parametrize("place", [0.0, 0.001, 0.5, 0.999, 1.0])
def test_each_joint_goes_a_little_and_slowly_and_stays_inside(place: float) -> None:
    limits = franka()
    base = limits.position_min + place * (limits.position_max - limits.position_min)
    base = first_motion.inside(ARM, limits, base)
    steps = first_motion.plan(ARM, limits, base)
    assert [step.name for step in steps] == list(NAMES)
    for step in steps:
        positions, velocities = sampled(first_motion.leg(base, step.target(base), step.duration_s, 0))
        span = limits.position_max[step.column] - limits.position_min[step.column]
        assert 0.0 < abs(step.away) <= min(0.1, 0.05 * span)
        assert np.abs(velocities[:, step.column]).max() <= 0.1 * limits.velocity_max[step.column]
        assert np.abs(np.delete(positions - base, step.column, 1)).max() < 1e-12
        assert (positions >= limits.position_min - 1e-9).all()
        assert (positions <= limits.position_max + 1e-9).all()
        assert velocities[0] == pytest.approx(np.zeros(7), abs=1e-9)
        assert velocities[-1] == pytest.approx(np.zeros(7), abs=1e-3)


def test_a_slow_or_soft_or_short_joint_goes_less_far_or_longer() -> None:
    velocity, acceleration, high = np.full(7, 0.1), np.full(7, np.inf), FRANKA.action_max.copy()
    velocity[1], acceleration[1], high[2] = 2.0, 0.01, FRANKA.action_min[2] + 1.1
    limits = franka(velocity_max=velocity, acceleration_max=acceleration, position_max=high)
    base = first_motion.inside(ARM, limits, np.where(np.arange(7) == 2, high, MIDDLE))
    slow, soft, short, *_ = first_motion.plan(ARM, limits, base)
    assert abs(slow.away) * 1.875 / slow.duration_s <= 0.01 * 1.000001
    assert slow.duration_s == pytest.approx(first_motion.LONGEST_S)
    _, velocities = sampled(first_motion.leg(base, soft.target(base), soft.duration_s, 0))
    assert np.abs(np.diff(velocities, axis=0)).max() * 1000.0 <= 0.01 * 1.02
    assert abs(short.away) <= 0.01, "it may count in m"


def test_a_gripper_closes_unless_it_is_closed_and_velocities_stay_out() -> None:
    limits = franka()
    low, high = float(limits.position_min[6]), float(limits.position_max[6])
    groups = (
        Group("base", (0, 1), ("linear.x", "angular.z"), BASE, VELOCITY),
        Group("hand", (6,), NAMES[6:], GRIPPER, gripper=GripperEnds(open=low, closed=high)),
    )
    (closing,) = first_motion.plan(groups, limits, MIDDLE)
    assert (closing.away > 0.0, closing.closes) == (True, True)
    (opening,) = first_motion.plan(groups, limits, np.where(np.arange(7) == 6, high, MIDDLE))
    assert (opening.away < 0.0, opening.closes) == (True, False)
    with pytest.raises(FirstMotionError, match="no group of this robot"):
        first_motion.plan(groups[:1], limits, MIDDLE)
    assert [group.name for group in first_motion.moving(ROLLING.groups)] == ["arm"]


def test_a_joint_outside_its_range_is_not_moved() -> None:
    limits = franka()
    beyond = MIDDLE.copy()
    beyond[3] = limits.position_max[3] + 0.005
    assert first_motion.inside(ARM, limits, beyond)[3] == pytest.approx(limits.position_max[3])
    beyond[3] += 0.1
    with pytest.raises(FirstMotionError, match="'panda_joint4' must be inside its range"):
        first_motion.inside(ARM, limits, beyond)


A, B = Step("a", 0, 0.1, 1.0), Step("b", 1, -0.1, 1.0)
HAND = Step("finger", 2, 0.002, 1.0, closes=True)


@pytest.mark.parametrize(
    ("step", "away", "phrase", "broken_off"),
    [
        (A, (0.09, 0.001, 0.0), "a moved as commanded", False),
        (B, (0.0, -0.1, 0.0), "b moved as commanded", False),
        (A, (-0.04, 0.0, 0.0), "a moved the other way", True),
        (A, (0.001, 0.0, 0.0), "a did not move", False),
        (A, (0.0, 0.06, 0.0), "b moved instead of a", True),
        (A, (0.06, 0.06, 0.0), "b moved with a", True),
        (A, (0.04, 0.0, 0.0), "a moved by 0.04, commanded 0.1", False),
        (A, (0.2, 0.0, 0.0), "a moved by 0.2, commanded 0.1", True),
        (A, (0.1, 0.0, 0.0004), "a moved as commanded", False),
        (HAND, (0.01, 0.0, 0.002), "finger moved as commanded", False),
        (HAND, (0.0, 0.0, -0.001), "finger moved the other way: it opens", True),
    ],
)
def test_what_moved_is_named(step: Step, away: tuple[float, ...], phrase: str, broken_off: bool) -> None:
    moved, text = first_motion.verdict(step, (A, B, HAND), np.array(away))
    assert (text, moved) == (phrase, phrase.endswith("as commanded"))
    assert first_motion.deviates(step, (A, B, HAND), np.array(away)) == broken_off


def test_what_is_not_where_the_next_motion_begins_is_named() -> None:
    steps = (A, B, HAND)
    assert first_motion.elsewhere(steps, np.zeros(3)) == ()
    assert first_motion.elsewhere(steps, np.array([0.6 * A.away, -0.6 * B.away, 0.4 * HAND.away])) == (
        A.name,
        B.name,
    )
    assert first_motion.elsewhere(steps, np.full(3, np.nan)) == (A.name, B.name, HAND.name)


def test_a_joint_has_come_back_when_it_is_where_it_began() -> None:
    away = np.zeros(3)
    assert first_motion.came_back(A, away)
    away[A.column] = 0.4 * A.away
    assert not first_motion.came_back(A, away)


def test_a_clock_that_was_set_moves_no_hold_along_the_motion() -> None:
    motion = first_motion.leg(np.zeros(1), np.array([0.1]), 1.0, 0)
    rest = first_motion.braked(motion, 500_000_000, 20_000_000_000)
    assert rest.positions[0] == motion.at(500_000_000)[0]
    assert rest.times_ns[0] == 20_000_000_000


def test_it_is_braked_within_a_period() -> None:
    motion = first_motion.leg(np.zeros(1), np.array([0.1]), 1.0, 0)
    rest = first_motion.braked(motion, 500_000_000, 500_000_000)
    assert rest.at(500_000_000)[1][0] == pytest.approx(motion.at(500_000_000)[1][0])
    positions, _ = sampled(Spline(rest.times_ns - 500_000_000, rest.positions, rest.velocities))
    assert (np.diff(positions[:, 0]) >= 0.0).all()
    assert rest.end_ns == 550_000_000
