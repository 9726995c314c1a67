# SPDX-License-Identifier: Apache-2.0
"""~/dry_run: what a group would be commanded, as a trajectory that no controller listens to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rclpy.qos_overriding_options import QoSOverridingOptions
from trajectory_msgs.msg import JointTrajectory

from reflex_core.robot.groups import VELOCITY, Group
from reflex_ros.messages.chunks import trajectory_message
from reflex_ros.outputs.base import Command, Publish
from reflex_ros.outputs.joint_trajectory import COMMANDS

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode


class DryRunOutput:
    """Show the motion of a group in the place of its robot interface, which is not made: it commands nothing.

    Points of a group that commands velocities have those as their velocities, and no positions.
    """

    topics: tuple[str, ...] = ()  # nothing is commanded

    def __init__(self, node: LifecycleNode, publish: Publish, group: Group) -> None:
        self._node, self._publish, self._group = node, publish, group
        self._publisher = node.create_lifecycle_publisher(
            JointTrajectory, topic_of_dry_run(group), COMMANDS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )  # fmt: skip

    def enable(self) -> None:
        """Let messages out: the node becomes active."""
        self._publisher.on_activate(None)

    def disable(self) -> None:
        """Drop messages: the node is not active."""
        self._publisher.on_deactivate(None)

    def send(self, command: Command) -> None:
        """Show the motion, stamped with the moment it would begin."""
        message = trajectory_message(
            self._group.names, command.motion, int(command.motion.times_ns[0]), anchor=True
        )
        if self._group.commands == VELOCITY:
            for point in message.points:
                point.velocities, point.positions = point.positions, []
        self._publish(self._publisher, message)

    def hold(self, command: Command) -> None:
        """Show the hold like any other motion."""
        self.send(command)

    def flush(self, timeout_s: float) -> None:
        """Return at once: no robot waits for it."""

    def destroy(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_lifecycle_publisher(self._publisher)


def topic_of_dry_run(group: Group) -> str:
    """Return the topic of a group's dry run: its name as far as a topic may be called so."""
    name = re.sub(r"\W", "_", group.name, flags=re.ASCII)
    return f"~/dry_run/group_{name}" if name else "~/dry_run/joint_trajectory"
