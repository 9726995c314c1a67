# SPDX-License-Identifier: Apache-2.0
"""--dry-run: nothing is commanded, what would be is shown, and a person may move the robot meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from grouped_robots import document
from lifecycle_msgs.msg import Transition
from loop_scene import Scene
from ros_world import HOME, JOINTS, World, wait_for, world
from servers import ExportDir
from trajectory_msgs.msg import JointTrajectory

from reflex_core.robot.groups import BASE, VELOCITY, Group
from reflex_ros.outputs.dry_run import topic_of_dry_run
from reflex_ros.sidecar.status_summary import status_summary

COMMANDS = ("/reflex/joint_trajectory", "/arm/joint_trajectory", "/cmd_vel")


def listen(scene: World, topic: str) -> list[JointTrajectory]:
    heard: list[JointTrajectory] = []
    scene.robot.node.create_subscription(JointTrajectory, topic, heard.append, 10)
    return heard


@pytest.fixture
def scene(export_dir: ExportDir) -> Iterator[World]:
    with world(export_dir=str(export_dir("calm")), embodiment="franka", dry_run=True) as found:
        yield found


def commands_of_the_node(scene: World) -> list[str]:
    """Return the topics with trajectories that the node publishes."""
    node = scene.robot.node
    return [
        topic
        for topic, types in node.get_topic_names_and_types()
        if "trajectory_msgs/msg/JointTrajectory" in types
        and "reflex" in {info.node_name for info in node.get_publishers_info_by_topic(topic)}
    ]


def test_nothing_is_ever_published_on_a_command_topic_and_what_would_be_is_shown(scene: World) -> None:
    shown = listen(scene, "reflex/dry_run/group_arm")
    scene.robot.node.create_publisher(JointTrajectory, "reflex/joint_trajectory", 10)  # someone else moves it
    scene.activate()
    robot = scene.robot
    for _ in range(3):
        robot.next_chunk()
    wait_for(lambda: len(shown) >= 3, "what would be commanded")
    assert list(shown[0].joint_names) == JOINTS
    wait_for(lambda: commands_of_the_node(scene), "the graph is known")
    assert commands_of_the_node(scene) == ["/reflex/dry_run/group_arm"]
    assert robot.call("stop").success
    assert robot.transition(Transition.TRANSITION_DEACTIVATE)
    assert robot.trajectories == []


def test_it_is_plain_that_it_is_a_dry_run(scene: World) -> None:
    scene.activate()
    scene.robot.next_chunk()
    found = wait_for(lambda: scene.robot.diagnostics.get("commands"), "the diagnostic")
    assert found.message.startswith("DRY RUN: no robot is commanded")
    wait_for(lambda: "dry_run: no robot is commanded" in scene.robot.status.problem, "the status")
    on_the_page = status_summary(scene.server.engine, scene.server._snapshot())
    assert on_the_page.notes[0] == "DRY RUN"
    assert on_the_page.sentence.startswith("No robot is commanded")


def test_a_person_may_move_the_robot_meanwhile(scene: World) -> None:
    scene.activate()
    scene.robot.next_chunk()
    for step in range(1, 41):
        scene.robot.positions = [HOME[0] + 0.02 * step, *HOME[1:]]
        if step % 8 == 0:
            scene.robot.next_chunk()
    chunk = scene.robot.next_chunk()
    wait_for(
        lambda: any(
            value.key == JOINTS[0] and value.value.endswith(": moved")
            for value in scene.robot.diagnostics["commands"].values
        ),
        "the diagnostic says that the joint has moved",
    )
    assert not scene.robot.status.holding
    assert scene.robot.status.holds_total == 0
    assert chunk.action_dim == 7


def test_a_robot_of_groups_needs_no_controller_and_shows_every_group(
    export_dir: ExportDir, tmp_path: Any
) -> None:
    ranges = [[rest - 2.0, rest + 2.0] for rest in HOME]
    robot = tmp_path / "rolling.json"
    robot.write_text(json.dumps(document(
        cameras=[{"name": "camera", "resolution": [640, 480], "fps": 30, "color_space": "rgb8"}], joint_names=JOINTS,
        action_space={"type": "continuous", "dim": 7, "ranges": ranges}, velocity_max=[None] * 7,
        normalization={"mean_action": [0] * 7, "std_action": [1] * 7, "mean_state": [0] * 7, "std_state": [1] * 7},
        groups=[
            {"name": "arm", "space": "joints", "joints": JOINTS[:5],
             "output": {"kind": "joint_trajectory", "topic": COMMANDS[1]}},
            {"name": "wrist", "space": "joints", "joints": JOINTS[5:], "output": {"kind": "forward_command", "topic": "/w"}},
        ],
    )))  # fmt: skip
    settings = {"custom_embodiment_config": str(robot), "controller_wait_s": 60.0, "dry_run": True}
    with world(export_dir=str(export_dir("calm")), **settings) as scene:
        arm, wrist = listen(scene, "reflex/dry_run/group_arm"), listen(scene, "reflex/dry_run/group_wrist")
        scene.activate()
        wait_for(lambda: arm and wrist, f"both groups: {scene.robot.status.problem}")
        assert list(arm[0].joint_names) == JOINTS[:5]
        assert list(wrist[0].joint_names) == JOINTS[5:]
        assert scene.robot.node.count_publishers(COMMANDS[1]) == 0
        assert scene.robot.node.count_publishers("/w") == 0


def test_after_a_chunk_of_a_dry_run_nothing_counts_as_commanded() -> None:
    scene = Scene()
    scene.world.loop._holds.dry_run = True
    scene.world.arm.following = False
    scene.run(1.0)
    assert scene.sent
    assert scene.world.guard.commands.recall() is None
    scene.world.arm.position = scene.world.arm.position + 1.0 * (np.arange(7) == 0)
    scene.run(1.5)
    moved = scene.world.arm.position
    last = scene.run(1.0)[-1]
    np.testing.assert_allclose(last.rows[-1], moved, atol=0.3)


def test_a_group_has_a_topic_whatever_it_is_called() -> None:
    base = Group("a base-1", (0,), ("linear.x",), BASE, VELOCITY)
    assert topic_of_dry_run(base) == "~/dry_run/group_a_base_1"
