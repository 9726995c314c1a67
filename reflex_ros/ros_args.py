# SPDX-License-Identifier: Apache-2.0
"""Where our options end and those of rclpy begin: `ros2 run` and launch files append theirs."""

from __future__ import annotations

from collections.abc import Sequence

ROS_ARGS = "--ros-args"


def split_ros_args(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(ours, those from --ros-args on)."""
    at = arguments.index(ROS_ARGS) if ROS_ARGS in arguments else len(arguments)
    return list(arguments[:at]), list(arguments[at:])
