# SPDX-License-Identifier: Apache-2.0
"""~/joint_trajectory, for ros2_control's joint_trajectory_controller and others that take its message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from trajectory_msgs.msg import JointTrajectory

from reflex_core.robot.groups import Group
from reflex_ros.messages.chunks import trajectory_message
from reflex_ros.outputs.base import Command, Publish

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

COMMANDS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


class JointTrajectoryOutput:
    """Send the rows of a chunk as one trajectory, which the controller splices into the running one by its stamp."""

    def __init__(self, node: LifecycleNode, publish: Publish, group: Group) -> None:
        self._node, self._publish = node, publish
        self._publisher = node.create_lifecycle_publisher(
            JointTrajectory, group.options.get("topic", "~/joint_trajectory"), COMMANDS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )  # fmt: skip

    @property
    def topics(self) -> tuple[str, ...]:
        """The trajectory topic, after remapping."""
        return (str(self._publisher.topic_name),)

    def enable(self) -> None:
        """Let trajectories out: the node becomes active."""
        self._publisher.on_activate(None)

    def disable(self) -> None:
        """Drop trajectories: the node is not active."""
        self._publisher.on_deactivate(None)

    def send(self, command: Command) -> None:
        """Publish the rows that have not elapsed."""
        self._publish(self._publisher, trajectory_message(command.chunk, command.stamp_ns, command.start))

    def hold(self, command: Command) -> None:
        """Publish a hold with stamp 0: it begins when it arrives, so that no clock and no delay makes a controller refuse it."""
        self._publish(self._publisher, trajectory_message(command.chunk, 0, command.start))

    def flush(self, timeout_s: float) -> None:
        """Wait until every subscriber has acknowledged the last trajectory."""
        self._publisher.wait_for_all_acked(Duration(seconds=timeout_s))

    def destroy(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_lifecycle_publisher(self._publisher)
