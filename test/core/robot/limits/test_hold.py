# SPDX-License-Identifier: Apache-2.0
"""Where a robot is held and how it gets there: the four rules, inside the limits, never faster than a joint may be moved."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from guarded import HIGH, LOW, MIDDLE
from hold_cases import ALL, AT, BENDING, DT_S, LIMITS, STEP, moving, require_safe

from reflex_core.robot.limits.hold import COMMAND, MEASURED, STREAM, Stream, hold


def test_rule_1_the_stream_is_braked_at_the_row_it_approaches() -> None:
    held = require_safe(hold(LIMITS, DT_S, moving(0.8), MIDDLE), LIMITS, AT)
    assert held.rule == STREAM
    np.testing.assert_allclose(held.position, AT + 0.4 * STEP, atol=1e-6)
    assert len(held.rows) == 1


@pytest.mark.parametrize("share", [1.0, -1.0, 0.3])
def test_rule_1_with_an_acceleration_limit_there_are_several_rows_that_brake(share: float) -> None:
    held = require_safe(hold(BENDING, DT_S, moving(share), MIDDLE), BENDING, AT)
    moves = np.diff(np.concatenate([AT[None], held.rows.astype(np.float64)]), axis=0)
    bends = np.diff(np.concatenate([(share * STEP)[None], moves]), axis=0)
    assert (np.abs(bends) <= 10.0 * DT_S**2 + 1e-6).all()
    assert len(held.rows) >= 1
    np.testing.assert_allclose(moves[-1], 0.0, atol=10.0 * DT_S**2 + 1e-6)


def test_rule_1_a_motion_is_braked_with_a_constant_deceleration() -> None:
    """Of 10 rad/s^2, from 1 rad/s, within 0.1 s and 0.05 rad; a slower joint stops in the midst of a period."""
    step = np.array([0.05, -0.0375, 0.0, 0.0, 0.0, 0.0, 0.0])
    stream = Stream(AT, AT + step, step, ALL, continuous=True)
    held = require_safe(hold(BENDING, DT_S, stream, MIDDLE), BENDING, AT)
    moved = held.rows.astype(np.float64) - AT
    np.testing.assert_allclose(moved[:, 0], [0.0375, 0.05], atol=1e-6)
    np.testing.assert_allclose(moved[:, 1], [-0.025, -0.028125], atol=1e-6)
    assert not moved[:, 2:].round(6).any()


def test_rule_1_with_a_tool_all_joints_come_to_rest_together() -> None:
    """A tool is then no faster than it was: its velocity shrinks by one factor."""
    together = dataclasses.replace(BENDING, together=True)
    step = np.array([0.05, -0.0375, 0.0, 0.0, 0.0, 0.0, 0.0])
    for continuous in (True, False):
        stream = Stream(AT, AT + step, step, ALL, continuous=continuous)
        held = require_safe(hold(together, DT_S, stream, MIDDLE), together, AT)
        moved = held.rows.astype(np.float64) - AT
        np.testing.assert_allclose(moved[:, 1], -0.75 * moved[:, 0], atol=1e-6)
    at_rest = Stream(AT, AT, 0.0 * step, ALL, continuous=True)
    np.testing.assert_allclose(
        require_safe(hold(together, DT_S, at_rest, MIDDLE), together, AT).position, AT, atol=1e-6
    )


def test_rule_1_an_arm_that_trails_is_led_to_the_end_no_faster_than_it_may() -> None:
    lag = 0.15
    held = require_safe(
        hold(LIMITS, DT_S, moving(0.0), (MIDDLE - lag).astype(np.float32)), LIMITS, AT, AT - lag
    )
    np.testing.assert_allclose(held.position, AT, atol=1e-6)
    assert len(held.rows) == 2


def test_rule_1_a_joint_that_does_not_follow_is_held_where_it_is() -> None:
    follows = ALL.copy()
    follows[2] = False
    measured = MIDDLE.copy()
    measured[2] += 0.7
    held = require_safe(hold(LIMITS, DT_S, moving(0.5, follows=follows), measured), LIMITS, measured)
    assert held.position[2] == pytest.approx(measured[2])
    assert held.position[1] == pytest.approx(AT[1] + 0.25 * STEP[1])


def test_rule_2_without_a_stream_it_is_where_each_joint_is_measured() -> None:
    held = require_safe(hold(LIMITS, DT_S, None, MIDDLE), LIMITS, AT)
    assert held.rule == MEASURED
    np.testing.assert_array_equal(held.rows, MIDDLE[None])


def test_rule_3_without_a_measurement_it_is_the_command() -> None:
    held = require_safe(hold(LIMITS, DT_S, moving(0.5), None), LIMITS, AT)
    assert held.rule == COMMAND
    np.testing.assert_array_equal(held.origin, AT)
    assert held.origin.dtype == np.float64


def test_rule_3_a_command_that_was_not_followed_is_none() -> None:
    follows = ALL.copy()
    follows[0] = False
    assert hold(LIMITS, DT_S, moving(0.5, follows=follows), None) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rule_3_a_command_that_is_no_number_is_none(value: float) -> None:
    broken = moving(0.0, at=np.where(np.arange(7) == 3, value, AT))
    assert hold(LIMITS, DT_S, broken, None) is None
    assert require_safe(hold(LIMITS, DT_S, broken, MIDDLE), LIMITS).rule == MEASURED


def test_rule_4_nothing_known_is_no_hold() -> None:
    assert hold(LIMITS, DT_S, None, None) is None


@pytest.mark.parametrize("outside", [0.01, 0.3, 0.57])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_joint_outside_its_range_is_held_at_the_edge_and_moved_there_no_faster_than_it_may(
    outside: float, side: float
) -> None:
    edge = HIGH if side > 0 else LOW
    measured = MIDDLE.copy()
    measured[0] = edge[0] + np.float32(side * outside)
    held = require_safe(hold(LIMITS, DT_S, None, measured), LIMITS, measured.astype(np.float64))
    assert held.position[0] == edge[0]
    assert held.start == max(int(np.ceil(outside / STEP[0])) - 1, 0)
    assert (held.rows[: held.start, 0] == edge[0]).all(), "who plays it from row 0 stays inside as well"


def test_a_slow_joint_gets_the_time_it_needs() -> None:
    slow = dataclasses.replace(LIMITS, velocity_max=np.full(7, 0.1))
    measured = (MIDDLE - 0.19).astype(np.float32)
    held = require_safe(hold(slow, DT_S, moving(0.0), measured), slow, AT, measured.astype(np.float64))
    np.testing.assert_allclose(held.position, AT, atol=1e-6)


def test_a_joint_that_would_need_minutes_is_not_held() -> None:
    slow = dataclasses.replace(LIMITS, velocity_max=np.full(7, 1e-3))
    measured = MIDDLE.copy()
    measured[0] = HIGH[0] + 0.3
    assert hold(slow, DT_S, None, measured) is None


def test_without_limits_or_a_rate_it_is_one_row() -> None:
    free = hold(None, DT_S, None, MIDDLE)
    assert free is not None
    np.testing.assert_array_equal(free.rows, [MIDDLE])
    held = hold(LIMITS, 0.0, moving(0.5), None)
    assert held is not None
    assert held.rows.shape == (1, 7)
    assert held.start == 0


def test_a_joint_without_a_speed_limit_is_there_at_once() -> None:
    free = dataclasses.replace(LIMITS, velocity_max=np.full(7, np.inf))
    measured = MIDDLE.copy()
    measured[0] = HIGH[0] + 0.5
    held = hold(free, DT_S, None, measured)
    assert held is not None
    assert (held.start, len(held.rows)) == (0, 1)
    assert held.rows[0, 0] == HIGH[0]


@pytest.mark.parametrize("seed", range(50))
def test_whatever_is_known_no_hold_breaks_a_limit(seed: int) -> None:
    random = np.random.default_rng(seed)
    limits = BENDING if seed % 2 else LIMITS
    at = random.uniform(limits.position_min, limits.position_max)
    inside = np.clip(at + random.uniform(-1, 1, 7) * STEP, limits.position_min, limits.position_max)
    stream = Stream(at, inside, inside - at, ALL)
    measured = (at + random.uniform(-0.2, 0.2, 7)).astype(np.float32)
    require_safe(hold(limits, DT_S, stream, measured), limits, at, measured.astype(np.float64))
    require_safe(hold(limits, DT_S, None, measured), limits, measured.astype(np.float64))
