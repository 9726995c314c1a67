# SPDX-License-Identifier: Apache-2.0
"""TwistStamped or JointJog, one per tick: MoveIt Servo, which integrates velocities and stops by itself where none come.

What adds up, as each velocity counts until the next one comes, is undone by a bounded pull towards where the robot should be.
A hold brakes along its motion, ends in zeros, and then there is silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import TwistStamped

from reflex_core.chunks.course import Row
from reflex_core.chunks.interpolation import Doubles
from reflex_core.chunks.pull import PULL_PER_S, PULL_SHARE, slowed, towards
from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import POSITION, Group
from reflex_core.robot.kinematics.arm import Arm, away
from reflex_core.robot.output_options import LEAST_SERVO_HZ, SPEED_UNITS, UNITLESS
from reflex_ros.outputs.base import Along, MessageOf, Publish
from reflex_ros.outputs.servo_mode import JOINT_JOG, TWIST, ServoMode
from reflex_ros.outputs.streaming import StreamOutput

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

RATE_HZ = 100.0
# Servo's own defaults
SCALE_LINEAR, SCALE_ROTATIONAL, SCALE_JOINT = 0.4, 0.8, 0.5  # m/s, rad/s, rad/s
TIMEOUT_S = 0.1
IN_TIME = 2.0  # messages in that time, so that a late one does not stop the arm
LINEAR, ANGULAR = slice(0, 3), slice(3, 6)


def servo_twist(node: LifecycleNode, publish: Publish, group: Group) -> StreamOutput:
    """Return the output: the velocity of the tool along the axes of the base, from the Jacobian of the motion at the tick.

    Raises ConfigurationError for a group whose arm or frame is not known, and for a rate at which Servo would halt.
    """
    arm, frame = require_arm(group)
    mode = _mode(node, group, TWIST)
    scales = (
        float(group.options.get("scale_linear", SCALE_LINEAR)),
        float(group.options.get("scale_rotational", SCALE_ROTATIONAL)),
    )
    unit = np.repeat(scales, 3) if _unitless(group) else np.ones(6)

    def message_of(row: Row, along: Along) -> TwistStamped:
        wanted = _twist(arm, np.array(row), along, scales)
        over = max(
            float(np.linalg.norm(wanted[part])) / scale
            for part, scale in zip((LINEAR, ANGULAR), scales, strict=True)
        )
        mode.slowed += over > 1.0
        message = TwistStamped()
        message.header.frame_id, message.header.stamp = frame, node.get_clock().now().to_msg()
        linear, angular = message.twist.linear, message.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = (slowed(wanted, over) / unit).tolist()
        return message

    return _output(node, publish, group, TwistStamped, mode, message_of)


def servo_joint_jog(node: LifecycleNode, publish: Publish, group: Group) -> StreamOutput:
    """Return the output: the velocities of the joints at the tick.

    Raises ConfigurationError without control_msgs, for what is no group of joints, and for a rate at which Servo would halt.
    """
    kind = _joint_jog()
    if group.commands != POSITION or "topic" not in group.options:
        raise _unfit(group, "a 'topic'")
    mode = _mode(node, group, JOINT_JOG)
    scale = float(group.options.get("scale_joint", SCALE_JOINT))
    unit, most = (scale, scale) if _unitless(group) else (1.0, np.inf)

    def message_of(row: Row, along: Along) -> Any:
        wanted, here = along.velocity(), along.where()
        if here is not None:
            wanted = wanted + towards(np.subtract(row, here), PULL_PER_S, PULL_SHARE * scale)
        over = float((np.abs(wanted) / np.minimum(along.fastest, most)).max())
        mode.slowed += over > 1.0
        message = kind(joint_names=list(group.names), velocities=(slowed(wanted, over) / unit).tolist())
        message.header.stamp = node.get_clock().now().to_msg()
        return message

    return _output(node, publish, group, kind, mode, message_of)


def require_arm(group: Group) -> tuple[Arm, str]:
    """Return the arm of a group that is commanded by its tool, and the frame that its messages name.

    Raises ConfigurationError: only an embodiment's groups have both.
    """
    if group.arm is None or "frame" not in group.options or "topic" not in group.options:
        raise _unfit(group, "'topic', 'frame' and 'kinematics'")
    return group.arm, str(group.options["frame"])


def _unfit(group: Group, lacks: str) -> ConfigurationError:
    who = f"group '{group.name}'" if group.name else "a robot without groups"
    return ConfigurationError(
        f"output {group.output} needs a group of joints in an embodiment of schema v2 that gives {lacks}, got {who} that commands"
        f" {group.commands}",
        "bad-output",
    )


def _unitless(group: Group) -> bool:
    return bool(group.options.get("command_in_type", UNITLESS) != SPEED_UNITS)


def _twist(arm: Arm, row: Doubles, along: Along, scales: tuple[float, float]) -> Doubles:
    """Return (6,) m/s and rad/s: of the motion, and the pull towards where the tool should be."""
    twist = arm.twist(row, along.velocity())
    here = along.where()
    if here is not None:
        gap = away(arm.pose(here), arm.pose(row))
        pulls = [
            towards(gap[part], PULL_PER_S, PULL_SHARE * scale)
            for part, scale in zip((LINEAR, ANGULAR), scales, strict=True)
        ]
        twist = twist + np.concatenate(pulls)
    return twist


def _joint_jog() -> Any:
    """Return control_msgs/msg/JointJog, which is imported where a robot needs it: no ROS wheel brings it."""
    try:
        from control_msgs.msg import JointJog
    except ImportError as error:
        raise ConfigurationError(
            "output servo_joint_jog needs the ROS package control_msgs, which is not installed and not on PyPI: install it"
            " (apt install ros-$ROS_DISTRO-control-msgs) and source ROS, or command the tool by servo_twist",
            "no-control-msgs",
        ) from error
    return JointJog


def _mode(node: LifecycleNode, group: Group, kind: int) -> ServoMode:
    """Return what switches Servo. Raises ConfigurationError for a rate at which it would halt."""
    rate_hz = float(group.options.get("rate_hz", RATE_HZ))
    timeout_s = float(group.options.get("incoming_command_timeout_s", TIMEOUT_S))
    least_hz = max(IN_TIME / timeout_s, LEAST_SERVO_HZ)
    if rate_hz < least_hz:
        raise ConfigurationError(
            f"group '{group.name}': at {rate_hz:g} Hz a command is {1e3 / rate_hz:.0f} ms old when the next one comes, and Servo halts"
            f" the arm where none has come for {1e3 * timeout_s:g} ms (its incoming_command_timeout): send at least {least_hz:g} Hz"
            " (rate_hz, control_rate_hz)",
            "servo-rate",
        )
    namespace = str(group.options["topic"]).rpartition("/")[0]
    return ServoMode(node, str(group.options.get("switch_service", f"{namespace}/switch_command_type")), kind)


def _output(
    node: LifecycleNode, publish: Publish, group: Group, kind: type, mode: ServoMode, message_of: MessageOf
) -> StreamOutput:
    topic, rate_hz = str(group.options["topic"]), float(group.options.get("rate_hz", RATE_HZ))
    try:
        return StreamOutput(node, publish, group, kind, topic, rate_hz, message_of, rates=True, receiver=mode)
    except ConfigurationError:
        mode.destroy()
        raise
