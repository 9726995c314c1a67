# SPDX-License-Identifier: Apache-2.0
"""What the chunk loop holds at when it is stopped, and after resume, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from judged_scene import SLOW_S, Scene, offset, reads

from benchmarks.robot_world import HOME, SPEED, truth


@pytest.fixture
def scene() -> Scene:
    """A robot that is being moved."""
    return Scene().to(HOME + 0.5).run(0.4)


def test_resume_makes_no_lie_true_and_a_person_does(scene: Scene) -> None:
    scene.world.lie = offset(1.0)
    scene.run(1.0)
    scene.world.loop.stop()
    scene.world.loop.resume()
    held = len(scene.sent)
    assert all(command.is_hold for command in scene.run(1.0).sent[held:])
    scene.world.lie = truth
    scene.world.arm.position = scene.world.arm.position + np.array([1.0, 0, 0, 0, 0, 0, 0])
    scene.world.arm.rest()
    assert all(command.is_hold for command in scene.run(1.0).sent[held:])
    assert scene.world.loop.believe() == ""
    assert not scene.run(0.3).last.is_hold


def test_a_stop_before_the_first_chunk_holds_at_nothing_that_is_not_true() -> None:
    """R1: nothing is published, and the reason is reported everywhere; with the sensor well again the stop holds where the arm is."""
    scene = Scene()
    scene.world.loop.stop()
    scene.world.loop.resume()
    scene.world.lie = reads(np.nan)
    scene.run(0.5)
    message = scene.world.loop.stop()
    assert "nothing was published" in message
    assert "not finite" in message
    assert scene.sent == []
    assert scene.world.loop.progress.unheld == 2
    counted = scene.world.engine.metrics.registry.get_sample_value
    assert counted("reflex_holds_impossible_total", {"reason": "stopped"}) == 2
    scene.world.lie = truth
    scene.run(1.0)
    assert scene.world.loop.stop() == ""
    np.testing.assert_allclose(scene.last.rows, HOME[None], atol=1e-6)
    assert scene.last.is_hold
    scene.well()


def test_a_stop_while_the_joint_states_are_silent_holds_at_no_old_pose() -> None:
    scene = Scene()
    scene.world.camera = False
    scene.run(0.2)
    scene.world.lie = lambda *_: None
    scene.run(5.0)
    assert scene.world.loop.stop() != ""
    assert scene.sent == []


@pytest.mark.parametrize("again", ["close", "stop", "resume without a camera, then stop"])
def test_after_a_stop_the_past_command_counts_for_nothing(scene: Scene, again: str) -> None:
    """R3: the arm was moved by other means."""
    loop, arm = scene.world.loop, scene.world.arm
    loop.stop()
    arm.following = False
    for _ in range(60):
        arm.position = arm.position + np.array([0.8, 0, 0, 0, 0, 0, 0]) / 60
        scene.run(0.01)
    if again == "close":
        loop.close("deactivated")
    else:
        if again.startswith("resume"):
            scene.world.camera = False
            scene.run(0.4)
            loop.resume()
            scene.run(0.2)
        loop.stop()
    assert scene.last.is_hold
    np.testing.assert_allclose(scene.last.rows, arm.position[None], atol=1e-5)


def test_a_stop_says_hold_before_the_arm_has_moved_on(scene: Scene) -> None:
    assert scene.world.loop.stop() == ""
    at = scene.world.arm.position.copy()
    scene.run(1.0)
    assert (np.abs(scene.world.arm.position - at) <= SPEED * 0.15).all()
    assert scene.last.reason == "stopped"
    scene.well()


@pytest.mark.parametrize("again_s", [0.05, 0.12, 0.25, 1.0])
def test_a_stop_again_while_the_joint_states_are_silent_goes_back_to_no_old_position(again_s: float) -> None:
    """The arm went on to where the first stop holds it; what was measured before says nothing of that."""
    scene = Scene().to(np.array([1.5, 1.0, -1.5, -1.0, 1.0, 1.5, 2.0])).run(0.5)
    scene.world.lie = lambda *_: None
    scene.run(0.05)
    scene.world.loop.stop()
    scene.judge.streaming = False
    held = scene.last
    scene.run(again_s)
    scene.world.loop.stop()
    scene.world.loop.resume()
    scene.run(0.3)
    assert scene.last is held
    scene.world.lie = truth
    assert not scene.run(0.5).last.is_hold
    scene.well()


def test_a_chunk_asked_for_before_the_stop_is_thrown_away() -> None:
    scene = Scene(SLOW_S).to(HOME + 0.5).run(1.0)
    scene.world.loop.restart()
    stops: list[Callable[[], object]] = [scene.world.loop.stop]
    scene.world.meanwhile = lambda: stops and stops.pop()() and None
    before = len(scene.sent)
    scene.run(3.0)
    assert [command.reason for command in scene.sent[before:]] == ["stopped"]


@pytest.mark.parametrize("step_s", [-30.0, 30.0])
def test_a_stop_at_the_moment_at_which_the_clock_is_set_holds_where_the_robot_is(step_s: float) -> None:
    """The loop has not looked yet: by the stamps the chunk would be over, or not have begun."""
    scene = Scene().to(np.array([1.5, 1.0, -1.5, -1.0, 1.0, 1.5, 2.0])).run(0.6)
    at = scene.world.arm.position.copy()
    scene.world.clock.offset_ns += int(step_s * 1e9)
    assert scene.world.loop.stop() == ""
    scene.judge.streaming = False
    scene.run(1.0)
    assert (np.abs(scene.world.arm.position - at) <= SPEED * 0.15).all()
    assert scene.last.reason == "stopped"
    np.testing.assert_allclose(scene.world.arm.position, scene.last.rows[-1], atol=0.01)
    scene.well()
