# SPDX-License-Identifier: Apache-2.0
"""Float64MultiArray of one value, at a low rate: grippers that are commanded continuously by a topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from std_msgs.msg import Float64MultiArray

from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import POSITION, Group
from reflex_ros.outputs.base import Publish, topic_of
from reflex_ros.outputs.streaming import StreamOutput

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

RATE_HZ = 30.0


def gripper_topic(node: LifecycleNode, publish: Publish, group: Group) -> StreamOutput:
    """Return the output: the joint's position, or what the topic counts between open_value and closed_value.

    Raises ConfigurationError for more than one column, and for one of the two values without the other.
    """
    if len(group.columns) != 1 or group.commands != POSITION:
        raise ConfigurationError(
            f"group '{group.name}' of output gripper_topic must command the position of one joint, got {len(group.columns)}"
            f" that command {group.commands}",
            "bad-output",
        )
    factor, offset = _scale(group)
    return StreamOutput(
        node, publish, group, Float64MultiArray, topic_of(group, "commands"),
        float(group.options.get("rate_hz", RATE_HZ)), lambda row, _along: Float64MultiArray(data=[factor * row[0] + offset]),
    )  # fmt: skip


def _scale(group: Group) -> tuple[float, float]:
    """Return factor and offset from the joint's position to what the topic counts."""
    values = [group.options.get(key) for key in ("open_value", "closed_value")]
    if values == [None, None]:
        return 1.0, 0.0
    if None in values or group.gripper is None:
        raise ConfigurationError(
            f"group '{group.name}': open_value and closed_value of its output must be there together, with 'gripper' in the group",
            "bad-output",
        )
    opened, closed = (float(value) for value in values if value is not None)
    factor = (opened - closed) / (group.gripper.open - group.gripper.closed)
    return factor, closed - factor * group.gripper.closed
