# SPDX-License-Identifier: Apache-2.0
"""PoseStamped, one per tick: controllers that bring the tool to a pose, CRISP's `target_pose` and FZI's `target_frame`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import PoseStamped

from reflex_core.chunks.course import Row
from reflex_core.chunks.interpolation import Doubles
from reflex_core.robot.groups import Group
from reflex_core.robot.rotations import quaternion_of_matrix
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.graph.endpoints import publishers
from reflex_ros.outputs.base import Along, Publish
from reflex_ros.outputs.servo import require_arm
from reflex_ros.outputs.streaming import StreamOutput

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

RATE_HZ = 100.0

log = logging.getLogger(__name__)


def pose(node: LifecycleNode, publish: Publish, group: Group) -> StreamOutput:
    """Return the output: where the tool is on the motion at the tick, in the frame of the base.

    The controllers have no timeout: a hold is the held pose, sent a few times. Raises ConfigurationError for a group whose arm or
    frame is not known.
    """
    arm, frame = require_arm(group)
    before: list[Doubles] = [np.array([0.0, 0.0, 0.0, 1.0])]

    def message_of(row: Row, _along: Along) -> PoseStamped:
        there = arm.pose(np.array(row))
        turned = quaternion_of_matrix(there.rotation)
        # both signs are the same rotation, and a filter between the two is none
        before[0] = turned if float(turned @ before[0]) >= 0.0 else -turned
        message = PoseStamped()
        message.header.frame_id, message.header.stamp = frame, node.get_clock().now().to_msg()
        at, about = message.pose.position, message.pose.orientation
        at.x, at.y, at.z = there.position.tolist()
        about.x, about.y, about.z, about.w = before[0].tolist()
        return message

    topic = str(group.options["topic"])
    rate_hz = float(group.options.get("rate_hz", RATE_HZ))
    rivals = Rivals(node, topic)
    return StreamOutput(node, publish, group, PoseStamped, topic, rate_hz, message_of, receiver=rivals)


class Rivals:
    """Other publishers of the topic: CRISP's controllers follow none while there are two, and FZI's follow both in turns."""

    def __init__(self, node: LifecycleNode, topic: str) -> None:
        self._node, self._topic = node, topic
        self._limited_log = RateLimitedLog(log)

    def enable(self) -> None:
        """Log them, where there are any."""
        problem = self.report().get("problem")
        if problem:
            self._limited_log(logging.WARNING, "rivals", "%s", problem)

    def disable(self) -> None:
        """Do nothing."""

    def awaited(self) -> bool:
        """Return False: rows wait for nothing."""
        return False

    def report(self) -> dict[str, object]:
        """Return the problem, where there is one."""
        topic = self._node.resolve_topic_name(self._topic)
        found = publishers(self._node, topic)
        if len(found) < 2:
            return {}
        return {
            "problem": f"{topic} has {len(found)} publishers ({', '.join(found)}): CRISP's controllers follow none of them then: stop"
            " all but one"
        }

    def destroy(self) -> None:
        """Do nothing."""
