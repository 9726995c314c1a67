# SPDX-License-Identifier: Apache-2.0
"""The chunk loop on a clock that the test moves: real guard and buffer, sensors that lie at once, an arm that follows what is sent.

benchmarks/robot_world.py is the world; benchmarks/robot_fuzz.py does the same at random.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from judged_scene import FAST_S, SLOW_S, Scene, offset, reads

from benchmarks.robot_judge import HIGH, LOW, SILENT_S
from benchmarks.robot_world import HOME, MAX_AGE_MS, SPEED, TINY_S, Doubles, Lie, truth
from reflex_core.errors import InferenceError, NotReadyError
from reflex_core.robot.path_tolerance import PathTolerance
from reflex_core.values import Floats, Request
from reflex_ros.node.chunk_loop import HANGING_S
from reflex_ros.node.holds import LATE


class Panic(BaseException):
    """What an extension written in Rust raises."""


@pytest.fixture
def scene() -> Scene:
    """A robot that is being moved."""
    return Scene().to(HOME + 0.5).run(0.4)


LIES: dict[str, Lie] = {
    "zeros": lambda position, _: position * 0.0, "a jump": offset(1.0), "a turn": reads(2 * np.pi + 2.6, 5),
    "nan": reads(np.nan), "inf": reads(np.inf), "9": reads(9.0), "45": reads(45.0, 1), "3e38": reads(3e38),
}  # fmt: skip


@pytest.mark.parametrize("lie", list(LIES.values()), ids=list(LIES))
@pytest.mark.parametrize("latency_s", [FAST_S, SLOW_S])
def test_a_joint_that_lies_makes_the_robot_hold_at_its_command_and_go_on_when_it_is_well(
    lie: Lie, latency_s: float
) -> None:
    scene = Scene(latency_s).to(np.array([1.5, 1.0, -1.5, -1.0, 1.0, 1.5, 2.0])).run(2.0)
    scene.world.lie = lie
    moved = scene.world.arm.position.copy()
    scene.run(1.5)
    assert scene.last.is_hold
    assert scene.last.reason in ("implausible_state", "state_not_finite")
    assert "panda_joint" in scene.world.loop.progress.problem_text
    assert (np.abs(scene.world.arm.position - moved) <= SPEED * (latency_s + 0.15)).all(), "it holds at once"
    held = len(scene.sent)
    assert scene.run(3.0).sent[held:] == [], "and stays so"
    scene.world.lie = truth
    scene.run(1.0 + latency_s)
    assert not scene.last.is_hold
    scene.well()


def test_the_hold_is_there_in_the_cycle_in_which_the_joint_lies(scene: Scene) -> None:
    scene.world.lie = offset(1.0)
    before = len(scene.sent)
    scene.run(0.01)
    assert [command.is_hold for command in scene.sent[before:]] == [True]


def test_a_chunk_that_was_under_way_when_the_joint_lied_is_not_published() -> None:
    scene = Scene(SLOW_S).to(HOME + 0.5).run(1.0)
    discarded = scene.world.loop.progress.discarded
    scene.world.loop.restart()

    def lies_from_now_on(position: Doubles, _: float) -> Doubles:
        return position + 1.0

    before = len(scene.sent)
    scene.world.meanwhile = lambda: setattr(scene.world, "lie", lies_from_now_on)
    scene.run(0.7)
    assert scene.world.loop.progress.discarded == discarded + 1
    assert all(command.is_hold for command in scene.sent[before:])


def test_a_chunk_that_was_under_way_while_a_joint_lied_is_not_published_when_it_is_well_again() -> None:
    """It was made of readings from just before the lie was seen, which may have been a part of it."""
    scene = Scene(SLOW_S).to(HOME + 0.5)
    scene.world.camera = False
    scene.run(0.1)
    scene.world.lie, scene.world.camera = offset(0.15), True
    meanwhile, begun_s = scene.world.meanwhile, scene.world.clock.seconds

    def lies_and_is_well() -> None:
        meanwhile()
        for_s = scene.world.clock.seconds - begun_s
        scene.world.lie = offset(0.15) if for_s < 0.1 else offset(1.0) if for_s < 0.13 else truth

    scene.world.meanwhile = lies_and_is_well
    scene.run(SLOW_S)
    assert scene.world.loop.progress.discarded == 1
    assert scene.sent == []
    assert not scene.run(SLOW_S + 0.2).last.is_hold
    scene.well()


def test_two_publishers_that_contradict_each_other_are_held_for_as_long_as_they_do(scene: Scene) -> None:
    scene.world.second_lie = LIES["zeros"]
    before = len(scene.sent)
    scene.run(8.0)
    assert [command.is_hold for command in scene.sent[before:]] == [True]
    scene.world.second_lie = None
    assert not scene.run(1.0).last.is_hold
    scene.well()


def test_a_clock_that_is_set_while_an_inference_hangs_keeps_no_watchdog_from_holding(scene: Scene) -> None:
    scene.run(0.5)
    scene.world.engine.latency_s = 7.0
    steps, inside_s = [-30 * 10**9], scene.world.clock.seconds + 1.0

    def step() -> None:
        if steps and scene.world.clock.seconds > inside_s:
            scene.world.clock.offset_ns += steps.pop()

    scene.world.meanwhile = step
    scene.run(3.0)
    assert not steps
    assert LATE in scene.world.barks
    assert any(command.reason == LATE for command in scene.sent)


@pytest.mark.parametrize("step_s", [-30.0, 30.0, -1.0])
def test_a_clock_that_is_set_is_a_hold_and_then_a_fresh_chunk(
    scene: Scene, step_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    """R9: also while the sensors stop at the same moment."""
    scene.world.clock.offset_ns += int(step_s * 1e9)
    before = len(scene.sent)
    scene.run(0.02)
    assert [command.reason for command in scene.sent[before:]] == ["clock_jump"]
    assert f"clock_jump: the clock of this machine was set by {step_s:+.1f} s" in caplog.text
    scene.run(1.0)
    assert not scene.last.is_hold
    scene.world.lie, scene.world.camera = lambda *_: None, False
    scene.world.clock.offset_ns += int(step_s * 1e9)
    scene.run(3.0)
    assert scene.last.is_hold
    assert scene.world.loop.progress.problem in ("camera_missing", "state_missing")
    scene.well()


def test_a_camera_that_stops_lets_the_running_chunk_bridge_and_then_the_robot_holds(scene: Scene) -> None:
    scene.run(1.0)
    scene.world.camera = False
    before = len(scene.sent)
    scene.run(1.2)
    assert scene.sent[before:] == [], "the running chunk goes on"
    scene.run(1.5)
    assert [command.reason for command in scene.sent[before:]] == ["stale"]
    scene.world.camera = True
    assert not scene.run(0.2).last.is_hold
    scene.well()


@pytest.mark.parametrize(
    "error", [InferenceError("it raised"), NotReadyError("degraded"), RuntimeError("odd"), Panic("!")]
)
def test_whatever_the_model_raises_the_robot_holds_and_the_loop_goes_on(
    scene: Scene, error: BaseException
) -> None:
    """R13: an extension written in Rust raises what is no Exception."""

    def failing(_: Request) -> Floats:
        raise error

    works, scene.world.engine.model = scene.world.engine.model, failing
    scene.run(3.0)
    assert scene.last.is_hold
    assert scene.world.loop.progress.problem
    scene.world.engine.model = works
    scene.run(0.3)
    assert not scene.last.is_hold
    assert scene.world.loop.progress.problem == ""
    scene.well()


def test_a_chunk_that_comes_late_is_joined_to_what_is_commanded_by_then(scene: Scene) -> None:
    """Something holds the answer up after the guard has seen it."""
    loop, engine = scene.world.loop, scene.world.engine
    act = engine.act

    def late(request: Request) -> object:
        served = act(request)
        scene.world.pass_time(0.4)
        return served

    engine.act = late  # type: ignore[method-assign, assignment]
    scene.to(HOME - 0.5)
    loop.restart()
    scene.run(3.0)
    assert sum(not command.is_hold for command in scene.sent) > 2
    scene.well()


def test_a_chunk_that_is_over_before_it_comes_is_a_hold(scene: Scene) -> None:
    scene.world.engine.latency_s = 2.7
    scene.world.watchdog.check = lambda: None  # type: ignore[method-assign]
    scene.world.loop.restart()
    scene.run(0.1)
    assert scene.world.loop.progress.problem == "chunk_expired"
    assert scene.last.is_hold


def test_an_inference_that_hangs_is_held_by_the_watchdog_and_thrown_away(scene: Scene) -> None:
    """The loop sits inside it; when it comes back it goes on from a fresh observation."""
    scene.run(0.5)
    scene.world.engine.latency_s = 7.0
    discarded = scene.world.loop.progress.discarded
    seen: list[str] = []
    scene.world.meanwhile = lambda: seen.append(scene.world.loop.progress.problem)
    scene.run(3.0)
    assert set(scene.world.barks) == {LATE}
    assert LATE in seen
    held = next(command for command in scene.sent if command.is_hold)
    assert held.reason == LATE
    assert scene.world.loop.progress.discarded > discarded
    scene.world.engine.latency_s = FAST_S
    scene.run(1.0)
    assert not scene.last.is_hold
    assert scene.world.loop.late() == ""
    scene.well()


def test_a_model_that_became_slow_for_good_is_served_again(scene: Scene) -> None:
    scene.run(0.5)
    scene.world.engine.latency_s = 1.9
    scene.run(15.0)
    chunks = sum(not command.is_hold for command in scene.sent)
    scene.run(15.0)
    assert sum(not command.is_hold for command in scene.sent) > chunks
    scene.well()


def test_a_hang_before_the_first_chunk_is_said_and_nothing_is_published() -> None:
    scene = Scene(latency_s=HANGING_S + 1.0)
    scene.run(0.1)
    assert scene.world.barks == [LATE]
    assert scene.sent == []


def test_a_robot_past_its_soft_limit_is_led_to_the_edge_and_served() -> None:
    scene = Scene()
    scene.world.arm.position[0] = HIGH[0] + 0.15
    scene.world.arm.rest()
    scene.to(HOME).run(3.0)
    assert scene.sent[0].is_hold
    assert not scene.last.is_hold
    assert abs(scene.world.arm.position[0] - HOME[0]) < 0.3
    scene.well()


@pytest.mark.parametrize("limit", [LOW, HIGH], ids=["low", "high"])
def test_nothing_leaves_the_limits_at_their_edge(limit: Doubles) -> None:
    scene = Scene().to(limit + np.sign(limit) * 0.5).run(4.0)
    scene.world.camera = False
    scene.run(4.0)
    assert scene.last.is_hold
    scene.well()


def test_stamps_of_a_clock_that_is_behind_make_no_hold_expire() -> None:
    """R8: a hold begins when it arrives."""
    scene = Scene()
    scene.world.sensor_offset_ns = scene.world.clock.offset_ns - 80_000_000
    scene.run(0.4)
    for _ in range(15):
        scene.world.loop.stop()
        assert (scene.last.due_s > scene.world.clock.seconds - TINY_S).all()
        scene.run(0.2)
        scene.world.loop.resume()
        scene.judge.streaming = False
        scene.run(0.2)
    assert scene.world.buffer.lags.smallest_s()["state"] == pytest.approx(0.08, abs=0.02)


def test_another_instruction_begins_at_once_where_the_robot_is(scene: Scene) -> None:
    scene.to(HOME - 0.5)
    before = len(scene.sent)
    scene.world.loop.new_episode("place")
    scene.run(0.12)
    assert [command.is_hold for command in scene.sent[before:]] == [False]
    assert scene.world.loop.execution.episode_id == "place"
    scene.well()


def test_a_simulator_that_begins_again_leaves_nothing_of_before(scene: Scene) -> None:
    held = len(scene.sent)
    scene.world.loop.clock_jumped_back()
    assert len(scene.sent) == held, "the arm is somewhere else by now"
    assert scene.world.guard.commands.recall() is None
    assert not scene.run(0.3).last.is_hold


def test_what_is_over_is_followed_by_something_within_its_time(scene: Scene) -> None:
    """What the judge of the fuzz looks for, with nothing wrong and with everything."""
    scene.run(5.0)
    scene.world.camera = False
    scene.run(MAX_AGE_MS * 1e-3 + 2.5 + SILENT_S)
    scene.well()


def test_the_world_can_be_changed_under_a_guard_that_holds_back_nothing(scene: Scene) -> None:
    """The judge sees what a broken gate lets through."""
    scene.world.buffer.fault = lambda: None  # type: ignore[method-assign]
    scene.world.buffer._gate.joints = ()
    scene.world.buffer._gate.reset()
    scene.world.buffer._tolerance = PathTolerance((), 0.0)
    tracking = scene.world.guard.commands.tracking
    assert tracking is not None
    tracking[:] = 0.2
    scene.world.lie = LIES["zeros"]
    scene.run(3.0)
    assert any("leaps" in problem for problem in scene.judge.problems)
    assert replace(scene.last, reason="").reason == ""
