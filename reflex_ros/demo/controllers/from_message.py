# SPDX-License-Identifier: Apache-2.0
"""From a trajectory_msgs/JointTrajectory to the value that the simulated controllers take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reflex_ros.demo.controllers.points import Floats, Point, Trajectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builtin_interfaces.msg import Duration, Time
    from trajectory_msgs.msg import JointTrajectory


def trajectory_of(message: JointTrajectory) -> Trajectory:
    """Return the message as a value; empty fields are None, times are whole nanoseconds."""
    points = tuple(
        Point(
            _ns(point.time_from_start),
            _field(point.positions),
            _field(point.velocities),
            _field(point.accelerations),
            _field(point.effort),
        )
        for point in message.points
    )
    return Trajectory(_ns(message.header.stamp), tuple(message.joint_names), points)


def _ns(time: Duration | Time) -> int:
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)


def _field(values: Sequence[float]) -> Floats | None:
    return np.array(values, dtype=np.float64) if len(values) else None
