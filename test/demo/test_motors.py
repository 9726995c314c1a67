# SPDX-License-Identifier: Apache-2.0
"""The motors of both simulated arms: one way to follow a command, the hand's motor beside those of the arm."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from reflex_ros.demo.arm import build_model
from reflex_ros.demo.motors import VELOCITY_LIMIT_RAD_S, command_of, drive, motors_of, place
from reflex_ros.demo.pick_arm import build_pick_model
from reflex_ros.demo.pick_scene import FINGER_OPEN_M

HOME = np.array([0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8])
HAND = [("finger", 0.0, FINGER_OPEN_M)]


def test_the_command_moves_linearly_and_its_speed_is_fed_forward_to_the_arm_alone() -> None:
    model = build_pick_model()
    data, motors = mujoco.MjData(model), motors_of(model, HAND)
    begin = command_of(motors, HOME, FINGER_OPEN_M)
    place(model, data, motors, begin)
    target = command_of(motors, HOME + 0.01, 0.01)
    duration_s = 10 * float(model.opt.timestep)
    reached = drive(model, data, motors, begin, target, duration_s)
    np.testing.assert_allclose(reached, target, atol=1e-12)
    led = data.ctrl[motors.actuators] - reached
    speed = (target - begin) / duration_s
    ahead = np.clip(speed[:7], -VELOCITY_LIMIT_RAD_S, VELOCITY_LIMIT_RAD_S) * motors.feed_forward_s[:7]
    np.testing.assert_allclose(led[:7], ahead, atol=1e-12)
    assert (ahead > 0.0).all()
    assert led[7] == 0.0, "a finger stops at what it meets"


def test_a_speed_beyond_the_limit_is_fed_forward_up_to_it() -> None:
    model = build_model()
    data, motors = mujoco.MjData(model), motors_of(model)
    begin = command_of(motors, HOME)
    place(model, data, motors, begin)
    reached = drive(model, data, motors, begin, command_of(motors, HOME + 0.5), 5 * float(model.opt.timestep))
    led = data.ctrl[motors.actuators] - reached
    np.testing.assert_allclose(led, VELOCITY_LIMIT_RAD_S * motors.feed_forward_s, atol=1e-12)


def test_time_is_exact_where_a_duration_is_no_multiple_of_a_step() -> None:
    model = build_model()
    data, motors = mujoco.MjData(model), motors_of(model)
    command, until_s = command_of(motors, HOME), 0.0
    place(model, data, motors, command)
    for _ in range(1000):
        until_s += 0.0033
        command = drive(model, data, motors, command, command, until_s)
        assert abs(float(data.time) - until_s) <= 0.5 * float(model.opt.timestep) + 1e-9
    too_short = command_of(motors, HOME + 0.1)
    now_s = float(data.time)
    reached = drive(model, data, motors, command, too_short, now_s + 0.1 * float(model.opt.timestep))
    assert (reached == too_short).all(), "the physics goes on from there next time"
    assert float(data.time) == now_s


def test_arm_and_hand_are_held_at_their_ranges_and_no_pose_is_refused() -> None:
    arm, hand = motors_of(build_model()), motors_of(build_pick_model(), HAND)
    assert (command_of(arm, [9.0] * 7) == arm.high).all()
    assert (command_of(hand, [-9.0] * 7, 1.0) == [*hand.low[:7], FINGER_OPEN_M]).all()
    for wrong in (HOME[:6], [np.nan] * 7, np.zeros((7, 1))):
        with pytest.raises(ValueError, match="7 finite joint angles"):
            command_of(hand, wrong, 0.0)
