# SPDX-License-Identifier: Apache-2.0
"""What a controller of poses gets over DDS: where the tool should be at every tick, a unit quaternion, and the held pose at a hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tool_robots as robots
from geometry_msgs.msg import PoseStamped
from output_scene import OutputScene, output_scene, silent
from ros_world import wait_for

from reflex_core.chunks.first_motion import moving
from reflex_core.chunks.setpoints import REPEATS
from reflex_core.errors import ConfigurationError, EmbodimentError
from reflex_core.robot.groups import Group
from reflex_core.robot.presets import load_embodiment
from reflex_core.robot.rotations import matrix_of_quaternion

TOPIC = "/target_pose"
POSE = {"kind": "pose", "topic": TOPIC, "frame": "base"}
HAND = {"kind": "gripper_topic", "topic": "/hand"}
HOME = robots.HOME[:7]


def arm(path: Path, output: dict[str, Any] = POSE, **changes: Any) -> Group:
    return load_embodiment(robots.robot(path / "robot", output, HAND, **changes)).groups[0]


def numbers(message: PoseStamped) -> list[float]:
    at, about = message.pose.position, message.pose.orientation
    return [at.x, at.y, at.z, about.x, about.y, about.z, about.w]


def poses(heard: list[tuple[float, PoseStamped]]) -> Any:
    return np.array([numbers(message) for _, message in heard])


def at_home(scene: OutputScene) -> None:
    scene.measured = dict(zip(robots.ARM, HOME, strict=True))


def off(found: Any, joints: list[float]) -> tuple[float, float]:
    """How far a message is from where these joints have the tool."""
    made = np.eye(4)
    made[:3, 3], made[:3, :3] = found[:3], matrix_of_quaternion(found[3:])
    return robots.apart(made, robots.pose([*joints, 0.0]))


def test_every_tick_is_where_the_tool_is_on_the_motion_and_a_hold_is_the_held_pose(tmp_path: Path) -> None:
    goal = [one + 0.2 for one in HOME]
    with output_scene(arm(tmp_path)) as scene:
        heard = scene.hear(PoseStamped, TOPIC)
        at_home(scene)
        scene.chunk([[one + 0.05 * (at + 1) for one in HOME] for at in range(4)] + [goal] * 3, dt_s=0.1)
        wait_for(lambda: heard and silent(heard), "it has gone there")
        found = poses(heard)
        assert max(off(found[0], HOME)) < 0.01  # led from where it is
        assert max(off(found[-1], goal)) < 1e-3
        assert np.linalg.norm(np.diff(found[:, :3], axis=0), axis=1).max() < 0.02
        np.testing.assert_array_equal(found[-REPEATS:], [found[-1]] * REPEATS)
        assert {message.header.frame_id for _, message in heard} == {"base"}
        before = len(heard)
        held = [one - 0.01 for one in goal]
        scene.hold(goal, held)
        wait_for(lambda: len(heard) > before and silent(heard), "it holds")
        found = poses(heard)[before:]
        np.testing.assert_allclose(found[-REPEATS:], [found[-1]] * REPEATS, atol=1e-12)
        assert max(off(found[-1], held)) < 1e-3


def test_quaternions_have_length_one_and_never_change_their_sign(tmp_path: Path) -> None:
    with output_scene(arm(tmp_path)) as scene:
        heard = scene.hear(PoseStamped, TOPIC)
        at_home(scene)
        wide = [
            [HOME[0] + 0.25 * at, *HOME[1:6], HOME[6] - 0.15 * at] for at in range(10)
        ]  # w changes its sign
        scene.chunk(wide, dt_s=0.2)
        wait_for(lambda: heard and silent(heard), "it has gone there")
        about = poses(heard)[:, 3:]
        np.testing.assert_allclose(np.linalg.norm(about, axis=1), 1.0, atol=1e-12)
        assert np.abs(np.diff(about, axis=0)).max() < 0.05
        assert about[:, 3].min() < -1e-3 or np.abs(about).max() <= 1.0


def test_no_pose_is_ever_nan_and_commands_are_stamped_with_now(tmp_path: Path) -> None:
    with output_scene(arm(tmp_path)) as scene:
        heard = scene.hear(PoseStamped, TOPIC)
        at_home(scene)
        scene.chunk([HOME] * 20, dt_s=0.1, age_s=0.3)
        wait_for(lambda: len(heard) > 10, "it stays")
        scene.chunk([[float("nan")] * 7] * 5, dt_s=0.1)
        wait_for(lambda: silent(heard), "nothing more")
        assert np.isfinite(poses(heard)).all()
        now = scene.node.get_clock().now().nanoseconds * 1e-9
        stamps = [message.header.stamp.sec + message.header.stamp.nanosec * 1e-9 for _, message in heard]
        assert now - stamps[0] < 5.0
        assert np.diff(stamps).min() > 0.0


def test_a_second_publisher_is_a_problem_as_crisp_follows_none_of_two(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with output_scene(arm(tmp_path)) as scene:
        assert len([each for each in scene.node.publishers if each.topic_name == TOPIC]) == 1
        assert "problem" not in next(iter(scene.outputs.reports().values()))
        rival = scene.outsider.create_publisher(PoseStamped, TOPIC, 1)

        def problem() -> str:
            (report,) = scene.outputs.reports().values()
            return str(report.get("problem", ""))

        wait_for(lambda: "/target_pose has 2 publishers" in problem(), "it is a problem")
        wait_for(lambda: "/controllers" in problem(), "it has said its name")
        scene.on_executor(scene.outputs.disable)
        scene.on_executor(scene.outputs.enable)
        assert "2 publishers" in caplog.text
        scene.outsider.destroy_publisher(rival)
        wait_for(lambda: not problem(), "it is none any more")


def test_a_node_keeps_one_message_for_who_comes_late(tmp_path: Path) -> None:
    with output_scene(arm(tmp_path)) as scene:
        (publisher,) = [each for each in scene.node.publishers if each.topic_name == TOPIC]
        assert publisher.qos_profile.depth == 1


REFUSED = {
    "no frame": ({"kind": "pose", "topic": TOPIC}, {}, r"output\.frame' must be the name of a frame, got null"),
    "no topic": ({"kind": "pose", "frame": "base"}, {}, r"output\.topic' must be a ROS name"),
    "no kinematics": (POSE, {"kinematics": None}, r"output\.kind' must be one that commands joints, as the file has no 'kinematics'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_pose_without_frame_topic_or_tool_is_refused_when_the_file_is_read(
    tmp_path: Path, name: str
) -> None:
    output, changes, sentence = REFUSED[name]
    with pytest.raises(EmbodimentError, match=sentence):
        arm(tmp_path, output, **changes)


def test_a_robot_without_groups_is_not_commanded_by_poses() -> None:
    with (
        pytest.raises(ConfigurationError, match="pose needs a group of joints in an embodiment of schema v2"),
        output_scene(Group("", (0, 1), ("j1", "j2"), output="pose")),
    ):
        pass


def test_joints_behind_a_controller_of_the_tool_are_not_tried_one_by_one(tmp_path: Path) -> None:
    assert moving((arm(tmp_path),)) == ()
