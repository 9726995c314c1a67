# SPDX-License-Identifier: Apache-2.0
"""An arm with a trajectory controller at 1 kHz, which follows what a node sends over DDS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from delivered import PERIOD_NS
from ros_world import JOINTS, World
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from reflex_ros.demo.controllers.from_message import trajectory_of
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController
from reflex_ros.graph.qos import SENSOR

EVERY = 100  # messages that are kept for a busy thread


class FollowingArm:
    """Has a robot's joints follow their trajectories, as they come. sent: every message, and when it was sent, ns."""

    def __init__(self, scene: World, home: Sequence[float]) -> None:
        """Begin at rest at `home`, in the order of the joints."""
        self._robot = scene.robot
        self._controller = JointTrajectoryController(JOINTS, list(home), PERIOD_NS)
        self._at, self._now_ns = np.array(home, np.float64), self._clock_ns()
        self.sent = list[tuple[int, JointTrajectory]]()
        node = scene.robot.node
        node.create_subscription(
            JointTrajectory, "reflex/joint_trajectory", lambda message, info: self._take(message, info), EVERY
        )
        scene.robot.joints_on = False
        self._joints = node.create_publisher(JointState, "joint_states", SENSOR)
        node.create_timer(0.01, self._measure)

    def _clock_ns(self) -> int:
        return int(self._robot.node.get_clock().now().nanoseconds)

    def _take(self, message: JointTrajectory, info: Any) -> None:
        self.sent.append((info["source_timestamp"], message))
        self._advance()
        self._controller.set(self._now_ns, trajectory_of(message))

    def _advance(self) -> None:
        end_ns = self._clock_ns()
        while self._now_ns + PERIOD_NS <= end_ns:
            self._now_ns += PERIOD_NS
            self._at, _ = self._controller.sample(self._now_ns, self._at)

    def _measure(self) -> None:
        """Publish where the arm is just now."""
        self._advance()
        self._robot.positions = self._at.tolist()
        message = JointState(name=JOINTS, position=self._robot.positions)
        message.header.stamp = self._robot.stamp()
        self._joints.publish(message)
