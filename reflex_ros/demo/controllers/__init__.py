# SPDX-License-Identifier: Apache-2.0
"""Simulated controllers of ros2_control, one file each: their rules without clock, thread or ROS."""
