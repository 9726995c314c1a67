# SPDX-License-Identifier: Apache-2.0
"""The ROS graph around the node: other commanding nodes, incompatible publishers, topics and transport."""
