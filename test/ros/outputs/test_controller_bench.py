# SPDX-License-Identifier: Apache-2.0
"""The bench of simulated controllers that other tests drive: each obeys over DDS, and answers for its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import control_msgs_substitute
import pytest
from action_msgs.msg import GoalStatus
from controller_bench import Bench
from domains import free_domain
from geometry_msgs.msg import TwistStamped
from rcl_interfaces.srv import GetParameters
from rclpy.action import ActionClient
from rclpy.node import Node
from ros_world import Spinner, wait_for
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from reflex_ros.demo.controllers.gripper_controller import Finger, GripperOptions

JOINTS = {"a": 0.0, "b": 0.0, "c": 0.0, "finger": 0.04}


class Commander:
    """A node that commands the bench."""

    def __init__(self, domain: int) -> None:
        self.spinner = Spinner(domain)
        self.node = Node("commander", context=self.spinner.context)
        self.spinner.start(self.node)

    def publish(self, kind: type, topic: str, message: Any) -> None:
        publisher = self.node.create_publisher(kind, topic, 10)
        wait_for(publisher.get_subscription_count, f"a subscriber of {topic}")
        publisher.publish(message)

    def send(self, action_type: Any, action: str, command: dict[str, Any]) -> Any:
        goal = action_type.Goal()
        for name, value in command.items():
            setattr(goal.command, name, value)
        client = ActionClient(self.node, action_type, action)
        assert client.wait_for_server(60.0)

        async def sent() -> Any:
            return await client.send_goal_async(goal)

        return self.spinner.do(sent)

    def result(self, handle: Any) -> Any:
        async def got() -> Any:
            return await handle.get_result_async()

        return self.spinner.do(got)


@pytest.fixture
def domain() -> int:
    return free_domain()


@pytest.fixture
def bench(domain: int) -> Iterator[Bench]:
    with Bench(domain, JOINTS) as bench:
        yield bench


@pytest.fixture
def commander(domain: int) -> Iterator[Commander]:
    commander = Commander(domain)
    yield commander
    commander.spinner.close()


def test_a_trajectory_and_a_forward_controller_move_their_joints(bench: Bench, commander: Commander) -> None:
    arm = bench.trajectory_controller("arm_controller", ["b", "a"])
    bench.forward_controller("forward_controller", ["c"])
    point = JointTrajectoryPoint(positions=[1.0, -1.0])
    point.time_from_start.nanosec = 50_000_000
    commander.publish(JointTrajectory, "arm_controller/joint_trajectory", JointTrajectory(joint_names=["a", "b"], points=[point]))  # fmt: skip
    commander.publish(Float64MultiArray, "forward_controller/commands", Float64MultiArray(data=[0.5]))
    wait_for(lambda: bench.joints == {"a": 1.0, "b": -1.0, "c": 0.5, "finger": 0.04}, "the joints there")
    commander.publish(JointTrajectory, "arm_controller/joint_trajectory", JointTrajectory(joint_names=["a", "b"]))  # fmt: skip
    wait_for(lambda: arm.refused, "the refusal of a message without points")
    assert len(arm.followed) == 1


def test_a_velocity_controller_goes_on_until_it_is_commanded_otherwise(
    bench: Bench, commander: Commander
) -> None:
    bench.forward_controller("speeds", ["a"], "velocity")
    commander.publish(Float64MultiArray, "speeds/commands", Float64MultiArray(data=[2.0]))
    wait_for(lambda: bench.joints["a"] > 0.5, "the joint still moving after a quarter of a second")


@pytest.mark.parametrize("kind", ["GripperCommand", "ParallelGripperCommand"])
def test_a_gripper_of_either_kind_reaches_stalls_and_is_replaced(
    bench: Bench, commander: Commander, kind: str
) -> None:
    control_msgs_substitute.use()
    import control_msgs.action

    action_type = getattr(control_msgs.action, kind)
    hand = bench.gripper(
        "hand", "finger", action_type, GripperOptions(goal_tolerance=0.001, stall_timeout_s=0.2)
    )
    one = (lambda value: [value]) if kind.startswith("Parallel") else (lambda value: value)
    reached = commander.result(commander.send(action_type, "hand/gripper_cmd", {"position": one(0.01)}))
    assert (reached.status, reached.result.reached_goal) == (GoalStatus.STATUS_SUCCEEDED, True)
    bench.put_between(hand, Finger(0.01, 0.01, 0.04))  # it has got hold of something
    stalled = commander.result(commander.send(action_type, "hand/gripper_cmd", {"position": one(0.0)}))
    assert (stalled.status, stalled.result.stalled) == (GoalStatus.STATUS_ABORTED, True)
    first = commander.send(action_type, "hand/gripper_cmd", {"position": one(0.0)})
    commander.send(action_type, "hand/gripper_cmd", {"position": one(0.04)})
    assert commander.result(first).status == GoalStatus.STATUS_ABORTED
    wait_for(lambda: abs(bench.joints["finger"] - 0.04) < 0.001, "the newest goal reached")
    assert hand.goals == [0.01, 0.0, 0.0, 0.04]


def test_a_parallel_gripper_rejects_two_positions_and_is_held_where_it_is_on_cancel(
    bench: Bench, commander: Commander
) -> None:
    control_msgs_substitute.use()
    from control_msgs.action import ParallelGripperCommand

    hand = bench.gripper("hand", "finger", ParallelGripperCommand, speed=0.01)
    refused = commander.send(ParallelGripperCommand, "hand/gripper_cmd", {"position": [0.0, 0.0]})
    assert not refused.accepted
    handle = commander.send(ParallelGripperCommand, "hand/gripper_cmd", {"position": [0.0]})
    wait_for(lambda: bench.joints["finger"] < 0.04, "the finger moving")

    async def cancelled() -> Any:
        return await handle.cancel_goal_async()

    commander.spinner.do(cancelled)
    assert commander.result(handle).status == GoalStatus.STATUS_CANCELED
    assert hand.outcomes[-1].how == "cancelled"
    assert bench.joints["finger"] > 0.01


def test_a_base_stops_when_its_commands_do(bench: Bench, commander: Commander) -> None:
    base = bench.base("/base/cmd_vel", stamped=True)
    message = TwistStamped()
    message.header.frame_id, message.twist.linear.x = "base_link", 0.5
    commander.publish(TwistStamped, "/base/cmd_vel", message)
    wait_for(lambda: base.speed == (0.5, 0.0, 0.0), "the base driving")
    wait_for(lambda: base.speed == (0.0, 0.0, 0.0), "the base standing")
    assert base.frames == ["base_link"]


def test_each_controller_answers_for_its_parameters(bench: Bench, commander: Commander) -> None:
    bench.trajectory_controller("arm_controller", ["a", "b"])
    client = commander.node.create_client(GetParameters, "arm_controller/get_parameters")
    assert client.wait_for_service(60.0)

    async def answered() -> Any:
        return await client.call_async(
            GetParameters.Request(names=["joints", "interpolate_from_desired_state"])
        )

    joints, desired = commander.spinner.do(answered).values
    assert joints.string_array_value == ["a", "b"]
    assert desired.bool_value is False
