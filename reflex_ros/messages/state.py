# SPDX-License-Identifier: Apache-2.0
"""Read measured states from Imu (orientation) and Odometry (pose and velocity) messages."""

from __future__ import annotations

from typing import Any

import numpy as np
from sensor_msgs.msg import Imu

from reflex_core.values import Floats


def imu_state(message: Imu) -> Floats:
    """Return the orientation quaternion x, y, z, w, shape (4,) float32."""
    q = message.orientation
    return np.array([q.x, q.y, q.z, q.w], dtype=np.float32)


def odometry_state(message: Any) -> Floats:
    """Return position 3 (m), orientation quaternion 4 (x, y, z, w), linear velocity 3 (m/s), shape (10,) float32."""
    p, q, v = message.pose.pose.position, message.pose.pose.orientation, message.twist.twist.linear
    return np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w, v.x, v.y, v.z], dtype=np.float32)
