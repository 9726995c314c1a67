# SPDX-License-Identifier: Apache-2.0
"""The recursion of the limits against slow and plain ways to find the same rows."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from slow_walk import largest_stoppable, slow_clip, slow_scale

from reflex_core.robot.limits.walk import Joint, clip, scale, stoppable

FOR_EVER = math.inf
NEVER_SETTLED = 10**9


def any_joint(chance: random.Random) -> Joint:
    """From one that stops in a step to one that needs dozens, in a narrow range or in a wide one."""
    step = 10.0 ** chance.uniform(-2, 0)
    half = step * 10.0 ** chance.uniform(-0.5, 2)
    return Joint(-half, half, step, step / 10.0 ** chance.uniform(-0.3, 1.7))


def any_place(chance: random.Random, joint: Joint) -> tuple[float, float]:
    """(at, last): at an end of the range as often as not; a joint that got there was slow enough to stop."""
    low, high = joint.low, joint.high
    at = chance.choice((chance.uniform(low, high), low, high, chance.uniform(high - joint.step, high)))
    return max(at, low), chance.uniform(-joint.step, joint.step)


def any_wishes(chance: random.Random, joint: Joint, at: float, number: int) -> list[float]:
    """Leaps, a steady run, or a joint that stays."""
    wishes, goal, drift = [], at, chance.choice((0.0, 0.5, 1.5)) * chance.choice((-1, 1)) * joint.step
    for _ in range(number):
        goal += drift
        if chance.random() < 0.2:
            goal = chance.uniform(joint.low, joint.high)
        goal = min(max(goal, joint.low), joint.high)
        wishes.append(goal)
    return wishes


def test_the_step_that_can_still_be_stopped_is_the_largest_such() -> None:
    chance = random.Random(1)
    for _ in range(200):
        bend = 10.0 ** chance.uniform(-3, 0)
        room = bend * 10.0 ** chance.uniform(-1, 3)
        assert stoppable(room, bend) == pytest.approx(largest_stoppable(room, bend), rel=1e-9)
    assert stoppable(0.0, 0.1) == stoppable(-1.0, 0.1) == 0.0


def test_every_row_is_as_near_to_what_was_wanted_as_the_joint_gets() -> None:
    chance = random.Random(2)
    for _ in range(120):
        joint = any_joint(chance)
        at, last = any_place(chance, joint)
        column = any_wishes(chance, joint, at, 20)
        walked = clip(column, joint, at, last)
        assert walked == pytest.approx(slow_clip(column, joint, at, last), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("periods", [1, 4, 20, 40])
def test_a_joint_at_full_speed_brakes_late_but_in_time(periods: int) -> None:
    joint = Joint(-4.0 * periods, 4.0 * periods, 1.0, 1.0 / periods)
    for end in (joint.low, joint.high):
        column = [end] * 12 * periods
        walked = clip(column, joint, 0.0, 0.0)
        assert walked == pytest.approx(slow_clip(column, joint, 0.0, 0.0), rel=1e-6, abs=1e-6)
        assert walked[-1] == pytest.approx(end)


def test_a_joint_that_is_outside_its_range_comes_back_at_full_speed() -> None:
    """Position before speed where one step leads inside; the guard holds a robot that is further out."""
    joint = Joint(-1.0, 1.0, 0.1, 0.02)
    assert clip([0.0], joint, 1.05, 0.1)[0] == pytest.approx(1.0)
    assert clip([0.0], joint, -1.05, -0.1)[0] == pytest.approx(-1.0)


def test_without_a_limit_of_acceleration_only_speed_counts() -> None:
    joint = Joint(-1.0, 1.0, 0.1, FOR_EVER)
    assert clip([0.5] * 6, joint, 0.0, -0.1) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    assert clip([-0.5] * 6, joint, 0.0, 0.1) == pytest.approx([-0.1, -0.2, -0.3, -0.4, -0.5, -0.5])


@pytest.mark.parametrize("bend", [0.7, FOR_EVER])
def test_rows_that_a_joint_can_follow_come_back_bit_for_bit(bend: float) -> None:
    chance = random.Random(3)
    rows = [[chance.uniform(-0.1, 0.1), chance.uniform(-0.1, 0.1)] for _ in range(200)]
    joint = Joint(-9.0, 9.0, 0.7, bend)
    assert scale(rows, [joint, joint], [0.0, 0.0], [0.0, 0.0], NEVER_SETTLED) == rows
    if bend == FOR_EVER:
        column = [first for first, _ in rows]
        assert clip(column, joint, 0.0, 0.0) == column


@pytest.mark.parametrize("step", [0.1, FOR_EVER])
def test_a_joint_that_turns_for_ever_brakes_for_nothing(step: float) -> None:
    joint = Joint(-FOR_EVER, FOR_EVER, step, 0.02)
    expected = [0.02, 0.06, 0.12]
    assert clip([9.0] * 3, joint, 0.0, 0.0) == pytest.approx(expected)
    assert scale([[9.0]] * 3, [joint], [0.0], [0.0], NEVER_SETTLED) == pytest.approx(np.c_[expected])


def test_a_joint_without_a_limit_of_speed_brakes_in_time_all_the_same() -> None:
    joint = Joint(-100.0, 100.0, FOR_EVER, 0.5)
    column = [100.0] * 80
    walked = clip(column, joint, -90.0, 0.0)
    assert walked == pytest.approx(slow_clip(column, joint, -90.0, 0.0), rel=1e-6, abs=1e-6)
    assert max(walked) <= 100.0
    assert max(np.diff(walked)) > 5.0


def test_scaled_rows_are_those_of_the_slow_way() -> None:
    chance = random.Random(4)
    for number in range(60):
        joints = [any_joint(chance) for _ in range(3)]
        if number % 3 == 0:
            joints[0] = Joint(joints[0].low, joints[0].high, joints[0].step, FOR_EVER)
        places = [any_place(chance, joint) for joint in joints]
        at, last = [place for place, _ in places], [step for _, step in places]
        rows = list(
            zip(*(any_wishes(chance, *each, 15) for each in zip(joints, at, strict=True)), strict=True)
        )
        walked = scale(rows, joints, at, last, NEVER_SETTLED)
        np.testing.assert_allclose(walked, slow_scale(rows, joints, at, last), rtol=1e-6, atol=1e-9)


def test_without_any_limit_of_acceleration_scaled_rows_are_those_of_the_slow_way() -> None:
    chance = random.Random(5)
    for _ in range(50):
        joints = [Joint(-3.0, 3.0, chance.uniform(0.05, 0.3), FOR_EVER) for _ in range(3)]
        rows = list(zip(*(any_wishes(chance, joint, 0.0, 15) for joint in joints), strict=True))
        walked = scale(rows, joints, [0.0] * 3, [0.0] * 3, NEVER_SETTLED)
        np.testing.assert_allclose(
            walked, slow_scale(rows, joints, [0.0] * 3, [0.0] * 3), rtol=1e-9, atol=1e-9
        )


def settled_from(rows: Sequence[Sequence[float]], joints: Sequence[Joint]) -> int:
    """From which row on the wanted rows break no limit among themselves."""
    wanted = np.array(rows)
    steps, bends = np.array([joint.step for joint in joints]), np.array([joint.bend for joint in joints])
    bad = [0]
    moves = np.diff(wanted, axis=0)
    bad += [row + 1 for row, move in enumerate(moves) if (np.abs(move) > steps).any()]
    bad += [row + 2 for row, change in enumerate(np.diff(moves, axis=0)) if (np.abs(change) > bends).any()]
    return max(bad) + 1


@pytest.mark.parametrize("bend", [0.03, FOR_EVER])
def test_a_walk_that_has_caught_up_may_stop(bend: float) -> None:
    """The rows it takes over unseen are those that it would have come to."""
    chance = random.Random(6)
    took_over = 0
    for _ in range(150):
        joints = [Joint(-3.0, 3.0, 0.1, bend), Joint(-3.0, 3.0, 0.2, bend)]
        slope = [chance.uniform(-0.05, 0.05) for _ in joints]
        rows = [[share * (row + 1) for share in slope] for row in range(40)]
        late = chance.randrange(0, 12)
        for row in rows[late:]:
            row[0] += 0.1
        at, last = [chance.uniform(-0.2, 0.2) for _ in joints], [chance.uniform(-0.05, 0.05) for _ in joints]
        if chance.random() < 0.5:
            # the first row is reached at once, but faster than the chunk goes on
            last = [chance.uniform(-0.1, 0.1) for _ in joints]
            at = [goal - step for goal, step in zip(rows[0], last, strict=True)]
        settled = settled_from(rows, joints)
        walked = scale(rows, joints, at, last, settled)
        np.testing.assert_allclose(walked, scale(rows, joints, at, last, NEVER_SETTLED), rtol=0, atol=1e-9)
        took_over += walked[-1] == rows[-1]
    assert took_over > 100


def test_one_joint_that_must_brake_frees_the_others_from_its_factor() -> None:
    """It wants to stay where it is but cannot stop in one step: no factor of nothing is a step."""
    joints = [Joint(-3.0, 3.0, 0.1, 0.02), Joint(-3.0, 3.0, 0.1, 0.02)]
    for sign in (1.0, -1.0):
        walked = scale([[0.0, 0.01]], joints, [0.0, 0.0], [sign * 0.1, 0.0], NEVER_SETTLED)
        np.testing.assert_allclose(walked, [[sign * 0.08, 0.01]])


def test_a_factor_that_suits_every_joint_is_kept_even_where_it_is_the_only_one() -> None:
    """The first joint is faster than it may be: its next step is the largest, no less and no more."""
    joints = [Joint(-3.0, 3.0, 0.1, 0.02), Joint(-3.0, 3.0, 0.1, 0.1)]
    for sign in (1.0, -1.0):
        walked = scale([[sign * 0.2, 0.1]], joints, [0.0, 0.0], [sign * 0.3, 0.0], NEVER_SETTLED)
        np.testing.assert_allclose(walked, [[sign * 0.1, 0.05]])
