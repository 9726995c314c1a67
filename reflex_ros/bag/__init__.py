# SPDX-License-Identifier: Apache-2.0
"""rosbag2: what went over ROS, written while it runs and read back for a replay."""
