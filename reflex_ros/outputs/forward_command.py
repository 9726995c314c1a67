# SPDX-License-Identifier: Apache-2.0
"""Float64MultiArray, one row per tick: ros2_control's forward_command_controller and the JointGroup controllers."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from std_msgs.msg import Float64MultiArray

from reflex_core.chunks.course import Row
from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import VELOCITY, Group
from reflex_ros.outputs.base import Along, Publish, topic_of
from reflex_ros.outputs.streaming import StreamOutput

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

RATE_HZ = 100.0  # what a thread of Python keeps up; the drive interpolates


def forward_command(node: LifecycleNode, publish: Publish, group: Group) -> StreamOutput:
    """Return the output. Raises ConfigurationError for speeds whose user has not accepted what a killed node leaves moving.

    The controller has no timeout and checks no limit; it takes the values in the order of its parameter `joints`.
    """
    if group.commands == VELOCITY and not group.options.get("accept_unattended_velocity", False):
        raise ConfigurationError(
            f"group '{group.name}' commands speeds by forward_command, whose controller keeps the last one up for ever if this"
            ' node is killed: take an output that times out, or accept that with "accept_unattended_velocity": true',
            "unattended-velocity",
        )
    rate_hz = float(group.options.get("rate_hz", RATE_HZ))
    return StreamOutput(
        node, publish, group, Float64MultiArray, topic_of(group, "commands"), rate_hz, _message
    )


def _message(row: Row, _along: Along) -> Float64MultiArray:
    return Float64MultiArray(data=array("d", row))
