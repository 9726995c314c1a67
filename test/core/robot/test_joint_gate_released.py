# SPDX-License-Identifier: Apache-2.0
"""The joint gate while nothing is commanded: a person may move the arm, and it may be moved while nothing is read."""

from __future__ import annotations

import math

import numpy as np
import pytest
from joint_sensor import NAMES, TICK_S, VELOCITY, Sensor, rest

from reflex_core.robot.joint_gate import GAP_S, RECOVERY_S, SETTLE_S


def settled(sensor: Sensor, value: float) -> float:
    """How long the joint reads `value` until it is believed, seconds."""
    for reading in range(1000):
        if sensor.believed:
            return reading * TICK_S
        sensor.reads(value)
    raise AssertionError(f"{value} is never believed")


def test_after_a_silence_without_commands_a_joint_may_be_far_once_it_is_steady(sensor: Sensor) -> None:
    fault = sensor.reads(2.0, after_s=5.0).gate.fault(NAMES)
    assert fault is not None
    assert fault.text == (
        "joint 'panda_joint1' reads 2 rad, it was at 0 rad 5000 ms before: it may have been moved meanwhile, and must be"
        " steady for 0.5 s; if it really is there, call ~/reset_guard"
    )
    assert SETTLE_S <= settled(sensor, 2.0) <= SETTLE_S + 2 * TICK_S
    assert sensor.estimate == 2.0
    assert sensor.reads(2.2, after_s=TICK_S).believed


def test_after_a_silence_without_commands_a_joint_that_is_where_it_was_is_believed_at_once(
    commanded: Sensor,
) -> None:
    commanded.gate.released()
    assert commanded.reads(0.15, after_s=5.0).believed


@pytest.mark.parametrize("lied_s", [TICK_S, SETTLE_S - 0.1])
def test_a_lie_that_ends_a_silence_without_commands_is_not_believed_and_the_truth_after_it_is(
    commanded: Sensor, lied_s: float
) -> None:
    """A driver that comes up again begins with zeros, and the arm was moved while it was down."""
    commanded.gate.released()
    commanded.reads(1.0, after_s=5.0)
    assert not commanded.all_read([1.0] * round(lied_s / TICK_S)).believed
    assert not commanded.reads(-1.0).believed
    assert SETTLE_S <= settled(commanded, -1.0) <= SETTLE_S + 2 * TICK_S
    assert commanded.estimate == -1.0


def test_what_lied_before_a_silence_is_not_believed_after_it(commanded: Sensor) -> None:
    commanded.reads(1.0).gate.released()
    assert not commanded.reads(1.0, after_s=5.0).all_read(rest(1.0, 2 * SETTLE_S)).believed


def test_no_joint_is_further_than_it_can_have_come_in_a_silence(commanded: Sensor) -> None:
    commanded.gate.released()
    fault = commanded.reads(2.5, after_s=1.0).gate.fault(NAMES)
    assert fault is not None
    assert "no joint that moves at most" in fault.text
    assert not commanded.all_read(rest(2.5, 2 * SETTLE_S)).believed
    assert commanded.all_read(rest(2.3, SETTLE_S)).believed, "the margin counts"


def test_before_anything_was_commanded_a_joint_may_have_moved_in_a_silence(sensor: Sensor) -> None:
    sensor.reads(0.5, after_s=2 * GAP_S)
    assert settled(sensor, 0.5) <= SETTLE_S + 2 * TICK_S


def led(start: float, end: float, speed: float = 0.8 * VELOCITY) -> list[float]:
    """A hand that leads the joint from `start` to `end`."""
    steps = math.ceil(abs(end - start) / (speed * TICK_S))
    return [float(each) for each in np.linspace(start, end, steps + 1)]


def test_a_released_joint_may_be_led_away_by_hand_while_it_is_on_the_way_to_be_believed(
    commanded: Sensor,
) -> None:
    """The sensor was wrong until the stop, and a person took the arm at once."""
    commanded.reads(0.7).gate.released()
    hand = led(0.0, -1.2)
    assert not commanded.all_read(hand[: round(SETTLE_S / TICK_S)]).believed
    assert commanded.all_read(hand[round(SETTLE_S / TICK_S) :]).believed
    assert commanded.estimate == pytest.approx(-1.2)
    assert commanded.refused == ["panda_joint1"], "that of the sensor"


def test_under_command_no_hand_leads_a_joint_to_where_it_is_believed(commanded: Sensor) -> None:
    assert not commanded.reads(0.7).all_read(led(0.0, -1.2)).all_read(rest(-1.2, 2 * SETTLE_S)).believed


def test_a_released_joint_that_leaps_while_it_is_on_the_way_to_be_believed_is_not(commanded: Sensor) -> None:
    commanded.reads(0.7).gate.released()
    assert not commanded.all_read([0.0] * 10).all_read(rest(-1.2, 2 * SETTLE_S)).believed
    assert not commanded.all_read(led(-1.2, -0.5)).believed, "it is unknown where it was led from"


@pytest.mark.parametrize(("to", "believed"), [(1.3, False), (0.55, True)])
def test_a_joint_that_was_led_far_away_by_hand_is_not_where_it_was_commanded_to_be(
    commanded: Sensor, to: float, believed: bool
) -> None:
    """The old command explains the end of a lie that took the estimate along, and no leap to where it led once."""
    commanded.gate.released()
    commanded.all_read(led(0.0, to))
    assert not commanded.reads(to - 2.5).believed
    assert commanded.all_read(rest(0.0, RECOVERY_S)).believed is believed


def test_a_joint_that_froze_under_command_may_be_where_it_was_commanded_to_be_after_a_stop(
    commanded: Sensor,
) -> None:
    commanded.commands(0.0, 0.9).all_read([0.0] * 50).gate.released()
    assert commanded.all_read(rest(0.0, 2.0)).believed
    assert not commanded.reads(0.9).believed
    assert commanded.all_read(rest(0.9, RECOVERY_S)).believed


def test_how_far_a_joint_is_led_away_counts_from_where_it_was_released(commanded: Sensor) -> None:
    """A second stop, of a robot that no command moved since, says nothing new."""
    commanded.gate.released()
    commanded.all_read(led(0.0, 0.5)).gate.released()
    commanded.all_read(led(0.5, 0.7)).reads(-1.8)
    assert not commanded.all_read(rest(0.0, RECOVERY_S)).believed
