# SPDX-License-Identifier: Apache-2.0
"""What a Servo node gets over DDS: velocities of the tool or of joints at every tick, zeros at a hold, and its type of command first."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import control_msgs_substitute as substitute
import numpy as np
import pytest
import tool_robots as robots
from geometry_msgs.msg import TwistStamped
from output_scene import OutputScene, output_scene, silent
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from ros_world import wait_for

from reflex_core.chunks.pull import PULL_PER_S, PULL_SHARE
from reflex_core.chunks.setpoints import REPEATS
from reflex_core.errors import ConfigurationError, EmbodimentError
from reflex_core.robot.groups import Group
from reflex_core.robot.presets import load_embodiment
from reflex_core.settings.table import settings_from
from reflex_ros.outputs import servo_mode
from reflex_ros.outputs.interfaces import with_defaults

TWISTS, JOGS = "/servo_node/delta_twist_cmds", "/servo_node/delta_joint_cmds"
SWITCH = "/servo_node/switch_command_type"
TWIST = {"kind": "servo_twist", "topic": TWISTS, "frame": "base"}
JOG = {"kind": "servo_joint_jog", "topic": JOGS}
HAND = {"kind": "gripper_topic", "topic": "/hand"}
HOME = robots.HOME[:7]
SPEED = 0.2  # rad/s of the first joint in `turning`


def arm(path: Path, output: dict[str, Any], **changes: Any) -> Group:
    """The group of the seven joints, as its file is read."""
    return load_embodiment(robots.robot(path / "robot", output, HAND, **changes)).groups[0]


def turning(rows: int = 30, dt_s: float = 0.1) -> list[list[float]]:
    """Rows of a policy: the first joint turns at SPEED."""
    return [[HOME[0] + SPEED * dt_s * (at + 1), *HOME[1:]] for at in range(rows)]


def at_home(scene: OutputScene) -> None:
    scene.measured = dict(zip(robots.ARM, HOME, strict=True))


def following(scene: OutputScene) -> None:
    """The robot follows without a lag: measured where a perfect arm would be."""
    began_s = time.monotonic()

    def measured(names: Any) -> Any:
        q = np.array(HOME, np.float32)
        q[0] += SPEED * (time.monotonic() - began_s)
        return q

    scene.outputs.measured = measured


def values(message: Any) -> list[float]:
    """A message's numbers."""
    if not isinstance(message, TwistStamped):
        return list(message.velocities)
    linear, angular = message.twist.linear, message.twist.angular
    return [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]


def all_values(heard: list[tuple[float, Any]]) -> Any:
    return np.array([values(message) for _, message in heard])


def kind_of(output: dict[str, Any]) -> tuple[type, str]:
    if output["kind"] == "servo_twist":
        return TwistStamped, TWISTS
    substitute.use()
    from control_msgs.msg import JointJog

    return JointJog, JOGS


@pytest.fixture(autouse=True)
def _messages() -> None:
    substitute.use()
    substitute.use(substitute.MOVEIT_MSGS)


BOTH = pytest.mark.parametrize("output", [TWIST, JOG], ids=["twist", "joint_jog"])


@BOTH
def test_commands_are_stamped_with_now_and_come_thirty_times_a_second_from_a_policy_of_ten(
    tmp_path: Path, output: dict[str, Any]
) -> None:
    with output_scene(arm(tmp_path, output | {"rate_hz": 50.0})) as scene:
        heard = scene.hear(*kind_of(output))
        ages: list[float] = []

        def noted(_topic: str, message: Any) -> None:
            if hasattr(message, "header") and message.header.stamp.sec:
                stamp = message.header.stamp
                now = scene.node.get_clock().now().nanoseconds
                ages.append((now - stamp.sec * 10**9 - stamp.nanosec) * 1e-9)

        at_home(scene)
        scene.outputs.recorder_hook = type("Hook", (), {"sent": staticmethod(noted)})()  # type: ignore[assignment]
        scene.chunk(turning(), dt_s=0.1, age_s=0.5)
        wait_for(lambda: len(heard) > 60, "it moves")
        times = np.array([at for at, _ in heard])
        assert (len(times) - 1) / (times[-1] - times[0]) >= 30.0
        assert np.median(ages) < 0.01  # not the half second of the observation
        stamps = [message.header.stamp.sec + message.header.stamp.nanosec * 1e-9 for _, message in heard]
        assert np.all(np.diff(stamps) > 0.0)


UNITS = [
    (TWIST, {}, [0.4] * 3 + [0.8] * 3),
    (TWIST, {"scale_linear": 0.8, "scale_rotational": 1.6}, [0.8] * 3 + [1.6] * 3),
    (TWIST, {"command_in_type": "speed_units"}, [1.0] * 6),
    (JOG, {}, [0.5] * 7),
    (JOG, {"scale_joint": 0.25}, [0.25] * 7),
    (JOG, {"command_in_type": "speed_units"}, [1.0] * 7),
]


@pytest.mark.parametrize(("output", "options", "unit"), UNITS)
def test_units_are_servos_by_numbers(
    tmp_path: Path, output: dict[str, Any], options: dict[str, Any], unit: list[float]
) -> None:
    group = arm(tmp_path, output | options)
    with output_scene(group) as scene:
        heard = scene.hear(*kind_of(output))
        following(scene)
        scene.chunk(turning(), dt_s=0.1)
        wait_for(lambda: len(heard) > 120, "it moves")
        found = np.median(all_values(heard)[60:], axis=0) * unit
        if output is JOG:
            np.testing.assert_allclose(found, [SPEED, 0, 0, 0, 0, 0, 0], atol=0.02)
            assert heard[0][1].joint_names == list(group.names)
            assert not heard[0][1].displacements
            return
        x, y, z = robots.pose(robots.HOME)[:3, 3]
        turned = (
            SPEED * 1.0
        )  # about a radian later the tool has turned about the base's z, as far as it is away
        assert np.hypot(*found[:2]) == pytest.approx(SPEED * np.hypot(x, y), abs=0.01)
        assert found[2] == pytest.approx(0.0, abs=0.01)
        np.testing.assert_allclose(found[3:], [0.0, 0.0, turned], atol=0.02)
        assert {message.header.frame_id for _, message in heard} == {"base"}
        assert z > 0.1


@BOTH
def test_a_hold_is_zeros_once_and_then_silence(tmp_path: Path, output: dict[str, Any]) -> None:
    with output_scene(arm(tmp_path, output)) as scene:
        heard = scene.hear(*kind_of(output))
        at_home(scene)
        scene.chunk(turning(), dt_s=0.1)
        wait_for(lambda: len(heard) > 40, "it moves")
        last = [HOME[0] + 0.05, *HOME[1:]]
        scene.hold(last, last)
        wait_for(lambda: silent(heard), "silence")
        found = all_values(heard)
        zeros = ~found.any(axis=1)
        assert zeros[-1]
        assert 1 <= zeros[30:].sum() <= 4  # once, and repeated as one message may be lost
        assert found[20:40].any(axis=1).all()


@BOTH
def test_the_end_of_the_node_and_of_the_rows_is_zeros(tmp_path: Path, output: dict[str, Any]) -> None:
    with output_scene(arm(tmp_path, output)) as scene:
        heard = scene.hear(*kind_of(output))
        at_home(scene)
        scene.chunk(turning(rows=3), dt_s=0.1)
        wait_for(lambda: heard and silent(heard), "the rows are over")
        assert not all_values(heard)[-1].any()
        scene.chunk(turning(), dt_s=0.1)
        before = len(heard)
        wait_for(lambda: len(heard) > before + 30, "it moves again")
        scene.on_executor(scene.outputs.disable)
        wait_for(lambda: silent(heard), "nothing more")
        assert not all_values(heard)[-1].any()


@BOTH
def test_no_command_is_ever_nan_and_what_moved_is_stopped(tmp_path: Path, output: dict[str, Any]) -> None:
    with output_scene(arm(tmp_path, output)) as scene:
        heard = scene.hear(*kind_of(output))
        at_home(scene)
        scene.chunk(turning(), dt_s=0.1)
        wait_for(lambda: len(heard) > 30, "it moves")
        broken = turning()
        broken[2][3] = float("nan")
        scene.chunk(broken, dt_s=0.1)
        wait_for(lambda: silent(heard), "nothing more")
        assert np.isfinite(all_values(heard)).all()
        assert not all_values(heard)[-REPEATS:].any(), "as one message may be lost"
        scene.outputs.measured = lambda names: np.full(len(names), np.nan, np.float32)
        scene.chunk(turning(), dt_s=0.1)
        wait_for(lambda: silent(heard), "it ends")
        assert np.isfinite(all_values(heard)).all()


@BOTH
def test_what_has_added_up_is_undone_by_a_bounded_pull_and_not_while_it_holds(
    tmp_path: Path, output: dict[str, Any]
) -> None:
    rows = [[HOME[0], *HOME[1:]]] * 40
    with output_scene(arm(tmp_path, output | {"command_in_type": "speed_units"})) as scene:
        heard = scene.hear(*kind_of(output))
        at_home(scene)
        scene.chunk(rows, dt_s=0.1)
        wait_for(lambda: len(heard) > 30, "it stays")
        scene.measured["joint1"] = HOME[0] - 0.005  # a little behind
        before = len(heard)
        wait_for(lambda: len(heard) > before + 20, "it is pulled")
        found = all_values(heard)[-5:]
        turned = found[:, 5] if output is TWIST else found[:, 0]
        np.testing.assert_allclose(turned, PULL_PER_S * 0.005, rtol=0.05)
        scene.measured["joint1"] = HOME[0] - 1.0  # a long way
        before = len(heard)
        wait_for(lambda: len(heard) > before + 20, "it is pulled")
        found = all_values(heard)[-5:]
        if output is TWIST:
            assert np.linalg.norm(found[:, :3], axis=1).max() <= PULL_SHARE * 0.4 + 1e-9
            assert np.linalg.norm(found[:, 3:], axis=1).max() <= PULL_SHARE * 0.8 + 1e-9
        else:
            assert np.abs(found).max() <= PULL_SHARE * 0.5 + 1e-9
        assert found.any()
        before = len(heard)
        scene.hold([HOME[0], *HOME[1:]], [HOME[0], *HOME[1:]])
        wait_for(lambda: silent(heard), "it holds")
        np.testing.assert_allclose(all_values(heard)[before + 2 :], 0.0, atol=1e-9)


@BOTH
def test_what_servo_would_cut_is_slowed_down_on_its_path_and_counted(
    tmp_path: Path, output: dict[str, Any]
) -> None:
    few = {"scale_linear": 0.05, "scale_rotational": 0.8} if output is TWIST else {"scale_joint": 0.1}
    with output_scene(arm(tmp_path, output | few)) as scene:
        heard = scene.hear(*kind_of(output))
        following(scene)
        scene.chunk(turning(60), dt_s=0.1)
        wait_for(lambda: len(heard) > 80, "it moves")
        found = all_values(heard)[50:80]
        assert np.abs(found).max() <= 1.0 + 1e-9
        if output is TWIST:
            np.testing.assert_allclose(np.linalg.norm(found[:, :3], axis=1), 1.0, atol=1e-6)
            assert (found[:, 5] < SPEED / 0.8).all()  # turned as much slower
        (report,) = scene.outputs.reports().values()
        assert int(str(report["slowed"])) > 20


def serve_switch(scene: OutputScene, *, succeeds: bool = True, answered: Future | None = None) -> list[int]:
    from moveit_msgs.srv import ServoCommandType

    requests: list[int] = []

    async def switch(request: Any, response: Any) -> Any:
        requests.append(request.command_type)
        if answered is not None:
            await answered
        response.success = succeeds
        return response

    # an answer that is waited for keeps nothing else from being heard
    scene.outsider.create_service(ServoCommandType, SWITCH, switch, callback_group=ReentrantCallbackGroup())
    (client,) = [found for found in scene.node.clients if found.srv_name == SWITCH]
    wait_for(client.service_is_ready, "it is found")
    return requests


def report_of(scene: OutputScene) -> dict[str, object]:
    (report,) = scene.outputs.reports().values()
    return report


@BOTH
def test_the_type_of_command_is_switched_before_anything_is_sent(
    tmp_path: Path, output: dict[str, Any]
) -> None:
    with output_scene(arm(tmp_path, output)) as scene:
        scene.on_executor(scene.outputs.disable)
        heard = scene.hear(*kind_of(output))
        requests = serve_switch(scene)
        scene.on_executor(scene.outputs.enable)
        at_home(scene)
        scene.chunk(turning(), dt_s=0.1)
        wait_for(lambda: heard, "it moves")
        assert requests == [1 if output is TWIST else 0]
        wait_for(lambda: str(report_of(scene)["command type"]).endswith(", switched"), "it is known")
        assert "problem" not in report_of(scene)


def test_a_servo_that_comes_later_is_switched_and_meanwhile_diagnostics_show_it(tmp_path: Path) -> None:
    with output_scene(arm(tmp_path, TWIST)) as scene:
        heard = scene.hear(TwistStamped, TWISTS)
        at_home(scene)
        scene.chunk(turning(), dt_s=0.1)
        wait_for(lambda: heard, "commands come, as older releases of Servo switch nothing")
        assert f"nothing serves {SWITCH}" in str(report_of(scene)["problem"])
        requests = serve_switch(scene)
        wait_for(lambda: requests == [1], "it is switched")
        wait_for(lambda: "problem" not in report_of(scene), "it is no problem any more")


def test_a_servo_that_answers_late_is_asked_once_and_keeps_commands_waiting_for_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servo_mode, "AGAIN_S", 60.0)
    with output_scene(arm(tmp_path, TWIST)) as scene:
        scene.on_executor(scene.outputs.disable)
        heard, answered = scene.hear(TwistStamped, TWISTS), Future()
        requests = serve_switch(scene, answered=answered)
        scene.on_executor(scene.outputs.enable)
        at_home(scene)
        scene.chunk(turning(), dt_s=0.1)
        wait_for(lambda: "has not answered within 1 s" in str(report_of(scene).get("problem")), "it is said")
        scene.chunk(turning(), dt_s=0.1)
        wait_for(lambda: heard, "commands come")
        began = len(heard)
        wait_for(lambda: len(heard) > began + 30, "and go on")
        assert requests == [1]
        answered.set_result(None)
        wait_for(lambda: str(report_of(scene)["command type"]).endswith(", switched"), "it is taken")
        assert "problem" not in report_of(scene)


def test_a_servo_that_refuses_the_type_is_a_problem_in_diagnostics(tmp_path: Path) -> None:
    with output_scene(arm(tmp_path, TWIST)) as scene:
        requests = serve_switch(scene, succeeds=False)
        wait_for(lambda: requests, "it is requested")
        wait_for(lambda: "did not switch to twist" in str(report_of(scene).get("problem")), "it is a problem")


def test_without_moveit_msgs_commands_are_sent_and_the_launch_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "moveit_msgs", None)
    monkeypatch.setitem(sys.modules, "moveit_msgs.srv", None)
    with output_scene(arm(tmp_path, TWIST)) as scene:
        heard = scene.hear(TwistStamped, TWISTS)
        at_home(scene)
        scene.chunk(turning(), dt_s=0.1)
        wait_for(lambda: heard, "it moves")
        assert "moveit_msgs is not installed" in str(report_of(scene)["problem"])
        assert "have the launch file switch Servo to twist (command_type: 1)" in caplog.text


def test_without_control_msgs_joint_jog_is_refused_with_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "control_msgs", None)
    monkeypatch.setitem(sys.modules, "control_msgs.msg", None)
    with (
        pytest.raises(ConfigurationError, match="control_msgs, which is not installed .*apt install"),
        output_scene(arm(tmp_path, JOG)),
    ):
        pass


@BOTH
def test_a_rate_at_which_servo_would_halt_is_refused(tmp_path: Path, output: dict[str, Any]) -> None:
    slow = settings_from({"control_rate_hz": 15.0})
    group = with_defaults(arm(tmp_path, output), slow)
    with (
        pytest.raises(ConfigurationError, match=r"at 15 Hz a command is 67 ms old .* at least 30 Hz"),
        output_scene(group),
    ):
        pass
    impatient = arm(tmp_path / "two", output | {"incoming_command_timeout_s": 0.03, "rate_hz": 50.0})
    with pytest.raises(ConfigurationError, match="at least 66.6667 Hz"), output_scene(impatient):
        pass


REFUSED = {
    "no frame": ({key: TWIST[key] for key in ("kind", "topic")}, {}, r"output\.frame' must be the name of a frame, got null"),
    "the tool's frame": (TWIST | {"frame": robots.TOOL}, {}, r"output\.frame' must be the robot's base, .*, got \"link8\""),
    "no kinematics": (TWIST, {"kinematics": None}, r"output\.kind' must be one that commands joints, as the file has no 'kinematics'"),
    "less than 30 Hz": (TWIST | {"rate_hz": 20.0}, {}, r"rate_hz' must be a number from 30 to 250 Hz"),
    "another unit": (JOG | {"command_in_type": "percent"}, {}, r"command_in_type' must be one of unitless, speed_units"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_servo_cannot_be_sent_is_refused_when_the_file_is_read(tmp_path: Path, name: str) -> None:
    output, changes, sentence = REFUSED[name]
    with pytest.raises(EmbodimentError, match=sentence):
        arm(tmp_path, output, **changes)


def test_a_group_that_lacks_a_joint_of_the_tool_is_refused(tmp_path: Path) -> None:
    groups = [
        {"name": "arm", "space": "joints", "joints": robots.ARM[1:], "output": TWIST},
        {"name": "rest", "space": "joints", "joints": ["joint1"], "output": {"kind": "joint_trajectory"}},
        {"name": "hand", "space": "gripper", "joints": [robots.FINGER], "gripper": {"open": 0.04, "closed": 0.0},
            "output": HAND},
    ]  # fmt: skip
    with pytest.raises(EmbodimentError, match=r"of a group with joint1 as well, which moves the tool"):
        arm(tmp_path, TWIST, groups=groups)


def test_a_robot_without_groups_has_no_frame_and_no_tool() -> None:
    alone = Group("", (0, 1), ("j1", "j2"), output="servo_twist")
    with (
        pytest.raises(
            ConfigurationError, match="servo_twist needs a group of joints in an embodiment of schema v2"
        ),
        output_scene(alone),
    ):
        pass
    with (
        pytest.raises(ConfigurationError, match="servo_joint_jog needs a group of joints"),
        output_scene(replace(alone, output="servo_joint_jog")),
    ):
        pass


def test_an_arm_of_some_columns_moves_as_the_whole_robot_does(tmp_path: Path) -> None:
    group = arm(tmp_path, TWIST)
    assert group.arm is not None
    q = np.array(robots.HOME)
    velocity = np.random.default_rng(4).normal(size=8)
    np.testing.assert_allclose(group.arm.pose(q[:7]).position, robots.pose(q)[:3, 3], atol=1e-12)
    ahead, back = robots.pose(q + 1e-6 * velocity), robots.pose(q - 1e-6 * velocity)
    np.testing.assert_allclose(
        group.arm.twist(q[:7], velocity[:7])[:3], (ahead - back)[:3, 3] / 2e-6, atol=1e-6
    )


def test_another_node_that_commands_servo_is_found(tmp_path: Path) -> None:
    with output_scene(arm(tmp_path, TWIST)) as scene:
        rival: Node = scene.outsider
        rival.create_publisher(TwistStamped, TWISTS, 1)
        (channel,) = scene.outputs.channels
        wait_for(lambda: len(channel.commanders(scene.node)) == 2, "both are seen")
