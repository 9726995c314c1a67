# SPDX-License-Identifier: Apache-2.0
"""Two policies must never command one robot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import control_msgs_substitute
import leading_robots as robots
import pytest
from controller_bench import Bench
from rclpy.action import ActionClient
from rclpy.node import Node
from reflex_ros.msg import ActionChunk
from ros_world import Spinner, wait_for, world
from servers import ExportDir
from trajectory_msgs.msg import JointTrajectory

from reflex_ros.graph.other_policies import other_policies
from reflex_ros.node.node import ReflexNode
from reflex_ros.outputs.channels import Channel

TRAJECTORY = "/reflex/joint_trajectory"
ERROR = b"\x02"


def settings(export_dir: ExportDir) -> dict[str, Any]:
    return {
        "export_dir": str(export_dir("calm")),
        "embodiment": "franka",
        "device": "cpu",
        "intra_op_threads": 1,
    }


@contextmanager
def another(domain: int, values: dict[str, Any]) -> Iterator[tuple[ReflexNode, Spinner]]:
    """A second `reflex serve` in the same ROS domain, not started yet."""
    spinner = Spinner(domain)
    server = ReflexNode(values | {"http": False, "controller_wait_s": 0.0}, context=spinner.context)
    spinner.start(server.node)
    try:
        yield server, spinner
    finally:
        spinner.do(server.finish)
        spinner.close()
        server.destroy()


def test_a_second_policy_for_the_same_robot_refuses_to_become_active(export_dir: ExportDir) -> None:
    values = settings(export_dir)
    with world(**values) as scene:
        scene.activate()
        scene.robot.next_chunk()
        with another(scene.domain, values) as (second, spinner):
            wait_for(
                lambda: second.node.get_publishers_info_by_topic(TRAJECTORY), "the second one sees the first"
            )
            assert not spinner.do(second.start)
            assert "/reflex commands this robot already, on /reflex/joint_trajectory" in second.node.refusal
            assert second.node.state == "inactive"
            assert second.engine.state == "inactive"
        scene.robot.next_chunk()  # the first one goes on
        assert not scene.robot.status.stopped


def test_a_policy_that_comes_later_stops_the_one_that_runs(export_dir: ExportDir) -> None:
    """Such as a bag that is played: it brings chunks and trajectories of its own."""
    with world(**settings(export_dir)) as scene:
        scene.activate()
        scene.robot.next_chunk()
        node = scene.robot.node
        late = [
            node.create_publisher(JointTrajectory, TRAJECTORY, 1),
            node.create_publisher(ActionChunk, "/reflex/action_chunk", 1),
        ]
        wait_for(lambda: scene.robot.status.stopped, "it stopped")
        assert scene.robot.status.hold_reason == "stopped"
        assert "/robot commands it too" in scene.robot.diagnosed("commands", ERROR).message
        for publisher in late:
            node.destroy_publisher(publisher)
        wait_for(lambda: not other_policies(scene.server.node, [Channel("", TRAJECTORY)]), "it has gone")
        assert scene.robot.call("resume").success
        scene.robot.next_chunk()


@pytest.mark.parametrize("group", ["arm", "hand"])
def test_a_policy_that_commands_one_group_of_several_stops_all_and_is_named_with_that_group(
    tmp_path: Path, group: str
) -> None:
    control_msgs_substitute.use()
    from control_msgs.action import ParallelGripperCommand

    address = {"arm": "/arm_controller/joint_trajectory", "hand": "/hand/gripper_cmd"}
    groups = [
        robots.joints("arm", ["a"], topic=address["arm"]),
        robots.gripper("hand", "finger", "parallel_gripper", action=address["hand"]),
    ]
    columns = {"a": robots.steadily(0.01), "finger": [0.04] * robots.ROWS}
    counted = [
        robots.RELATIVE | {"columns": ["a"]},
        {"columns": ["finger"], "mode": "absolute", "unit": "m", "gripper": robots.GRIPPER},
    ]
    export = robots.leading(tmp_path / "export", columns, counted)
    config = robots.embodiment(tmp_path / "robot.json", groups)
    with world(export_dir=str(export), custom_embodiment_config=str(config)) as scene:
        scene.robot.joints_on = False
        with Bench(scene.domain, dict.fromkeys(columns, 0.0)) as bench:
            bench.trajectory_controller("arm_controller", ["a"])
            hand = bench.gripper("hand", "finger", ParallelGripperCommand, speed=0.001)
            scene.activate()
            wait_for(lambda: bench.joints["a"] > 0.1 and hand.goals, "both follow")
            other = Node("other", context=scene.robot.spinner.context)
            other.create_publisher(ActionChunk, "/other/action_chunk", 1)
            if group == "arm":
                other.create_publisher(JointTrajectory, address["arm"], 1)
            else:
                ActionClient(other, ParallelGripperCommand, address["hand"])
            message = scene.robot.diagnosed("commands", ERROR).message
            assert f"/other commands it too, on {address[group]};" in message
            assert scene.loop.stopped
            wait_for(
                lambda: [outcome.how for outcome in hand.outcomes] == ["cancelled"], "the gripper is held"
            )
            other.destroy_node()


def test_what_people_publish_by_hand_is_not_a_policy(export_dir: ExportDir) -> None:
    with world(**settings(export_dir)) as scene:
        scene.robot.node.create_publisher(JointTrajectory, TRAJECTORY, 1)
        seen = scene.server.node.get_publishers_info_by_topic
        wait_for(lambda: any(info.node_name == "robot" for info in seen(TRAJECTORY)), "it is seen")
        scene.activate()
        scene.robot.next_chunk()


def test_two_robots_of_one_network_do_not_mind_each_other(export_dir: ExportDir) -> None:
    values = settings(export_dir)
    with world(**values) as scene:
        scene.activate()
        spinner = Spinner(scene.domain)
        server = ReflexNode(
            values | {"http": False, "controller_wait_s": 0.0}, context=spinner.context, namespace="left"
        )
        spinner.start(server.node)
        try:
            wait_for(
                lambda: ("reflex", "/") in server.node.get_node_names_and_namespaces(), "they know each other"
            )
            assert spinner.do(server.start), server.node.refusal
            assert other_policies(server.node, [Channel("", "/left/reflex/joint_trajectory")]) == []
        finally:
            spinner.do(server.finish)
            spinner.close()
            server.destroy()
