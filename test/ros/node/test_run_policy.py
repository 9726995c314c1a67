# SPDX-License-Identifier: Apache-2.0
"""~/run_policy over DDS: a policy is called as a skill, and whatever ends a goal, the robot holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from action_msgs.msg import GoalStatus
from lifecycle_msgs.msg import Transition
from reflex_ros.action import RunPolicy
from reflex_ros.msg import ActionChunk
from ros_world import BEYOND, HOME, JOINTS, World, wait_for, world
from servers import ExportDir
from skills import Result, Skills

ABORTED, CANCELED, SUCCEEDED = (
    GoalStatus.STATUS_ABORTED,
    GoalStatus.STATUS_CANCELED,
    GoalStatus.STATUS_SUCCEEDED,
)
HOLD, POLICY = ActionChunk.SOURCE_HOLD, ActionChunk.SOURCE_POLICY


def franka(export: object, **settings: Any) -> dict[str, Any]:
    return {"export_dir": str(export), "embodiment": "franka", "robot_id": "cell-9"} | settings


@pytest.fixture
def scene(export_dir: ExportDir) -> Iterator[World]:
    with world(**franka(export_dir("calm"))) as found:
        found.activate(instruction="")
        yield found


@pytest.fixture
def skills(scene: World) -> Skills:
    return Skills(scene.robot)


def held(scene: World, since: int) -> ActionChunk:
    """The first hold after so many chunks."""
    return scene.robot.next_chunk(HOLD, since)


def ended_goals(scene: World, reason: str) -> float:
    return float(scene.server.engine.metrics.goals.labels(reason)._value.get())


def test_a_goal_gives_the_instruction_begins_an_episode_and_succeeds_when_its_time_is_up(
    scene: World, skills: Skills
) -> None:
    run = skills.run(instruction="reach the red cube", max_duration_s=1.5, episode_id="pick-1")
    assert run.accepted
    chunk = scene.robot.next_chunk(POLICY, 0)
    assert (chunk.episode_id, chunk.chunk_id) == ("pick-1", 0)
    wait_for(lambda: scene.robot.status.instruction == "reach the red cube", "status shows it")
    status, reason, message = run.ended()
    assert (status, reason) == (SUCCEEDED, Result.TERMINATION_TIME_LIMIT)
    assert "1.5 s of the goal are over" in message
    result = run.result().result
    assert result.episode_id == "pick-1"
    assert result.model_version.startswith("pi0-mono@")
    assert result.chunks >= 1
    assert (result.errors, result.fallbacks) == (0, 0)
    assert 1.5 <= result.duration_s < 3.0
    assert held(scene, 0).hold_reason == "goal_ended"
    wait_for(lambda: scene.robot.status.stopped, "it stays stopped")
    assert scene.server._snapshot().awaits_goal, "the page says so"
    assert scene.robot.status.problem == "goal_ended: send a goal to ~/run_policy, or call ~/resume"
    assert ended_goals(scene, "time_limit") == 1


def test_feedback_comes_ten_times_a_second_and_says_where_the_robot_is_in_its_chunk(
    scene: World, skills: Skills
) -> None:
    run = skills.run(instruction="reach the red cube")
    scene.robot.next_chunk(POLICY, 0)
    wait_for(lambda: run.feedback and run.feedback[-1].chunks, "feedback of a chunk")
    first, count = run.feedback[-1], len(run.feedback)
    assert isinstance(first, RunPolicy.Feedback)
    assert (first.source, first.hold_reason, first.problem) == (POLICY, "", "")
    assert 0 < first.queue_depth <= 50
    assert 0.0 < first.queue_remaining_s <= 2.5
    assert first.latency_ms > 0
    last = run.fed(count + 5)
    assert 0.05 < (last.elapsed_s - first.elapsed_s) / (len(run.feedback) - count) < 1.0
    run.cancel()
    assert run.ended()[0] == CANCELED
    assert len(run.feedback) - count >= 5


def test_after_a_goal_the_robot_holds_until_the_next_one_or_until_it_is_resumed(
    scene: World, skills: Skills
) -> None:
    run = skills.run(instruction="reach the red cube")
    scene.robot.next_chunk(POLICY, 0)
    assert run.cancel()[0]
    hold = held(scene, 0)
    assert hold.hold_reason == "goal_ended"
    wait_for(lambda: scene.robot.status.stopped, "status says stopped")
    seen = len(scene.robot.chunks)
    again = skills.run(instruction="reach the blue ball")
    chunk = scene.robot.next_chunk(POLICY, seen)
    assert chunk.chunk_id == 0
    wait_for(lambda: scene.robot.status.instruction == "reach the blue ball", "status shows it")
    again.cancel()
    assert again.ended()[:2] == (CANCELED, Result.TERMINATION_CANCELED)
    seen = len(scene.robot.chunks)
    assert scene.robot.call("resume").success
    scene.robot.next_chunk(POLICY, seen)
    assert not again.cancel()[0], "it has ended already"


def test_a_cancel_is_answered_and_the_arm_held_while_an_inference_runs(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm_burning"))) as scene:
        scene.activate(instruction="")
        skills = Skills(scene.robot)
        run = skills.run(instruction="reach the red cube")
        scene.robot.next_chunk(POLICY, 0)
        before = scene.server.engine.metrics.in_flight
        scene.robot.positions = list(BEYOND)
        wait_for(lambda: sum(sample.value for sample in before.collect()[0].samples) > 0, "an inference runs")
        wait_for(lambda: scene.loop._monotonic_ns() - scene.loop._beat_ns > 300_000_000, "it takes long")
        seen = len(scene.robot.chunks)
        accepted, seconds = run.cancel()
        assert accepted
        assert run.ended()[:2] == (CANCELED, Result.TERMINATION_CANCELED)
        for _ in range(4):  # a machine under load is slow now and then
            if seconds >= 0.1:
                again = skills.run(instruction="reach the red cube")
                seconds = again.cancel()[1]
                assert again.ended()[0] == CANCELED
        assert seconds < 0.1
        assert held(scene, seen).hold_reason == "goal_ended"
        assert scene.loop._monotonic_ns() - scene.loop._beat_ns > 300_000_000, "the inference still runs"


def test_a_newer_goal_takes_over_without_a_hold_between(scene: World, skills: Skills) -> None:
    first = skills.run(instruction="reach the red cube")
    scene.robot.next_chunk(POLICY, 0)
    seen = len(scene.robot.chunks)
    second = skills.run(instruction="reach the blue ball")
    assert first.ended()[:2] == (ABORTED, Result.TERMINATION_PREEMPTED)
    scene.robot.next_chunk(POLICY, seen)
    assert all(chunk.source == POLICY for chunk in scene.robot.chunks[seen:])
    assert not second.done
    assert first.result().result.episode_id != scene.robot.chunks[-1].episode_id
    second.cancel()
    assert second.ended()[0] == CANCELED
    assert (ended_goals(scene, "preempted"), ended_goals(scene, "canceled")) == (1, 1)


def test_a_stop_aborts_the_goal_and_the_next_one_is_aborted_until_a_person_resumes(
    scene: World, skills: Skills
) -> None:
    run = skills.run(instruction="reach the red cube")
    scene.robot.next_chunk(POLICY, 0)
    assert scene.robot.call("stop").success
    status, reason, message = run.ended()
    assert (status, reason) == (ABORTED, Result.TERMINATION_STOPPED)
    assert "~/resume" in message
    seen = len(scene.robot.chunks)
    refused = skills.run(instruction="reach the blue ball")
    assert refused.ended()[:2] == (ABORTED, Result.TERMINATION_STOPPED)
    assert scene.server._assignment.instruction == "reach the red cube"
    assert [chunk.source for chunk in scene.robot.chunks[seen:] if chunk.source != HOLD] == []
    assert scene.robot.call("resume").success
    scene.robot.next_chunk(POLICY, seen)


def test_a_stop_while_no_goal_runs_is_a_persons_and_no_goal_undoes_it(scene: World, skills: Skills) -> None:
    run = skills.run(instruction="reach the red cube")
    scene.robot.next_chunk(POLICY, 0)
    run.cancel()
    assert run.ended()[0] == CANCELED
    assert scene.robot.call("stop").success
    assert skills.run(instruction="reach the red cube").ended()[:2] == (ABORTED, Result.TERMINATION_STOPPED)


def test_deactivating_aborts_the_goal_before_the_transition_ends(scene: World, skills: Skills) -> None:
    run = skills.run(instruction="reach the red cube")
    scene.robot.next_chunk(POLICY, 0)
    assert scene.robot.transition(Transition.TRANSITION_DEACTIVATE)
    assert run.ended()[:2] == (ABORTED, Result.TERMINATION_DEACTIVATED)
    assert held(scene, 0).source == HOLD
    assert not skills.run(instruction="reach the red cube").accepted, "inactive"


def test_the_instruction_of_an_aborted_goal_is_not_followed_when_the_node_is_activated_again(
    scene: World, skills: Skills
) -> None:
    run = skills.run(instruction="reach the red cube")
    scene.robot.next_chunk(POLICY, 0)
    assert scene.robot.transition(Transition.TRANSITION_DEACTIVATE)
    assert run.ended()[0] == ABORTED
    seen = len(scene.robot.chunks)
    assert scene.robot.transition(Transition.TRANSITION_ACTIVATE)
    wait_for(lambda: scene.robot.status.problem.startswith("awaiting_goal: "), "it waits for a goal")
    assert scene.robot.chunks[seen:] == []
    assert scene.robot.call("resume").success
    scene.robot.next_chunk(POLICY, seen)


def test_a_node_that_awaits_a_goal_commands_nothing_before_it(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm"), await_goal=True)) as scene:
        scene.activate(instruction="reach the green bowl")
        skills = Skills(scene.robot)
        says = "awaiting_goal: send a goal to ~/run_policy, or call ~/resume"
        wait_for(lambda: scene.robot.status.problem == says, "status says so")
        wait_for(
            lambda: scene.robot.status.instruction == "reach the green bowl",
            "an instruction alone moves nothing",
        )
        assert scene.robot.diagnosed("observations", b"\x00").message == says
        assert scene.robot.chunks == []
        run = skills.run(instruction="reach the red cube")
        assert scene.robot.next_chunk(POLICY, 0).chunk_id == 0
        run.cancel()
        assert run.ended()[0] == CANCELED


def test_a_goal_is_rejected_while_the_node_is_not_active(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm"))) as scene:
        skills = Skills(scene.robot)
        assert not skills.run(instruction="reach the red cube").accepted
        assert scene.robot.transition(Transition.TRANSITION_CONFIGURE)
        assert not skills.run(instruction="reach the red cube").accepted


def test_a_guard_that_trips_aborts_the_goal(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm_nan"), max_consecutive_crashes=0)) as scene:
        scene.activate(instruction="")
        skills = Skills(scene.robot)
        run = skills.run(instruction="reach the red cube")
        scene.robot.next_chunk(POLICY, 0)
        scene.robot.positions = list(BEYOND)
        status, reason, message = run.ended()
        assert (status, reason) == (ABORTED, Result.TERMINATION_GUARD_TRIPPED)
        assert "~/reset_guard" in message
        assert run.result().result.holds >= 1
        again = skills.run(instruction="reach the red cube")
        assert again.ended()[:2] == (ABORTED, Result.TERMINATION_GUARD_TRIPPED)


def test_an_open_breaker_aborts_the_goal_and_one_after_the_cooldown_runs(export_dir: ExportDir) -> None:
    with world(
        **franka(export_dir("calm_raise"), max_consecutive_crashes=2, breaker_cooldown_s=0.5)
    ) as scene:
        scene.activate(instruction="")
        skills = Skills(scene.robot)
        run = skills.run(instruction="reach the red cube")
        scene.robot.next_chunk(POLICY, 0)
        scene.robot.positions = list(BEYOND)
        status, reason, message = run.ended()
        assert (status, reason) == (ABORTED, Result.TERMINATION_BREAKER_OPEN)
        assert "failed 2 times in a row" in message
        assert run.result().result.errors >= 2
        scene.robot.positions = list(HOME)
        wait_for(lambda: scene.server.engine.loaded.first.breaker.probe_due, "the cooldown is over")
        wait_for(lambda: abs(scene.buffer.believed(JOINTS)[0][0] - HOME[0]) < 1e-6, "the node measures it")
        seen = len(scene.robot.chunks)
        again = skills.run(instruction="reach the red cube", max_duration_s=60.0)
        scene.robot.next_chunk(POLICY, seen)
        again.cancel()
        assert again.ended()[0] == CANCELED


@pytest.mark.parametrize("message", ["instruction", "episode", "new_episode"])
def test_another_instruction_or_episode_aborts_the_goal(scene: World, skills: Skills, message: str) -> None:
    run = skills.run(instruction="reach the red cube")
    scene.robot.next_chunk(POLICY, 0)
    if message == "instruction":
        scene.robot.say("reach the green bowl")
    elif message == "episode":
        scene.robot.begin("another")
    else:
        assert scene.robot.call("new_episode").success
    assert run.ended()[:2] == (ABORTED, Result.TERMINATION_SUPERSEDED)
    wait_for(lambda: scene.robot.status.hold_reason == "goal_ended", "the robot holds")


def test_what_was_published_before_the_goal_and_comes_late_changes_nothing(
    scene: World, skills: Skills
) -> None:
    run = skills.run(instruction="reach the red cube", episode_id="mine")
    assignment = scene.server._assignment
    assignment.instruct("an old wish", assignment._goal_ns - 1)
    assignment.begin_episode("an old episode", assignment._goal_ns - 1)
    assert (assignment.instruction, assignment.episode_id) == ("reach the red cube", "mine")
    assert not run.done
    run.cancel()
    assert run.ended()[0] == CANCELED


@pytest.mark.parametrize(
    "goal",
    [
        {"max_duration_s": -1.0},
        {"max_duration_s": float("nan")},
        {"max_duration_s": float("inf")},
        {"instruction": "x" * 1001},
        {"instruction": ""},
        {"policy": "another"},
        {"episode_id": "two\nlines"},
    ],
    ids=str,
)
def test_a_goal_that_cannot_be_is_rejected_and_the_log_says_why(
    scene: World, skills: Skills, goal: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert not skills.run(**{"instruction": "reach the red cube"} | goal).accepted
    assert "goal of ~/run_policy rejected: " in capfd.readouterr().err
    assert scene.robot.status.instruction == ""


def test_the_served_policy_may_be_named_by_its_id_or_version(scene: World, skills: Skills) -> None:
    loaded = scene.server.engine.loaded
    assert loaded is not None
    export = loaded.policy.export
    for name in (export.model_id, export.model_version):
        run = skills.run(instruction="reach the red cube", policy=name)
        assert run.accepted
        run.cancel()
        assert run.ended()[0] == CANCELED


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_is_gone_aborts_the_goal(scene: World, skills: Skills) -> None:
    run = skills.run(instruction="reach the red cube")
    scene.robot.next_chunk(POLICY, 0)
    scene.loop.cycle = lambda: (_ for _ in ()).throw(SystemExit)  # type: ignore[method-assign]
    status, reason, message = run.ended()
    assert (status, reason) == (ABORTED, Result.TERMINATION_FAILED)
    assert "restart the node" in message
