# SPDX-License-Identifier: Apache-2.0
"""Several groups: each gets its columns of one command, and none is served before its controller is there."""

from __future__ import annotations

import control_msgs_substitute
import numpy as np
import pytest
from controller_bench import Bench
from output_scene import output_scene
from ros_world import wait_for
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import GRIPPER, JOINTS, POSITION, GripperEnds, Group
from reflex_ros.outputs.channels import Channel, absent, await_receivers

ENDS = GripperEnds(0.04, 0.0)


def arm(side: str, first: int) -> Group:
    names = tuple(f"{side}_{number}" for number in range(7))
    return Group(f"{side} arm", tuple(range(first, first + 7)), names, JOINTS, POSITION, "joint_trajectory",
        {"topic": f"/{side}_arm_controller/joint_trajectory"},
    )  # fmt: skip


def hand(side: str, column: int, kind: str) -> Group:
    return Group(f"{side} hand", (column,), (f"{side}_finger",), GRIPPER, POSITION, kind,
        {"action": f"/{side}_hand/gripper_cmd"}, ENDS,
    )  # fmt: skip


def test_two_arms_and_two_grippers_follow_one_chunk_with_one_stamp() -> None:
    control_msgs_substitute.use()
    from control_msgs.action import GripperCommand, ParallelGripperCommand

    groups = (
        arm("left", 0), hand("left", 7, "parallel_gripper"), arm("right", 8), hand("right", 15, "gripper_command"),
    )  # fmt: skip
    joints = {name: 0.0 for group in groups for name in group.names}
    with output_scene(*groups) as scene, Bench(scene.domain, joints) as bench:
        arms = [
            bench.trajectory_controller(f"{side}_arm_controller", arm(side, 0).names)
            for side in ("left", "right")
        ]
        hands = [
            bench.gripper("left_hand", "left_finger", ParallelGripperCommand),
            bench.gripper("right_hand", "right_finger", GripperCommand),
        ]
        await_receivers(scene.node, scene.outputs.channels, 60.0)
        row = [0.01 * number for number in range(16)]
        row[7], row[15] = 0.04, 0.02
        scene.chunk([row] * 4)
        wait_for(
            lambda: all(each.followed for each in arms) and all(each.goals for each in hands),
            "all are commanded",
        )
        left, right = (each.followed[0] for each in arms)
        assert left.header.stamp == right.header.stamp
        np.testing.assert_allclose(left.points[-1].positions, row[:7], atol=1e-6)
        np.testing.assert_allclose(right.points[-1].positions, row[8:15], atol=1e-6)
        assert [each.goals[0] for each in hands] == pytest.approx([0.04, 0.02])
        assert not any(each.refused for each in arms)


def test_a_group_without_a_controller_is_named_and_the_one_group_of_a_robot_is_not() -> None:
    control_msgs_substitute.use()
    with output_scene(arm("left", 0), hand("left", 7, "gripper_command")) as scene:
        heard = scene.hear(JointTrajectory, "/left_arm_controller/joint_trajectory")
        lacks = ["group 'left hand': nothing serves the action /left_hand/gripper_cmd"]
        assert absent(scene.node, scene.outputs.channels) == lacks
        with pytest.raises(
            ConfigurationError, match=r"group 'left hand'.*\(0.1 s waited\).*controller_wait_s"
        ):
            await_receivers(scene.node, scene.outputs.channels, 0.1)
        await_receivers(scene.node, scene.outputs.channels, 0.0)
        await_receivers(scene.node, [Channel("", "/absent/joint_trajectory")], 0.1)
        assert heard == []


def test_what_fails_for_one_group_keeps_no_other_from_its_command(caplog: pytest.LogCaptureFixture) -> None:
    groups = [
        Group(name, (column,), (f"{name}_joint",), JOINTS, POSITION, "forward_command", {"topic": f"/{name}/commands"})
        for column, name in enumerate(("left", "right"))
    ]  # fmt: skip
    with output_scene(*groups) as scene:
        heard = scene.hear(Float64MultiArray, "/right/commands")
        scene.measured = {"right_joint": 0.0}

        def failing(_: object) -> None:
            raise RuntimeError("no way")

        scene.outputs._parts[0].output.send = failing  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="no way"):
            scene.chunk([[0.1, 0.2]])
        wait_for(lambda: heard and heard[-1][1].data[0] == pytest.approx(0.2), "the other one goes")
        assert "group 'left' was not commanded" in caplog.text


def test_a_group_that_cannot_be_commanded_leaves_nothing_on_the_node() -> None:
    right = Group("right", (1,), ("r",), JOINTS, "velocity", "forward_command", {"topic": "/right/commands"})
    left = Group("left", (0,), ("l",), JOINTS, POSITION, "forward_command", {"topic": "/left/commands"})
    with output_scene(left) as scene:
        from reflex_ros.outputs.interfaces import output_maker
        from reflex_ros.outputs.outputs import Outputs

        before = len(list(scene.node.publishers))
        with pytest.raises(ConfigurationError, match="group 'right'"):
            Outputs(scene.node, "r", [left, right], lambda group: output_maker(group.output))
        assert len(list(scene.node.publishers)) == before


def test_two_groups_that_end_at_one_topic_are_refused_however_each_writes_it() -> None:
    left = Group("left", (0,), ("l",), JOINTS, POSITION, "forward_command", {"topic": "/commands"})
    right = Group("right", (1,), ("r",), JOINTS, POSITION, "forward_command", {"topic": "commands"})
    with output_scene(left) as scene:
        from reflex_ros.outputs.interfaces import output_maker
        from reflex_ros.outputs.outputs import Outputs

        before = len(list(scene.node.publishers))
        with pytest.raises(ConfigurationError, match="groups 'left' and 'right' both command by /commands"):
            Outputs(scene.node, "r", [left, right], lambda group: output_maker(group.output))
        assert len(list(scene.node.publishers)) == before
