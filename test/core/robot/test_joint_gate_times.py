# SPDX-License-Identifier: Apache-2.0
"""The joint gate and time: late messages, silences, clocks, how far a command is, and how long a reading takes to be believed."""

from __future__ import annotations

import math

import pytest
from guarded import FRANKA
from joint_sensor import HOME, MARGIN, NAMES, TICK_S, VELOCITY, Sensor, rest

from reflex_core.robot.joint_gate import (
    GAP_S,
    RECOVERY_S,
    SETTLE_S,
    Path,
    joint_gate,
)


def test_a_late_message_reports_a_longer_motion(sensor: Sensor) -> None:
    """Messages that come in a bunch: the stamps say how much time has passed, as far as messages are ever late."""
    sensor.commands(0.0, 2.0)
    at = 0.0
    for _ in range(20):
        at += VELOCITY * 0.05
        assert sensor.reads(at, after_s=0.002, stamped_s=0.05).believed
    assert not sensor.reads(at + 0.7, after_s=0.002, stamped_s=30.0).believed, (
        "a clock that steps moves no joint"
    )


@pytest.mark.parametrize("stamped_s", [-30.0, 0.0])
def test_a_clock_that_steps_back_or_stands_still_freezes_no_joint(sensor: Sensor, stamped_s: float) -> None:
    assert sensor.reads(0.015, stamped_s=stamped_s).reads(0.03, stamped_s=stamped_s).believed


def test_simulated_time_is_the_stamps_alone() -> None:
    fast = Sensor(joint_gate(FRANKA, NAMES, MARGIN, stamps_rule=True)).reads(0.0)
    at = 0.0
    for step in range(20):
        at += VELOCITY * 0.1 * (1 if step < 10 else -1)
        assert fast.reads(at, after_s=0.001, stamped_s=0.1).believed
    slow = Sensor(joint_gate(FRANKA, NAMES, MARGIN, stamps_rule=True)).reads(0.0)
    assert not slow.reads(0.5, after_s=5.0, stamped_s=0.01).believed


def test_after_a_silence_under_command_only_the_command_explains_a_long_way(commanded: Sensor) -> None:
    """A driver that comes up again begins with zeros: the arm is where it is held all the same."""
    commanded.commands(0.0, 1.0)
    assert not commanded.reads(-1.0, after_s=5.0).believed
    assert commanded.all_read(rest(1.0, RECOVERY_S)).believed, "it went where it was commanded"
    commanded.gate.released()
    assert not commanded.reads(-1.0, after_s=5.0).believed
    assert commanded.all_read(rest(-1.0, SETTLE_S)).believed, "after a stop a person may have moved it"
    assert commanded.reads(-1.0, after_s=GAP_S / 2).believed


def test_a_silence_does_not_thaw_a_frozen_estimate(commanded: Sensor) -> None:
    commanded.reads(1.0)
    assert not commanded.reads(1.0, after_s=60.0).believed
    assert commanded.estimate == 0.0


def test_a_steady_reading_is_accepted_after_its_time_and_not_before(sensor: Sensor) -> None:
    sensor.reads(1.5)
    good = 0
    while not sensor.believed:
        good += 1
        sensor.reads(1.5)
    assert SETTLE_S <= good * TICK_S <= SETTLE_S + 2 * TICK_S


@pytest.mark.parametrize("period_s", [0.2, 0.5, 2.0])
def test_a_slow_publisher_must_say_it_three_times(commanded: Sensor, period_s: float) -> None:
    commanded.reads(1.0)
    good = 0
    while not commanded.believed:
        good += 1
        commanded.reads(0.0, after_s=period_s)
    assert good == max(3, math.ceil(RECOVERY_S / period_s) + 1)


@pytest.mark.parametrize(("silent_s", "believed"), [(GAP_S - 0.01, True), (GAP_S + 0.01, False)])
def test_only_a_short_silence_under_command_explains_a_way_that_was_not_commanded(
    commanded: Sensor, silent_s: float, believed: bool
) -> None:
    assert 0.1 < GAP_S < 0.2, "joint states at 10 Hz are no silence"
    assert commanded.reads(0.25, after_s=silent_s).believed is believed


@pytest.mark.parametrize(("late_s", "believed"), [(0.0499, True), (0.3, False)])
def test_a_message_is_late_by_no_more_than_messages_are(
    sensor: Sensor, late_s: float, believed: bool
) -> None:
    moved = VELOCITY * (late_s + TICK_S) + MARGIN - 0.01
    assert sensor.reads(moved, after_s=TICK_S, stamped_s=late_s + TICK_S).believed is believed


@pytest.mark.parametrize("value", [9.0, math.nan])
def test_what_is_impossible_is_no_candidate_before_anything_was_commanded(
    sensor: Sensor, value: float
) -> None:
    assert not sensor.all_read([value, 1.5] * 100).believed
    assert not sensor.all_read(rest(value, 2.0)).believed


def test_a_joint_that_was_anchored_leaves_the_others_as_they_are(commanded: Sensor) -> None:
    commanded.reads(1.0)
    assert commanded.gate.anchor(["nobody", NAMES[1]]) == ""
    assert not commanded.believed
    assert commanded.gate.believed(["nobody"]) is None
    assert commanded.gate.believed([]) is None
    assert commanded.gate.fault(["nobody"]) is None


def test_in_simulated_time_the_stamps_say_how_far_a_command_is() -> None:
    """The joint left 0 long ago on the clock of the stamps, whatever this machine's says."""
    sensor = (
        Sensor(joint_gate(FRANKA, NAMES, MARGIN, stamps_rule=True)).all_read([0.0] * 5).commands(0.0, 1.0)
    )
    sensor.all_read([9.0] * 70)
    assert not sensor.all_read([0.0] * 100).believed


def test_on_this_machines_clock_a_command_is_as_far_as_that_says(sensor: Sensor) -> None:
    sensor.commands(0.0, 1.0).all_read([9.0] * 60)
    assert sensor.all_read([0.72] * 32).believed


def test_what_is_believed_is_as_old_as_its_oldest_joint(sensor: Sensor) -> None:
    before_ns = sensor.now_ns
    sensor.gate.put(NAMES[:1], [0.0], sensor.stamp_ns + 1, before_ns + 10**7)
    found = sensor.gate.believed(NAMES)
    assert found is not None
    assert found[1] == before_ns


def test_commands_and_messages_may_be_of_other_joints_or_of_fewer(sensor: Sensor) -> None:
    sensor.gate.commanded({"stranger": Path([0.0], sensor.now_ns, 0.05)})
    sensor.gate.put(NAMES, HOME[:3], sensor.stamp_ns + 1, sensor.now_ns + 1)
    assert sensor.gate.fault(NAMES[3:]) is None


def test_after_a_reset_nothing_was_ever_commanded(sensor: Sensor) -> None:
    sensor.commands(0.0).gate.reset()
    sensor.all_read([0.0] * 5)
    assert not sensor.reads(1.0).believed
    assert sensor.all_read([1.0] * round(SETTLE_S / TICK_S + 3)).believed


def test_one_lie_begins_the_time_of_recovery_anew(sensor: Sensor) -> None:
    part = round(0.7 * RECOVERY_S / TICK_S)
    sensor.commands(0.0).reads(9.0).all_read([0.0] * part).reads(9.0)
    assert not sensor.all_read([0.0] * part).believed
    assert sensor.all_read([0.0] * part).believed
