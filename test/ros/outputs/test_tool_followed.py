# SPDX-License-Identifier: Apache-2.0
"""The node leads the tool of a simulated arm to the pose that a policy means, over DDS and the arm's own controllers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import control_msgs_substitute
import numpy as np
import pytest
import tool_robots as robots
from controller_bench import Bench
from ros_world import World, wait_for, world
from tool_controllers import JOINT_JOG, TWIST, PoseNode, ServoNode

from reflex_core.robot.rotations import matrix_of_axis_angle

MOST_OFF_M, MOST_OFF_DEG = 2e-3, 1.0
MOVED = np.array([0.06, -0.08, 0.05])
YAW = 0.3
INTERFACES = {
    "joint_trajectory": {"kind": "joint_trajectory", "topic": "/arm_controller/joint_trajectory"},
    "forward_command": {"kind": "forward_command", "topic": "/arm_controller/commands"},
    "servo_twist": {"kind": "servo_twist", "topic": "/servo_node/delta_twist_cmds", "frame": "base"},
    "servo_joint_jog": {"kind": "servo_joint_jog", "topic": "/servo_node/delta_joint_cmds"},
    "pose_crisp": {"kind": "pose", "topic": "/target_pose", "frame": "base"},
    "pose_fzi": {"kind": "pose", "topic": "/motion/target_frame", "frame": "base"},
}
HAND = {"kind": "parallel_gripper", "action": "/hand/gripper_cmd"}


def turned(goal: Any, about: list[float]) -> Any:
    goal[:3, 3] += MOVED
    goal[:3, :3] = matrix_of_axis_angle(np.array(about)) @ goal[:3, :3]
    return goal


def libero(path: Path) -> tuple[Path, Any]:
    """Steps from row to row, and the pose they lead to: LIBERO's tool is turned by YAW about the base's z in all."""
    home = robots.pose(robots.HOME)
    now = np.arctan2(home[1, 0], home[0, 0])
    goal = turned(home, [0.0, 0.0, YAW - now])
    return robots.libero(path, goal[:3, 3].tolist(), YAW), goal


def absolute(path: Path) -> tuple[Path, Any]:
    """Absolute poses with 6D rotations, and the one where they end: turned about all axes."""
    goal = turned(robots.pose(robots.HOME), [0.15, -0.2, 0.3])
    return robots.absolute(path, goal), goal


POLICIES: dict[str, Callable[[Path], tuple[Path, Any]]] = {"libero": libero, "absolute": absolute}


def controller_of(interface: str, bench: Bench) -> Any:
    """The controller of the arm that a robot interface is for."""
    from moveit_msgs.srv import ServoCommandType

    if interface == "joint_trajectory":
        return bench.trajectory_controller("arm_controller", robots.ARM)
    if interface == "forward_command":
        return bench.forward_controller("arm_controller", robots.ARM)
    if interface.startswith("servo"):
        return bench.servo(robots.TREE, robots.ARM, switchable=ServoCommandType)
    topic = INTERFACES[interface]["topic"]
    return bench.pose_controller(robots.TREE, robots.ARM, interface.removeprefix("pose_"), topic=topic)


@contextmanager
def scene(path: Path, interface: str, export: Path) -> Iterator[tuple[World, Bench]]:
    """A node that is not active yet, and the controllers of the arm and its gripper at HOME."""
    control_msgs_substitute.use()
    control_msgs_substitute.use(control_msgs_substitute.MOVEIT_MSGS)
    from control_msgs.action import ParallelGripperCommand

    config = robots.robot(path / "robot", INTERFACES[interface], HAND)
    with world(export_dir=str(export), custom_embodiment_config=str(config)) as found:
        found.robot.joints_on = False
        with Bench(found.domain, dict(zip(robots.JOINTS, robots.HOME, strict=True))) as bench:
            controller_of(interface, bench)
            bench.gripper("hand", robots.FINGER, ParallelGripperCommand)
            yield found, bench


def off(bench: Bench, goal: Any) -> tuple[float, float]:
    """How far the measured tool is from a pose: m and degrees."""
    return robots.apart(robots.pose([bench.joints[name] for name in robots.JOINTS]), goal)


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("name", POLICIES)
def test_the_tool_comes_to_the_pose_that_the_policy_means(tmp_path: Path, name: str, interface: str) -> None:
    export, goal = POLICIES[name](tmp_path / "export")
    with scene(tmp_path, interface, export) as (found, bench):
        assert off(bench, goal) > (0.1, 10.0)
        found.activate()

        def there() -> bool:
            metres, degrees = off(bench, goal)
            return metres < MOST_OFF_M and degrees < MOST_OFF_DEG

        wait_for(
            there,
            f"the tool is at its pose; off {off(bench, goal)}, holding {found.loop.progress.hold_reason}",
        )
        wait_for(lambda: bench.joints[robots.FINGER] > 0.039, "the gripper opens")
        chunks = len(found.robot.chunks)
        wait_for(lambda: len(found.robot.chunks) > chunks + 3, "it goes on")
        assert there()  # and it stays there
        assert not found.loop.progress.hold_reason
        arm = bench.controllers[0]
        if isinstance(arm, ServoNode):
            assert (arm.invalid, arm.ignored, arm.capped) == (0, 0, 0)
            assert arm.switches == [TWIST if interface == "servo_twist" else JOINT_JOG]
        if isinstance(arm, PoseNode):
            assert not arm.ignored


def test_a_pose_out_of_reach_holds_the_arm_where_it_is_and_says_so(tmp_path: Path) -> None:
    goal = robots.pose(robots.HOME)
    goal[0, 3] += 2.0
    with scene(tmp_path, "joint_trajectory", robots.absolute(tmp_path / "export", goal)) as (found, bench):
        found.activate()
        chunk = wait_for(lambda: found.robot.chunks and found.robot.chunks[-1], "a chunk")
        assert chunk.hold_reason == "pose_unreached"
        wait_for(lambda: found.robot.status.holding, "the status says so")
        arm = [bench.joints[name] for name in robots.ARM]
        np.testing.assert_allclose(arm, robots.HOME[:7], atol=1e-3)
