# SPDX-License-Identifier: Apache-2.0
"""Where a robot's links are: forward kinematics of many rows at once, tool speeds, distances. numpy alone."""
