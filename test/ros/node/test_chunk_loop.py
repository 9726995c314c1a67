# SPDX-License-Identifier: Apache-2.0
"""The chunk loop on a clock that the test moves: the real guard and observation buffer, and an arm that follows what is sent.

benchmarks/robot_world.py is the world; benchmarks/robot_fuzz.py does the same at random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.robot_judge import HIGH, LOW, SILENT_S, Judge
from benchmarks.robot_world import HOME, HORIZON, MAX_AGE_MS, SPEED, Command, Doubles, Lie, World, truth
from reflex_core.errors import InferenceError, NotReadyError
from reflex_core.robot.path_tolerance import PathTolerance
from reflex_core.values import Floats, Request
from reflex_ros.node.chunk_loop import HANGING_S, LATE

FAST_S, SLOW_S = 0.05, 0.6


class Panic(BaseException):
    """What an extension written in Rust raises."""


class Scene:
    """A world that is judged, and everything that was sent."""

    def __init__(self, latency_s: float = FAST_S) -> None:
        self.judge = Judge()
        self.sent: list[Command] = []
        self.world = World(heard=self._heard, meanwhile=self.judge.look)
        self.judge.world = self.world
        self.world.engine.latency_s = latency_s

    def _heard(self, command: Command) -> None:
        self.judge.heard(command)
        self.sent.append(command)

    @property
    def progress(self) -> object:
        return self.world.loop.progress

    @property
    def last(self) -> Command:
        return self.sent[-1]

    def run(self, seconds: float) -> Scene:
        self.world.run(seconds)
        return self

    def to(self, target: Doubles) -> Scene:
        """Let the policy go there at 0.8 of the speed limits."""

        def model(request: Request) -> Floats:
            state = request.observation.state
            assert state is not None
            way = target - state
            ramp = np.arange(1, HORIZON + 1)[:, None] * 0.04 * SPEED
            return (state + np.minimum(ramp, np.abs(way)) * np.sign(way)).astype(np.float32)

        self.world.engine.model = model
        return self

    def well(self) -> None:
        assert self.judge.problems == []


@pytest.fixture
def scene() -> Scene:
    """A robot that is being moved."""
    return Scene().to(HOME + 0.5).run(0.4)


def offset(by: float) -> Lie:
    return lambda position, _: position + np.array([by, 0, 0, 0, 0, 0, 0])


def reads(value: float, joint: int = 0) -> Lie:
    def lie(position: Doubles, _: float) -> Doubles:
        return np.where(np.arange(7) == joint, value, position)

    return lie


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


def test_two_publishers_that_contradict_each_other_are_held_for_as_long_as_they_do(scene: Scene) -> None:
    scene.world.second_lie = LIES["zeros"]
    before = len(scene.sent)
    scene.run(8.0)
    assert [command.is_hold for command in scene.sent[before:]] == [True]
    scene.world.second_lie = None
    assert not scene.run(1.0).last.is_hold
    scene.well()


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
    scene.world.lie = LIES["nan"]
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
        assert (scene.last.due_s > scene.world.clock.seconds).all()
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
    assert scene.world.loop.episode_id == "place"
    scene.well()


def test_a_chunk_asked_for_before_the_stop_is_thrown_away() -> None:
    scene = Scene(SLOW_S).to(HOME + 0.5).run(1.0)
    scene.world.loop.restart()
    stops: list[Callable[[], object]] = [scene.world.loop.stop]
    scene.world.meanwhile = lambda: stops and stops.pop()() and None
    before = len(scene.sent)
    scene.run(3.0)
    assert [command.reason for command in scene.sent[before:]] == ["stopped"]


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
    scene.run(0.33)
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
