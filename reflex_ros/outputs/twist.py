# SPDX-License-Identifier: Apache-2.0
"""Twist or TwistStamped, one per tick: the velocity of a mobile base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geometry_msgs.msg import Twist, TwistStamped

from reflex_core.chunks.course import Row
from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import AXES, VELOCITY, Group
from reflex_ros.outputs.base import Along, MessageOf, Publish
from reflex_ros.outputs.streaming import StreamOutput

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

RATE_HZ = 50.0
FRAME = "base_link"


def twist(node: LifecycleNode, publish: Publish, group: Group) -> StreamOutput:
    """Return the output: m/s and rad/s of the axes that the group names, 0 of the others.

    Drivers of bases stop when nothing comes for a while. Raises ConfigurationError for positions, and for axes that a Twist does
    not have.
    """
    strangers = [name for name in group.names if name not in AXES]
    if group.commands != VELOCITY or strangers:
        got = f"axes {', '.join(strangers)}" if strangers else f"commands {group.commands}"
        raise ConfigurationError(
            f"group '{group.name}' of output twist must command the velocity of {', '.join(AXES)}, got {got}",
            "bad-output",
        )
    rate_hz = float(group.options.get("rate_hz", RATE_HZ))
    topic = str(group.options.get("topic", "~/cmd_vel"))
    if not group.options.get("stamped", False):
        return StreamOutput(
            node, publish, group, Twist, topic, rate_hz, lambda row, _along: _filled(Twist(), group, row)
        )
    frame = str(group.options.get("frame", FRAME))
    return StreamOutput(node, publish, group, TwistStamped, topic, rate_hz, _stamped(node, group, frame))


def _filled(message: Twist, group: Group, row: Row) -> Twist:
    for name, value in zip(group.names, row, strict=True):
        part, _, axis = name.partition(".")
        setattr(getattr(message, part), axis, value)
    return message


def _stamped(node: LifecycleNode, group: Group, frame: str) -> MessageOf:
    def message_of(row: Row, _along: Along) -> TwistStamped:
        message = TwistStamped()
        message.header.frame_id = frame
        message.header.stamp = node.get_clock().now().to_msg()
        _filled(message.twist, group, row)
        return message

    return message_of
