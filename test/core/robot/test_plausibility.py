# SPDX-License-Identifier: Apache-2.0
"""Which states can be true: by the ranges of the robot, never by statistics."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from guarded import COLUMNS, FRANKA, MEASURED, MIDDLE
from robots import v1

from reflex_core.robot.plausibility import LARGEST, StateRange, state_range

ARM = state_range(FRANKA, FRANKA.joint_names, COLUMNS)
WIDTH = FRANKA.action_max - FRANKA.action_min


def reading(joint: int, value: float) -> list[float]:
    state = [float(each) for each in MIDDLE]
    state[joint] = value
    return state


def test_a_state_inside_the_ranges_is_plausible() -> None:
    assert ARM.problem(MIDDLE) == ""
    assert ARM.problem(MEASURED) == ""
    assert ARM.problem([]) == "", "a short vector is refused elsewhere"


@pytest.mark.parametrize("joint", range(7))
@pytest.mark.parametrize("side", [-1, 1])
def test_a_joint_may_be_measured_a_tenth_of_its_range_outside_it(joint: int, side: int) -> None:
    edge = FRANKA.action_max[joint] if side > 0 else FRANKA.action_min[joint]
    margin = max(0.2, 0.1 * WIDTH[joint])
    assert ARM.problem(reading(joint, edge + side * (margin - 1e-6))) == ""
    message = ARM.problem(reading(joint, edge + side * (margin + 1e-6)))
    assert message.startswith(f"joint 'panda_joint{joint + 1}' reads ")
    assert f"its range is {FRANKA.action_min[joint]:g} to {FRANKA.action_max[joint]:g} rad" in message
    assert "plausibility_margin_rad" in message


def test_a_narrow_joint_has_the_margin_of_the_setting() -> None:
    narrow = dataclasses.replace(FRANKA, action_min=MIDDLE - 0.5, action_max=MIDDLE + 0.5)
    for margin in (0.2, 0.3):
        found = state_range(narrow, FRANKA.joint_names, COLUMNS, margin)
        assert found.problem(reading(0, float(MIDDLE[0]) + 0.5 + margin - 1e-3)) == ""
        assert found.problem(reading(0, float(MIDDLE[0]) + 0.5 + margin + 1e-3))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("ranges", [ARM, StateRange()], ids=["franka", "no embodiment"])
def test_what_is_not_finite_is_implausible_for_everybody(ranges: StateRange, value: float) -> None:
    assert "not finite" in ranges.problem(reading(3, value))


def test_the_joint_that_is_not_finite_is_named_before_one_that_is_far() -> None:
    state = reading(0, 9.0)
    state[4] = math.nan
    assert ARM.problem(state).startswith("joint 'panda_joint5' reads nan")


@pytest.mark.parametrize("value", [9.0, 3e38, 2 * math.pi + 2.6, 45.0])
def test_the_worst_joint_is_the_one_that_is_named(value: float) -> None:
    state = reading(5, value)
    state[1] = 2.2  # 0.44 outside, 0.35 are granted
    assert ARM.problem(state).startswith("joint 'panda_joint6'")


def test_without_an_embodiment_only_size_and_finiteness_count() -> None:
    free = state_range(None, (), None)
    assert free.problem([200.0, -LARGEST, 0.0]) == ""
    assert free.problem([0.0, 1.01e6]).startswith("number 1 of the state reads 1.01e+06")
    assert free.problem([0.0, -1e38], ("a", "b")).startswith("joint 'b' reads -1e+38")


def test_the_gripper_has_its_own_range_and_no_unit() -> None:
    hand = v1("franka")
    found = state_range(hand, hand.joint_names, np.arange(8))
    closed = [float(each) for each in (hand.action_min + hand.action_max) / 2]
    for value, plausible in ((0.0, True), (1.15, True), (-0.15, True), (1.25, False), (80.0, False)):
        closed[7] = value
        assert (found.problem(closed) == "") is plausible
    assert "its range is 0 to 1, and" in found.problem(closed)


def test_a_state_that_measures_some_joints_among_other_numbers_is_judged_by_name() -> None:
    found = state_range(FRANKA, ("x", "panda_joint4", "panda_joint1"), None)
    assert found.problem([500.0, -2.4, 0.0]) == "", "500 is no joint"
    assert found.problem([0.0, 0.9, 0.0]).startswith("joint 'panda_joint4' reads 0.9 rad")
    assert found.problem([0.0, -2.4, 4.0]).startswith("joint 'panda_joint1' reads 4 rad")
    assert found.problem([2e6, -2.4, 0.0], ("x",)).startswith("joint 'x' reads 2e+06")


def test_the_worst_is_the_one_that_is_most_margins_outside() -> None:
    """Joint 1 is further outside, in radians and in products; joint 6 by its own, narrower margin."""
    ranges = StateRange((0, 1), ("wide", "narrow"), (" rad", " rad"), (-1.0, -1.0), (1.0, 1.0), (0.8, 0.2))
    assert ranges.problem([2.2, 1.7]).startswith("joint 'narrow'")
    assert ranges.problem([2.7, 1.3]).startswith("joint 'wide'")
    slim = dataclasses.replace(ranges, margin=(0.8, 0.01))
    assert slim.problem([2.7, 1.05]).startswith("joint 'narrow'")


def test_a_number_that_has_no_name_is_called_by_its_place() -> None:
    assert StateRange().problem([0.0, math.nan], ("a",)).startswith("number 1 of the state")


def test_where_the_columns_are_given_names_do_not_decide() -> None:
    found = state_range(FRANKA, tuple(reversed(FRANKA.joint_names)), COLUMNS)
    assert found.columns == tuple(range(7))
    assert found.names == FRANKA.joint_names
    assert found.problem(reading(3, 0.9)).startswith("joint 'panda_joint4'")
