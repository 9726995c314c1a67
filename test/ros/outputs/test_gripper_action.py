# SPDX-License-Identifier: Apache-2.0
"""Grippers that are commanded by an action, over DDS: few goals, none waited for, and what became of them is reported."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import control_msgs_substitute
import numpy as np
import pytest
from action_msgs.srv import CancelGoal
from controller_bench import Bench
from output_scene import OutputScene, output_scene
from rclpy.task import Future
from ros_world import wait_for
from std_msgs.msg import Float64

from reflex_core.errors import ConfigurationError
from reflex_core.robot.gripper import End, at_the_ends
from reflex_core.robot.groups import GRIPPER, POSITION, GripperEnds, Group
from reflex_ros.demo.controllers.gripper_controller import Finger, GripperOptions

ACTION = "/hand/gripper_cmd"


def hand(kind: str = "gripper_command", **options: Any) -> Group:
    options = {"action": ACTION, "max_effort": 20.0} | options
    return Group("hand", (0,), ("finger",), GRIPPER, POSITION, kind, options, GripperEnds(0.04, 0.0))


def action_type(kind: str) -> Any:
    control_msgs_substitute.use()
    from control_msgs import action

    return action.GripperCommand if kind == "gripper_command" else action.ParallelGripperCommand


class Scene:
    """The output of one gripper, and its server, where there is one."""

    def __init__(self, scene: OutputScene, bench: Bench, kind: str) -> None:
        self.scene, self.bench, self._kind = scene, bench, action_type(kind)
        self.server: Any = None

    def serve(self, **how: Any) -> Any:
        self.server = self.bench.gripper("hand", "finger", self._kind, how.pop("options", None), **how)
        return self.server

    def served(self, **how: Any) -> Any:
        server = self.serve(**how)
        (output,) = [part.output for part in self.scene.outputs._parts]
        wait_for(output._client.server_is_ready, "the server is found")
        return server

    def wishes(self, *positions: float, dt_s: float = 0.05) -> None:
        self.scene.chunk([[position] for position in positions], dt_s)

    def reports(self, **expected: str) -> None:
        wait_for(
            lambda: expected.items() <= self.report.items(), f"{expected} is reported, not {self.report}"
        )

    @property
    def report(self) -> dict[str, object]:
        return self.scene.outputs.reports()["hand"]


@pytest.fixture(params=["gripper_command", "parallel_gripper"])
def kind(request: pytest.FixtureRequest) -> str:
    control_msgs_substitute.use()
    return str(request.param)


@pytest.fixture
def scene(kind: str) -> Iterator[Scene]:
    with output_scene(hand(kind)) as scene, Bench(scene.domain, {"finger": 0.04}) as bench:
        yield Scene(scene, bench, kind)


def test_a_gripper_gets_a_goal_where_the_wish_changes_with_the_effort_of_its_group(scene: Scene) -> None:
    server = scene.served()
    heard = scene.scene.hear(Float64, "/reflex/hand/goal")
    scene.wishes(*[0.04] * 4, *[0.0] * 10)
    wait_for(lambda: len(server.goals) == 2, "it opens and closes")
    assert server.goals == pytest.approx([0.04, 0.0])
    assert server.efforts == [20.0, 20.0]
    scene.reports(gripper="reached", goal="0")
    assert [message.data for _, message in heard] == pytest.approx([0.04, 0.0])  # for records
    scene.wishes(*[0.0] * 10)
    scene.wishes(*[0.04] * 10)
    wait_for(lambda: len(server.goals) == 3, "it opens again, and did not get the same goal twice")


def test_noise_is_one_goal_and_flips_are_five_a_second_at_most(scene: Scene) -> None:
    server = scene.served()
    noise = np.random.default_rng(1).uniform(-0.02, 0.02, 60) * 0.04
    scene.wishes(*(0.02 + noise), dt_s=0.02)
    wait_for(lambda: scene.report["gripper"] == "reached", "it goes to the middle")
    began_s = time.monotonic()
    scene.wishes(*[0.0, 0.04] * 10, 0.0, 0.0, 0.0, 0.0, 0.0)
    wait_for(
        lambda: scene.report.get("goal") == "0" and scene.report["gripper"] == "reached",
        "the newest wish wins",
    )
    took_s = time.monotonic() - began_s
    assert server.goals[0] == pytest.approx(0.02, abs=0.001)
    assert 1 < len(server.goals) <= 2 + took_s * 5 + 1


def test_noise_around_a_threshold_is_one_goal_until_it_is_left(scene: Scene) -> None:
    """The rows of ten seconds at 20 Hz, in four; the policy stage has moved each to an end of the range."""
    end = End(0, np.float32(0.0), np.float32(0.04), np.float32(0.02), False, np.float32(0.002), 0)
    rows = np.full((200, 1), 0.02, np.float32)
    rows[:, 0] += np.random.default_rng(4).uniform(-0.02, 0.02, 200) * 0.04
    rows[-10:] = 0.0
    server = scene.served()
    scene.wishes(*at_the_ends(rows, (end,), np.array([0.04], np.float32))[:, 0], dt_s=0.02)
    wait_for(lambda: 0.0 in server.goals, "it closes at the end")
    assert server.goals == pytest.approx([0.04, 0.0])


def test_a_grasp_is_a_stall_and_no_error_whatever_the_server_calls_it(scene: Scene) -> None:
    server = scene.served(options=GripperOptions(stall_timeout_s=0.1, goal_tolerance=0.001))
    scene.bench.put_between(server, Finger(0.04, 0.015, 0.04))  # an object of 15 mm
    scene.wishes(0.0, 0.0)
    scene.reports(gripper="stalled", position="0.015")
    assert "problem" not in scene.report
    scene.scene.hold([0.0])  # the goal is over: the object is kept
    scene.wishes(0.0, 0.0)
    scene.wishes(0.04, 0.04)
    wait_for(lambda: len(server.goals) == 2, "it opens")
    assert [outcome.how for outcome in server.outcomes][:1] == ["stalled"]


def test_a_hold_cancels_what_is_under_way_and_the_next_wish_is_sent_again(scene: Scene) -> None:
    server = scene.served(speed=0.01)
    scene.wishes(0.0, 0.0)
    scene.reports(gripper="moving")
    wait_for(lambda: server.goals, "it closes")
    scene.scene.hold([0.04])
    scene.reports(gripper="cancelled")
    wait_for(
        lambda: [outcome.how for outcome in server.outcomes] == ["cancelled"], "the server has cancelled it"
    )
    assert server.controller.finger.position > 0.01
    scene.wishes(0.0, 0.0)
    wait_for(lambda: len(server.goals) == 2, "the same wish is a goal again")
    scene.scene.outputs.flush(5.0)
    scene.scene.on_executor(scene.scene.outputs.disable)
    wait_for(
        lambda: server.outcomes[-1].how == "cancelled" and len(server.outcomes) == 2,
        "the end of the node too",
    )


def test_a_server_that_is_not_there_stops_nothing_and_gets_its_goal_when_it_comes(scene: Scene) -> None:
    scene.wishes(*[0.0] * 400)
    wait_for(
        lambda: "nothing serves the action /hand/gripper_cmd" in str(scene.report.get("problem")),
        "it is reported",
    )
    server = scene.served()
    wait_for(lambda: server.goals == [0.0], "it gets its goal")
    scene.reports(gripper="reached")
    assert "problem" not in scene.report


def test_a_server_that_comes_back_is_sent_the_goal_that_it_has_forgotten(scene: Scene) -> None:
    server = scene.served()
    scene.wishes(*[0.0] * 600)
    scene.reports(gripper="reached")
    server._server.destroy()
    wait_for(lambda: "has gone" in str(scene.report.get("problem")), "that it has gone is reported")
    server = scene.served()
    wait_for(lambda: server.goals == [0.0], "the next one gets the goal")
    scene.reports(gripper="reached")
    assert "problem" not in scene.report


def test_a_goal_that_is_rejected_is_reported_and_tried_again(scene: Scene) -> None:
    server = scene.serve()
    rejects, judge = [True], server._judge

    def judged(goal: Any) -> Any:
        from rclpy.action import GoalResponse

        return GoalResponse.REJECT if rejects[0] else judge(goal)

    server._server.register_goal_callback(judged)
    scene.wishes(*[0.0] * 400)
    wait_for(
        lambda: "rejected a goal: is its controller active?" in str(scene.report.get("problem")),
        "it is reported",
    )
    rejects[0] = False
    wait_for(lambda: server.goals == [0.0], "it is tried again")
    scene.reports(gripper="reached")


def test_a_goal_that_is_aborted_short_of_its_position_is_reported_and_tried_again(scene: Scene) -> None:
    server = scene.served(speed=0.001)
    scene.wishes(*[0.0] * 400)
    scene.reports(gripper="moving")
    wait_for(lambda: server.goals == [0.0], "it closes")

    async def aborts() -> None:
        server.controller._end("broken")

    scene.bench.spinner.do(aborts)
    wait_for(
        lambda: "aborted a goal that it had not reached" in str(scene.report.get("problem")), "it is reported"
    )
    wait_for(lambda: server.goals == [0.0, 0.0], "it is tried again")


def test_a_server_that_goes_while_the_gripper_moves_is_reported(scene: Scene) -> None:
    server = scene.served(speed=0.001)
    scene.wishes(*[0.0] * 400)
    scene.reports(gripper="moving")
    wait_for(lambda: server.goals, "it closes")

    async def gone() -> None:
        server._server.destroy()

    scene.bench.spinner.do(gone)
    wait_for(lambda: "nothing serves the action" in str(scene.report.get("problem")), "it is reported")
    assert scene.report["gripper"] == "unknown"


def test_a_hold_cancels_what_is_under_way_also_after_a_newer_goal_was_rejected(scene: Scene) -> None:
    from rclpy.action import GoalResponse

    server = scene.served(speed=0.002)
    scene.wishes(0.0, 0.0)
    wait_for(lambda: server.goals, "it closes")
    server._server.register_goal_callback(lambda _: GoalResponse.REJECT)
    scene.wishes(0.04, 0.04)
    scene.reports(gripper="moving", problem="/hand/gripper_cmd rejected a goal: is its controller active?")
    scene.scene.hold([0.04])
    scene.scene.outputs.flush(5.0)
    wait_for(lambda: [outcome.how for outcome in server.outcomes] == ["cancelled"], "the first is cancelled")
    scene.reports(gripper="cancelled")


def test_a_hold_cancels_what_is_under_way_while_a_newer_goal_is_not_answered_and_that_one_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer goals are on their way until after the hold."""

    server = scene.served(speed=0.002)
    scene.wishes(0.0, 0.0)
    wait_for(lambda: server.goals, "it closes")
    (output,) = [part.output for part in scene.scene.outputs._parts]
    send, on_the_way = output._client.send_goal_async, []

    def delayed(*goal: Any) -> Future:
        on_the_way.append((goal, Future(executor=scene.scene.node.executor)))
        return on_the_way[-1][1]

    monkeypatch.setattr(output._client, "send_goal_async", delayed)
    scene.wishes(0.04, 0.04)
    scene.reports(gripper="moving", problem="/hand/gripper_cmd has not answered a goal for 2 s")
    scene.scene.hold([0.04])
    scene.scene.outputs.flush(5.0)
    wait_for(lambda: [outcome.how for outcome in server.outcomes] == ["cancelled"], "the first is cancelled")
    goal, answer = on_the_way[0]
    scene.scene.on_executor(
        lambda: send(*goal).add_done_callback(lambda done: answer.set_result(done.result()))
    )
    wait_for(lambda: [outcome.how for outcome in server.outcomes] == ["cancelled"] * 2, "the second too")


def test_a_cancellation_that_is_refused_is_reported_and_asked_for_again(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    from rclpy.action import CancelResponse

    server = scene.served(speed=0.002)
    refused, cancel = [0], server._cancel

    def judged(_: Any) -> Any:
        refused[0] += 1
        return CancelResponse.REJECT

    server._server.register_cancel_callback(judged)
    scene.wishes(0.0, 0.0)
    wait_for(lambda: server.goals, "it closes")
    scene.reports(gripper="moving")
    scene.scene.hold([0.04])
    wait_for(lambda: "cancellations refused" in scene.report, "the refusal is reported")
    assert scene.report["gripper"] == "moving"
    assert str(scene.report["problem"]).startswith(
        "/hand/gripper_cmd refused to cancel a goal, and the gripper may still move: expected return code 0"
    )
    (output,) = [part.output for part in scene.scene.outputs._parts]
    output.flush(0.01)
    assert output._unsettled()
    scene.scene.on_executor(scene.scene.outputs.disable)  # nor is it given up where the node ends
    before, began_s = refused[0], time.monotonic()
    wait_for(lambda: refused[0] > before + 1, "it is asked for again")
    assert refused[0] <= before + 2 + (time.monotonic() - began_s) / 0.25
    server._server.register_cancel_callback(cancel)
    scene.scene.outputs.flush(5.0)
    wait_for(lambda: [outcome.how for outcome in server.outcomes] == ["cancelled"], "it is cancelled then")
    scene.reports(gripper="cancelled")
    assert "problem" not in scene.report
    assert "refused to cancel a goal" in caplog.text


def test_a_cancellation_that_comes_after_the_end_is_no_problem(scene: Scene) -> None:
    server = scene.served()
    scene.wishes(0.0, 0.0)
    scene.reports(gripper="reached")
    (output,) = [part.output for part in scene.scene.outputs._parts]
    for code in (CancelGoal.Response.ERROR_GOAL_TERMINATED, CancelGoal.Response.ERROR_UNKNOWN_GOAL_ID):
        answer = Future()
        answer.set_result(CancelGoal.Response(return_code=code))
        scene.scene.on_executor(partial(output._cancelled, 1, answer))
    assert scene.report["gripper"] == "reached"
    assert "problem" not in scene.report
    assert len(server.outcomes) == 1


def test_more_than_one_joint_is_refused(kind: str) -> None:
    two = replace(hand(kind), columns=(0, 1), names=("left", "right"))
    with pytest.raises(ConfigurationError, match="group 'hand' .* one joint, got 2"), output_scene(two):
        pass


def test_without_control_msgs_it_is_refused_with_how_to_get_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "control_msgs", None)
    with (
        pytest.raises(ConfigurationError, match="ros-\\$ROS_DISTRO-control-msgs.*gripper_topic"),
        output_scene(hand(kind)),
    ):
        pass
