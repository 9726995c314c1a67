# SPDX-License-Identifier: Apache-2.0
"""Checks of the ROS 2 around us."""
