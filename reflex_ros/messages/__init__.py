# SPDX-License-Identifier: Apache-2.0
"""ROS messages become values, and values become ROS messages."""
