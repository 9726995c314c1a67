# SPDX-License-Identifier: Apache-2.0
"""Recorded observations on the ROS topics again, at the pace at which they were recorded. Never a command."""
