# SPDX-License-Identifier: Apache-2.0
"""rosbag2 bags: written while the node runs, and read back for a replay."""
