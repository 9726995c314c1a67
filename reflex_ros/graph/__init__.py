# SPDX-License-Identifier: Apache-2.0
"""The ROS graph around the node: who else commands, whom it cannot hear, topics and transport."""
