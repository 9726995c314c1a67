# SPDX-License-Identifier: Apache-2.0
"""The observation buffer and the path tolerance: joints that do not follow their commands, by which clock, and after what."""

from __future__ import annotations

import numpy as np
import pytest
from buffer_scene import HOME, MS, NOW_NS, Scene, message

from benchmarks.robot_world import ARM, NAMES
from reflex_core.robot.joint_gate import IMPLAUSIBLE, SETTLE_S, joint_gate
from reflex_core.robot.path_tolerance import PATH_TOLERANCE_VIOLATED, path_tolerance
from reflex_ros.node.observation_buffer import (
    ObservationBuffer,
)


def command_all(scene: Scene, by: float) -> None:
    """Every joint, within 50 ms; then what it reads comes for 0.4 s."""
    rows = np.array([HOME], np.float32) + np.float32(by)
    scene.buffer.commanded(NAMES, rows, 50 * MS, NOW_NS, 0.05)
    for _ in range(40):
        scene.reads(HOME)
    scene.sees()


def test_joints_that_do_not_follow_are_no_observation_and_no_position_to_hold_at() -> None:
    scene = Scene()
    command_all(scene, 0.5)
    slug, text = scene.refused()
    assert slug == PATH_TOLERANCE_VIOLATED
    assert "joint 'panda_joint1' is 0.50 rad from its command" in text
    assert scene.buffer.measured(NAMES, NOW_NS, 300.0) is None
    assert scene.buffer.believed(NAMES) is None, "it says nothing against the command"
    assert "panda_joint1" in scene.buffer.tracking_error()


def test_joints_that_trail_a_little_are_an_observation() -> None:
    scene = Scene()
    command_all(scene, 0.3)
    assert scene.take().state is not None
    assert scene.buffer.measured(NAMES, NOW_NS, 300.0) is not None
    assert "0.30 rad" in scene.buffer.tracking_error()


def test_a_person_and_a_clock_that_jumped_say_that_the_joints_are_there() -> None:
    for forget in (lambda scene: scene.buffer.anchor(), lambda scene: scene.buffer.clear()):
        scene = Scene()
        command_all(scene, 0.5)
        forget(scene)
        assert scene.buffer.fault() is None


def test_a_reading_that_cannot_be_true_makes_no_other_joint_true() -> None:
    scene = Scene()
    command_all(scene, 0.5)
    scene.reads([*HOME[:6], 99.0])
    assert "99" in scene.buffer.anchor()
    scene.reads(HOME)
    assert scene.tolerance.fault() is not None


def test_a_joint_that_was_released_is_commanded_nowhere() -> None:
    scene = Scene()
    scene.buffer.commanded(NAMES, np.array([HOME], np.float32) + np.float32(0.5), 50 * MS, NOW_NS, 0.05)
    scene.buffer.released(0)
    for _ in range(40):
        scene.reads(HOME)
    assert scene.buffer.fault() is None


def test_what_the_plausibility_gate_does_not_believe_says_nothing_of_the_path() -> None:
    scene = Scene()
    scene.buffer.commanded(NAMES, np.array([HOME], np.float32), 50 * MS, NOW_NS, 0.05)
    for _ in range(40):
        scene.reads([9.0, *HOME[1:]])
    assert scene.gate.fault(NAMES) is not None
    assert scene.tolerance.fault() is None
    assert scene.buffer.tracking_error() == ""


def test_in_simulated_time_stamps_say_when_a_joint_was_where() -> None:
    gate, tolerance = joint_gate(ARM, NAMES, 0.2, stamps_rule=True), path_tolerance(ARM, NAMES, 0.4)
    buffer = ObservationBuffer(("camera",), NAMES, True, gate=gate, tolerance=tolerance)

    def reads(after_ms: int) -> None:
        buffer.put_joints(message(NOW_NS + after_ms * MS, "sensor_msgs/msg/JointState"), NAMES, HOME)

    reads(0)
    rows = np.array([HOME], np.float32) + np.arange(1, 41, dtype=np.float32)[:, None] * np.float32(0.05)
    buffer.commanded(NAMES, rows, 50 * MS, NOW_NS, 0.05)  # 1 rad/s
    for after_ms in range(10, 590, 10):
        reads(after_ms)
    assert buffer.fault() is None
    reads(620)
    assert buffer.fault() is not None


def test_on_the_wall_clock_arrivals_say_when_a_joint_was_where_and_no_stamp_does() -> None:
    scene = Scene()
    rows = np.array([HOME], np.float32) + np.arange(1, 41, dtype=np.float32)[:, None] * np.float32(0.05)
    scene.buffer.commanded(NAMES, rows, 50 * MS, NOW_NS, 0.05)  # 1 rad/s
    for _ in range(58):
        scene.reads(HOME)
    assert scene.buffer.fault() is None
    for _ in range(4):
        scene.reads(HOME)
    assert scene.buffer.fault() is not None


@pytest.mark.parametrize("released", [False, True])
def test_after_a_silence_a_joint_is_where_it_was_commanded_to_be_or_where_a_person_moved_it(
    released: bool,
) -> None:
    """Further than the plausibility margin from its command, and nearer than the path tolerance."""
    scene = Scene()
    scene.buffer.commanded(NAMES, np.array([HOME], np.float32), 50 * MS, NOW_NS, 0.05)
    if released:
        scene.buffer.released(0)
    scene.monotonic_ns += 1000 * MS
    moved = [HOME[0] + 0.35, *HOME[1:]]
    scene.reads(moved)
    fault = scene.buffer.fault()
    assert fault is not None
    assert fault.reason == IMPLAUSIBLE
    for _ in range(round(SETTLE_S / 0.01)):
        assert scene.buffer.fault() is not None
        scene.reads(moved)
    assert (scene.buffer.fault() is None) is released
