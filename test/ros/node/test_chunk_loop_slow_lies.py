# SPDX-License-Identifier: Apache-2.0
"""The chunk loop where a sensor lies slowly or an arm does not follow its commands, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from judged_scene import FAST_S, SLOW_S, Scene, offset

from benchmarks.robot_world import HOME, SPEED, Command, Doubles, Lie, truth


@pytest.fixture
def scene() -> Scene:
    """A robot that is being moved."""
    return Scene().to(HOME + 0.5).run(0.4)


# sensors that lie slowly, and arms that do not follow their commands

FAR = np.array([1.5, 1.0, -1.5, -1.0, 1.0, 1.5, 2.0])


def frozen() -> Lie:
    """Every joint reads what it read first, with fresh stamps."""
    seen: list[Doubles] = []

    def lie(position: Doubles, _: float) -> Doubles:
        seen.append(position.copy()) if not seen else None
        return seen[0]

    return lie


def drifting(speed: float, most: float) -> Lie:
    """Joint 1 reads more and more beside where it is."""
    began: list[float] = []

    def lie(position: Doubles, now_s: float) -> Doubles:
        began.append(now_s) if not began else None
        return position + np.clip(speed * (now_s - began[0]), -most, most) * (np.arange(7) == 0)

    return lie


@pytest.mark.parametrize(
    "lie",
    [frozen, lambda: drifting(0.2, 0.8), lambda: drifting(-1.5, 0.8)],
    ids=["frozen", "drift", "fast drift"],
)
@pytest.mark.parametrize("latency_s", [FAST_S, SLOW_S])
def test_a_sensor_that_freezes_or_drifts_makes_the_robot_hold_at_its_command_and_go_on_when_it_is_well(
    lie: Callable[[], Lie], latency_s: float
) -> None:
    scene = Scene(latency_s).to(FAR).run(0.2 + latency_s)
    scene.judge.slow_lie = True
    scene.world.lie = lie()
    scene.run(4.0)
    assert scene.last.is_hold
    assert scene.last.reason == "path_tolerance_violated"
    assert "rad from its command" in scene.world.loop.progress.problem_text
    np.testing.assert_allclose(scene.last.rows[-1], scene.world.arm.commanded(), atol=1e-5)
    held = len(scene.sent)
    assert scene.run(3.0).sent[held:] == [], "and stays so"
    scene.world.lie = truth
    scene.run(1.5 + latency_s)
    assert not scene.last.is_hold
    scene.well()


def test_no_chunk_begins_where_a_frozen_joint_reads(scene: Scene) -> None:
    """The command goes on from where it is, whatever the joint reads, until the robot is held."""
    scene.to(FAR).world.lie = frozen()
    before = len(scene.sent)
    scene.judge.slow_lie = False
    scene.run(4.0)
    assert len(scene.sent) > before + 1
    scene.well()


def test_an_arm_that_is_blocked_is_held_and_goes_on_when_it_is_free(scene: Scene) -> None:
    scene.to(FAR).world.arm.blocked[0] = True
    scene.run(4.0)
    assert (scene.last.is_hold, scene.last.reason) == (True, "path_tolerance_violated")
    assert "panda_joint1" in scene.world.loop.progress.problem_text
    assert abs(scene.world.arm.commanded()[0] - scene.world.arm.position[0]) < 1.1, "it does not press on"
    scene.world.arm.blocked[:] = False
    assert not scene.run(1.5).last.is_hold
    scene.well()


@pytest.mark.parametrize("lag_s", [0.1, 0.2])
def test_an_arm_that_lags_by_tenths_of_a_second_is_served(lag_s: float) -> None:
    scene, past = Scene().to(FAR), list[Doubles]()

    def lagging(position: Doubles, _: float) -> Doubles:
        past.append(position.copy())
        return past[max(len(past) - 1 - round(lag_s / 0.01), 0)]

    scene.world.lie = lagging
    scene.run(4.0)
    assert not any(command.is_hold for command in scene.sent)
    np.testing.assert_allclose(scene.world.arm.position, FAR, atol=0.02)


def test_resume_makes_no_frozen_joint_true_and_a_person_does(scene: Scene) -> None:
    scene.judge.slow_lie = True
    scene.to(FAR).world.lie = frozen()
    scene.run(3.0)
    scene.world.loop.stop()
    scene.world.loop.resume()
    held = len(scene.sent)
    assert all(command.is_hold for command in scene.run(1.0).sent[held:])
    assert scene.world.loop.believe() == ""
    assert not scene.run(0.3).last.is_hold


def test_what_a_person_says_is_true_is_where_the_next_chunk_begins(scene: Scene) -> None:
    """The command from before says nothing of a joint that did not follow it."""
    scene.to(FAR).world.arm.blocked[0] = True
    scene.run(3.0)
    assert scene.last.reason == "path_tolerance_violated"
    assert scene.world.loop.believe() == ""
    while scene.last.is_hold:
        scene.run(0.01)
    from_arm = np.abs(scene.last.rows[0] - scene.world.arm.position)
    assert (from_arm <= SPEED * (scene.last.due_s[0] - scene.world.clock.seconds + 0.06)).all()
    scene.well()


def test_a_person_who_says_so_while_all_is_well_interrupts_nothing(scene: Scene) -> None:
    scene.to(FAR).run(0.3)
    commanded = scene.world.guard.commands.recall()
    assert scene.world.loop.believe() == ""
    assert scene.world.guard.commands.recall() is commanded
    assert not scene.run(2.0).last.is_hold
    scene.well()


def ahead(scene: Scene, seconds: float) -> Scene:
    """Put the sensors on a machine whose clock is ahead."""
    scene.world.sensor_offset_ns = scene.world.clock.offset_ns + int(seconds * 1e9)
    return scene


@pytest.mark.parametrize("blocked_s", [0.2, 0.25, 0.3, 0.35, 0.4])
def test_a_joint_that_is_blocked_pulls_no_command_back_where_the_sensors_clock_is_ahead(
    blocked_s: float,
) -> None:
    """Whether it follows is compared with what is commanded now, and there is one verdict of that."""
    scene = ahead(Scene(), 0.17).to(FAR).run(0.6)
    differences: list[float] = []

    def heard(command: Command) -> None:
        coming = np.flatnonzero(command.due_s > scene.world.clock.seconds)[0]
        way = np.abs(command.rows[coming] - scene.world.arm.commanded())
        differences.append(
            float((way / SPEED).max() / max(command.due_s[coming] - scene.world.clock.seconds, 0.05))
        )
        scene._heard(command)

    scene.world.heard = heard
    scene.world.arm.blocked[0] = True
    scene.run(blocked_s)
    scene.world.loop.restart()
    scene.run(2.0)
    assert differences
    assert max(differences) <= 1.001
    scene.well()


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("set_by_s", [0.0, -0.2])
def test_a_hold_just_after_a_chunk_stops_on_the_way_to_its_first_row_where_the_sensors_clock_is_ahead(
    set_by_s: float, stops: bool
) -> None:
    """That row is due in a quarter of a second, and the robot is not there before."""
    scene = ahead(Scene(0.0), 0.18).to(FAR).run(0.4)
    if stops:
        scene.world.loop.stop()
        scene.run(0.5)
        scene.world.loop.resume()
    else:
        scene.world.loop.restart()
    before = len(scene.sent)
    while len(scene.sent) == before:
        scene.run(0.01)
    assert not scene.last.is_hold
    scene.world.lie = offset(-0.8)
    scene.world.clock.offset_ns += int(set_by_s * 1e9)
    scene.run(0.02)
    assert scene.last.is_hold
    differences = np.abs(scene.last.rows[-1] - scene.world.arm.position)
    assert (differences <= SPEED * 0.05).all()
    scene.well()


def test_a_stop_of_a_robot_that_does_not_follow_holds_at_its_last_command(scene: Scene) -> None:
    scene.to(FAR).world.arm.blocked[:] = True
    scene.run(3.0)
    at = scene.world.arm.commanded()
    assert scene.world.loop.stop() == ""
    np.testing.assert_allclose(scene.last.rows[-1], at, atol=1e-5)


def test_a_hold_soon_after_a_chunk_asks_for_no_more_speed_than_the_limit_from_the_running_command() -> None:
    """A joint that froze within the tolerance must not pull the command back, so that no hold has to brake that either."""
    scene = Scene().to(FAR).run(0.4)
    scene.world.lie = frozen()
    scene.run(0.28)
    before = len(scene.sent)
    scene.world.loop.restart()
    while len(scene.sent) == before:
        scene.run(0.01)
    assert not scene.last.is_hold
    scene.run(0.02)
    scene.world.lie = offset(2.0)
    scene.run(0.02)
    assert scene.last.is_hold
    scene.well()
