# SPDX-License-Identifier: Apache-2.0
"""A stopped robot whose arm is moved by a person while its sensor is not well, on a clock that the test moves."""

from __future__ import annotations

import numpy as np
import pytest
from judged_scene import Scene

from benchmarks.robot_world import HOME, SPEED, TICK_S, Doubles, truth

FAR = np.array([1.5, 1.0, -1.5, -1.0, 1.0, 1.5, 2.0])


@pytest.fixture
def scene() -> Scene:
    """A robot that is being moved."""
    return Scene().to(HOME + 0.5).run(0.4)


def zeros(position: Doubles, _: float) -> Doubles:
    return position * 0.0


def led_away(scene: Scene, way: Doubles, seconds: float) -> None:
    """Let a person move the stopped arm by `way` (7,) rad."""
    arm, ticks = scene.world.arm, round(seconds / TICK_S)
    arm.following = False
    for _ in range(ticks):
        arm.position = arm.position + way / ticks
        arm.rest()
        scene.run(TICK_S)
    arm.following = True


def test_an_arm_that_is_moved_by_hand_as_its_sensor_recovers_is_served_without_a_reset() -> None:
    """The sensor was frozen until the stop, so that its first true reading is a jump."""
    scene = Scene().to(FAR).run(0.4)
    frozen = scene.world.arm.position.copy()
    scene.world.lie = lambda *_: frozen
    scene.run(0.3)
    assert scene.world.buffer.fault() is None
    scene.world.lie = truth
    scene.world.loop.stop()
    scene.judge.streaming = False
    scene.run(TICK_S)
    assert scene.world.buffer.fault() is not None
    led_away(scene, 0.4 * SPEED * np.sign(FAR - HOME), 0.6)
    scene.world.loop.resume()
    assert not scene.run(1.0).last.is_hold
    scene.well()


@pytest.mark.parametrize("moved", [0.0, 0.6])
@pytest.mark.parametrize("lied_s", [0.01, 0.4])
def test_what_is_read_first_after_a_silence_moves_no_stopped_robot(
    scene: Scene, lied_s: float, moved: float
) -> None:
    """The driver of the arm begins with zeros; the arm may have been moved while it was down."""
    scene.world.lie = lambda *_: None
    scene.run(0.1)
    scene.world.loop.stop()
    scene.judge.streaming = False
    scene.run(1.0)
    led_away(scene, np.full(7, moved), 1.0)
    scene.world.loop.resume()
    before = len(scene.sent)
    scene.world.lie = zeros
    scene.run(lied_s)
    assert scene.world.loop.progress.problem_text.endswith(
        "it may have been moved meanwhile, and must be steady for 0.5 s; if it really is there, call ~/reset_guard"
    )
    assert scene.sent[before:] == []
    scene.world.lie = truth
    assert not scene.run(1.0).last.is_hold
    scene.well()
