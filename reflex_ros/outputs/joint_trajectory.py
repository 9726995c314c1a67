# SPDX-License-Identifier: Apache-2.0
"""~/joint_trajectory, for ros2_control's joint_trajectory_controller and others that take its message."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from trajectory_msgs.msg import JointTrajectory

from reflex_core.chunks.interpolation import Spline
from reflex_core.errors import SettingError
from reflex_core.robot.groups import Group
from reflex_core.settings.table import AUTO, BLEND
from reflex_core.text.untrusted import escaped
from reflex_ros.messages.chunks import sent_points
from reflex_ros.messages.trajectory_bytes import Doubles, TrajectoryBytes, message_of
from reflex_ros.outputs.base import Command, Publish, topic_of

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

log = logging.getLogger(__name__)

STAYING_NS = 2 * 10**9  # how late a hold that has a stamp may come
COMMANDS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


class JointTrajectoryOutput:
    """Send a motion as one trajectory, which the controller splices into the running one by its stamp.

    Options of the group: topic; trajectory_era, what its controller does with a new trajectory while one runs; velocities, false
    for a controller that computes them by itself.
    """

    def __init__(self, node: LifecycleNode, publish: Publish, group: Group) -> None:
        """Create the publisher. Raises SettingError for a joint that stands twice."""
        self._node, self._publish = node, publish
        self._names = _once_each(group)
        self._era = group.options.get("trajectory_era", AUTO)
        self._anchor = self._era != BLEND
        self._writers: dict[
            int, TrajectoryBytes
        ] = {}  # by number of points, of which a chunk's horizon is the most
        self.slow = 0
        self._velocities = bool(group.options.get("velocities", True))
        self._publisher = node.create_lifecycle_publisher(
            JointTrajectory, topic_of(group, "joint_trajectory"), COMMANDS,
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

    def found_era(self, era: str) -> None:
        """Send as this controller needs it, where no era was chosen; a trajectory that joins by itself gets no anchor."""
        if self._era == AUTO:
            self._anchor = era != BLEND

    def send(self, command: Command) -> None:
        """Publish the motion, stamped with the moment it begins: rather a little early than late."""
        self._trajectory(command.motion, int(command.motion.times_ns[0]))

    def hold(self, command: Command) -> None:
        """Publish a hold with stamp 0: it begins when it arrives, so that no clock and no delay makes a controller refuse it.

        One that is punctual has its stamp: a robot that moves would step back as far as it went until the hold arrived.
        """
        if command.punctual:
            self._trajectory(_staying(command.motion), int(command.motion.times_ns[0]))
        else:
            self._trajectory(command.motion, 0)

    def _trajectory(self, motion: Spline, stamp_ns: int) -> None:
        points = sent_points(motion, anchor=self._anchor, velocities=self._velocities)
        self._publish(self._publisher, self._message(stamp_ns, *points))

    def _message(
        self, stamp_ns: int, since_ns: NDArray[np.int64], positions: Doubles, velocities: Doubles | None
    ) -> bytes | JointTrajectory:
        """Return the bytes of a trajectory; the message itself where the middleware's layout is not as expected."""
        if not self.slow:
            try:
                writer = self._writers.get(len(since_ns))
                if writer is None:
                    made = TrajectoryBytes(self._names, len(since_ns), velocities=self._velocities)
                    writer = self._writers[len(since_ns)] = made
                return writer(stamp_ns, since_ns, positions, velocities)
            except Exception as error:
                self.slow += 1
                log.warning(
                    "%s: trajectories are not written as bytes but converted point by point, which takes 0.2 ms longer: %s",
                    *self.topics,
                    error,
                )
        else:
            self.slow += 1
        return message_of(self._names, stamp_ns, since_ns, positions, velocities)

    def report(self) -> dict[str, object]:
        """Return how many trajectories were converted point by point, where any was."""
        return {"trajectories converted slowly": self.slow} if self.slow else {}

    def flush(self, timeout_s: float) -> None:
        """Wait until every subscriber has acknowledged the last trajectory."""
        self._publisher.wait_for_all_acked(Duration(seconds=timeout_s))

    def destroy(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_lifecycle_publisher(self._publisher)


def _staying(motion: Spline) -> Spline:
    """Return the motion with its end once more, for a while: a controller refuses a trajectory that has ended when it arrives."""
    return Spline(
        np.append(motion.times_ns, motion.times_ns[-1] + STAYING_NS),
        np.concatenate([motion.positions, motion.positions[-1:]]),
        np.concatenate([motion.velocities, np.zeros_like(motion.velocities[-1:])]),
        motion.anchored,
    )


def _once_each(group: Group) -> tuple[str, ...]:
    """Return the joints' names. Raises SettingError for one that stands twice: a controller does whatever it likes with it."""
    twice = [name for name, count in Counter(group.names).items() if count > 1]
    if twice:
        raise SettingError(f"group '{group.name}': joint '{escaped(twice[0], 40)}' stands twice in it")
    return group.names
