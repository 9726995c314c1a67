# SPDX-License-Identifier: Apache-2.0
"""What a robot is held at by what it was commanded: the running chunk, what followed it, and how old the measurement is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from guarded import HIGH, MIDDLE
from hold_cases import ALL, AT, BENDING, DT_S, LIMITS, SECOND_NS, STEP, moving, require_safe

from reflex_core.robot.limits.commands import RobotCommands
from reflex_core.robot.limits.history import Commanded, Moment
from reflex_core.robot.limits.hold import MEASURED, STREAM, hold
from reflex_core.robot.limits.limits import Limits
from reflex_core.values import Floats


def moment(seconds: float) -> Moment:
    return Moment(int(seconds * SECOND_NS), int((1000 + seconds) * SECOND_NS))


def executed(rows: Floats | None = None) -> RobotCommands:
    """A robot that executes a chunk which moves joint 1 by 0.05 rad a row, since second 10."""
    commands = RobotCommands(LIMITS, 0.2)
    chunk = np.tile(MIDDLE, (11, 1)) if rows is None else rows
    if rows is None:
        chunk[:, 0] += np.arange(11) * 0.05
    commands.remember(Commanded(chunk.astype(np.float32), DT_S, moment(10.0)), 0)
    commands.executed()
    return commands


def test_the_hold_of_a_running_chunk_brakes_it_within_two_periods() -> None:
    """1 rad/s at 0.21 rad, with a constant deceleration: 0.0375 rad further after one period, 0.05 after both."""
    measured = MIDDLE.copy()
    measured[0] += 0.2
    held = executed().hold(measured, None, moment(10.21), DT_S)
    assert held is not None
    np.testing.assert_allclose(held.rows[:, 0], MIDDLE[0] + [0.2475, 0.26], atol=1e-6)


def test_a_chunk_that_was_not_published_was_not_commanded() -> None:
    commands = executed()
    before = commands.recall()
    commands.remember(Commanded(np.tile(HIGH, (11, 1)), DT_S, moment(10.1)), 0)
    commands.forget()
    assert commands.recall() is before


def test_after_the_end_of_commands_the_past_counts_for_nothing() -> None:
    commands = executed()
    commands.end()
    elsewhere = (MIDDLE + 0.8).astype(np.float32)
    held = commands.hold(elsewhere, None, moment(11.0), DT_S)
    assert held is not None
    np.testing.assert_array_equal(held.position, elsewhere)
    commands.end()
    assert commands.hold(None, None, moment(11.0), DT_S) is None


def test_a_stale_robot_is_held_at_its_command_if_it_was_seen_to_follow_it() -> None:
    following, elsewhere = (MIDDLE + 0.01).tolist(), (MIDDLE + 0.8).tolist()
    believed_ns = moment(10.0).zero_ns
    assert executed().hold(None, (following, believed_ns), moment(10.4), DT_S) is not None
    assert executed().hold(None, (elsewhere, believed_ns), moment(10.4), DT_S) is None
    assert executed().hold(None, None, moment(10.4), DT_S) is not None, "it was never measured at all"


def test_a_hold_is_what_is_commanded_from_then_on() -> None:
    commands = executed()
    first = commands.hold(MIDDLE, None, moment(10.0), DT_S)
    second = commands.hold(MIDDLE, None, moment(12.0), DT_S)
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.position, second.position)


def test_on_another_clock_the_commands_go_on() -> None:
    """The wall clock was set by half a minute: the robot is where it was."""
    commands = executed()
    commands.count_on_monotonic_clock()
    set_back = Moment(moment(10.21).zero_ns, moment(10.21).stamp_ns - 30 * SECOND_NS)
    held = commands.hold(None, None, set_back, DT_S)
    assert held is not None
    assert held.position[0] == pytest.approx(MIDDLE[0] + 0.26)


@pytest.mark.parametrize("part", ["at", "target"])
@pytest.mark.parametrize("measured", [None, MIDDLE])
def test_one_number_that_is_none_makes_the_whole_stream_worthless(part: str, measured: Floats | None) -> None:
    one = np.where(np.arange(7) == 3, np.nan, AT)
    held = hold(LIMITS, DT_S, dataclasses.replace(moving(0.0), **{part: one}), measured)
    assert (held is None) is (measured is None)
    if held is not None:
        assert held.rule == MEASURED


@pytest.mark.parametrize(("following", "rule"), [(7, STREAM), (1, STREAM), (0, MEASURED)])
def test_the_rule_is_that_of_the_joints_which_follow(following: int, rule: str) -> None:
    measured = (MIDDLE + 0.05).astype(np.float32)
    held = hold(LIMITS, DT_S, moving(0.0, follows=np.arange(7) < following), measured)
    assert held is not None
    assert held.rule == rule
    np.testing.assert_array_equal(held.origin[:following], AT[:following])
    np.testing.assert_array_equal(held.origin[following:], measured[following:].astype(np.float64))


def test_without_a_rate_it_is_where_the_robot_would_come_to_rest() -> None:
    held = hold(BENDING, 0.0, moving(0.5), MIDDLE)
    assert held is not None
    np.testing.assert_allclose(held.rows, [AT + 0.25 * STEP], atol=1e-6)


def test_a_rate_of_rows_an_hour_apart_is_a_hold_as_well() -> None:
    held = hold(LIMITS, 3600.0, moving(0.0), MIDDLE)
    assert held is not None
    assert (held.start, len(held.rows)) == (0, 1)


@pytest.mark.parametrize(("seconds", "held"), [(59.5, True), (60.5, False)])
def test_a_hold_takes_a_minute_at_most(seconds: float, held: bool) -> None:
    slow = dataclasses.replace(LIMITS, velocity_max=np.full(7, 0.15 / seconds))
    measured = MIDDLE.copy()
    measured[0] = HIGH[0] + np.float32(0.15)
    assert (hold(slow, DT_S, None, measured) is not None) is held


@pytest.mark.parametrize(("dt_s", "held"), [(30.0, True), (31.0, False)])
def test_a_minute_is_counted_from_the_first_row_to_the_last(dt_s: float, held: bool) -> None:
    """Three rows: the last one is due two periods after the first."""
    slow = dataclasses.replace(LIMITS, velocity_max=np.full(7, 0.25 / dt_s))
    found = hold(slow, dt_s, moving(0.0), lagging(0.6))
    assert (found is not None) is held
    if found is not None:
        assert len(found.rows) == 3


def test_a_joint_that_turns_for_ever_gets_to_its_hold_as_soon_as_one_with_a_range() -> None:
    turning = dataclasses.replace(
        LIMITS,
        position_min=np.where(np.arange(7) == 0, -np.inf, LIMITS.position_min),
        position_max=np.where(np.arange(7) == 0, np.inf, LIMITS.position_max),
    )
    held = require_safe(hold(turning, DT_S, moving(0.0), lagging(0.3)), turning, AT)
    assert len(held.rows) == 3
    np.testing.assert_allclose(held.position, AT, atol=1e-6)


def test_a_measurement_that_is_a_little_old_is_compared_with_the_command_of_then() -> None:
    """The joint states have been silent for a quarter of a second, in which the arm went on."""
    rows_ = np.tile(MIDDLE, (21, 1))
    rows_[:, 0] += np.arange(21) * 0.1
    measured = MIDDLE.copy()
    measured[0] += 1.0
    believed_ns = moment(10.5).zero_ns
    held = executed(rows_.astype(np.float32)).hold(
        measured, (measured.tolist(), believed_ns), moment(10.75), DT_S
    )
    assert held is not None
    assert held.rule == STREAM
    assert held.position[0] == pytest.approx(MIDDLE[0] + 1.5, abs=0.11)
    assert abs(held.rows[0, 0] - (MIDDLE[0] + 1.5)) < STEP[0] + 1e-6, "not back to where it was"


def test_an_estimate_that_a_ramp_took_along_is_still_one_of_a_robot_that_follows() -> None:
    ramped = MIDDLE.copy()
    ramped[0] -= 0.5
    believed = (ramped.tolist(), moment(10.0).zero_ns)
    assert executed().hold(None, believed, moment(10.3), DT_S) is not None


def lagging(lag: float, joint: int = 0) -> Floats:
    measured = MIDDLE.copy()
    measured[joint] -= np.float32(lag)
    return measured


@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize(("age_s", "count", "start"), [(0.0, 3, 1), (0.05, 2, 0), (0.1, 1, 0)])
def test_a_joint_that_follows_went_on_with_its_command_since_it_was_measured(
    side: float, age_s: float, count: int, start: int
) -> None:
    """0.3 rad behind, at 0.109 rad a row."""
    held = hold(LIMITS, DT_S, moving(0.0), lagging(side * 0.3), age_s)
    assert held is not None
    assert (len(held.rows), held.start) == (count, start)
    np.testing.assert_allclose(held.position, AT, atol=1e-6)


def test_how_old_a_measurement_is_changes_nothing_where_there_is_no_limit_or_none_or_nothing_is_followed() -> (
    None
):
    for limits, measured in ((None, MIDDLE), (LIMITS, None)):
        held = hold(limits, DT_S, moving(0.0), measured, 0.1)
        assert held is not None
        np.testing.assert_allclose(held.position, AT, atol=1e-6)
    held = hold(LIMITS, DT_S, moving(0.0, follows=~ALL), lagging(0.3), 0.1)
    assert held is not None
    np.testing.assert_array_equal(held.position, lagging(0.3))


def test_a_joint_that_gets_half_the_way_in_time_and_not_the_whole_is_not_held() -> None:
    slow = dataclasses.replace(LIMITS, velocity_max=np.full(7, 0.2 / 80.0))
    assert hold(slow, DT_S, moving(0.0), lagging(0.2)) is None


def test_braking_ends_with_the_joint_that_needs_longest() -> None:
    held = hold(BENDING, DT_S, moving(1.0), MIDDLE)
    assert held is not None
    assert len(held.rows) == int(np.ceil(STEP.max() / (10.0 * DT_S**2)))


def test_only_joints_without_an_acceleration_limit_stop_at_once() -> None:
    mixed = dataclasses.replace(
        BENDING, acceleration_max=np.where(np.arange(7) == 0, np.inf, BENDING.acceleration_max)
    )
    held = require_safe(hold(mixed, DT_S, moving(1.0), MIDDLE), mixed, AT)
    np.testing.assert_allclose(held.rows[:, 0], AT[0] + 0.5 * STEP[0], atol=1e-6)
    assert held.position[1] > AT[1] + STEP[1]


def test_a_step_that_is_faster_than_the_limit_is_braked_from_the_limit() -> None:
    held, most = (hold(BENDING, DT_S, moving(share), MIDDLE) for share in (2.0, 1.0))
    assert held is not None
    assert most is not None
    np.testing.assert_allclose(held.position, most.position, atol=1e-6)


SLOW = dataclasses.replace(LIMITS, velocity_max=np.full(7, 0.5))


def at_rest(limits: Limits = LIMITS) -> RobotCommands:
    commands = RobotCommands(limits, 0.2)
    commands.remember(Commanded(np.tile(MIDDLE, (11, 1)), DT_S, moment(10.0)), 0)
    commands.executed()
    return commands


@pytest.mark.parametrize(("age_s", "count"), [(None, 8), (0.0, 8), (0.1, 6)])
def test_a_robot_is_held_with_the_age_of_what_was_believed(age_s: float | None, count: int) -> None:
    measured = lagging(0.19)
    believed = None if age_s is None else (measured.tolist(), moment(10.5 - age_s).zero_ns)
    held = at_rest(SLOW).hold(measured, believed, moment(10.5), DT_S)
    assert held is not None
    assert len(held.rows) == count


@pytest.mark.parametrize(("lag", "follows"), [(0.15, True), (0.25, False)])
def test_a_joint_follows_within_the_margin(lag: float, follows: bool) -> None:
    held = at_rest().hold(lagging(lag), None, moment(10.5), DT_S)
    assert held is not None
    assert held.position[0] == pytest.approx(AT[0] if follows else AT[0] - lag)


@pytest.mark.parametrize(("lag", "follows"), [(0.19, True), (0.21, False), (0.25, False), (0.4, False)])
def test_a_joint_without_a_speed_limit_has_no_wider_margin(lag: float, follows: bool) -> None:
    """Not even where all that is known of it is an estimate, which a ramp takes along by the speed limit."""
    free = dataclasses.replace(LIMITS, velocity_max=np.where(np.arange(7) == 0, np.inf, LIMITS.velocity_max))
    believed = (lagging(lag).tolist(), moment(10.4).zero_ns)
    assert (at_rest(free).hold(None, believed, moment(10.5), DT_S) is not None) is follows


def test_a_joint_that_trails_is_where_its_command_was() -> None:
    rows_ = np.tile(MIDDLE, (21, 1))
    rows_[:, 0] += np.arange(21) * 0.1
    held = executed(rows_.astype(np.float32)).hold(lagging(-0.6), None, moment(10.5), DT_S)
    assert held is not None
    assert held.position[0] == pytest.approx(MIDDLE[0] + 1.1, abs=0.11)
    older = (lagging(-0.7).tolist(), moment(10.35).zero_ns)
    held = executed(rows_.astype(np.float32)).hold(lagging(-0.7), older, moment(10.75), DT_S)
    assert held is not None
    assert held.position[0] == pytest.approx(MIDDLE[0] + 1.5, abs=0.11)


def test_a_hold_is_published_and_a_chunk_that_is_not_does_not_replace_it() -> None:
    commands = at_rest()
    commands.hold(MIDDLE, None, moment(10.5), DT_S)
    held = commands.recall()
    commands.remember(Commanded(np.tile(HIGH, (11, 1)), DT_S, moment(10.6)), 0)
    commands.forget()
    assert commands.recall() is held


def test_rows_that_no_joint_reaches_in_time_are_remembered_as_a_straight_line() -> None:
    outside = MIDDLE.copy()
    outside[0] = HIGH[0] + np.float32(0.3)
    commands = RobotCommands(LIMITS, 0.2)
    held = commands.hold(outside, None, moment(10.0), DT_S)
    commanded = commands.recall()
    assert held is not None
    assert commanded is not None
    assert held.start == 2
    np.testing.assert_allclose(commanded.rows[:4, 0], outside[0] - np.arange(4) * 0.1, atol=1e-5)


def test_before_anything_was_commanded_another_clock_changes_nothing() -> None:
    commands = RobotCommands(LIMITS, 0.2)
    assert commands.joined == 0
    commands.count_on_monotonic_clock()
    assert commands.recall() is None


def test_a_joint_that_is_a_little_ahead_of_its_fast_command_follows_it() -> None:
    rows_ = np.tile(MIDDLE, (21, 1))
    rows_[:, 0] += np.arange(21) * 0.1
    held = executed(rows_.astype(np.float32)).hold(lagging(-1.19), None, moment(10.52), DT_S)
    assert held is not None
    assert held.position[0] == pytest.approx(MIDDLE[0] + 1.14, abs=0.01)


def test_a_joint_that_trails_a_command_which_turned_is_where_that_command_was() -> None:
    """The command went out and back within the time that an arm may be behind."""
    rows_ = np.tile(MIDDLE, (11, 1))
    rows_[8, 0] += np.float32(0.3)
    held = executed(rows_).hold(lagging(-0.35), None, moment(10.5), DT_S)
    assert held is not None
    assert held.position[0] == pytest.approx(MIDDLE[0])
