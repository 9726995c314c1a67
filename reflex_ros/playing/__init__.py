# SPDX-License-Identifier: Apache-2.0
"""Play recorded observations onto the ROS topics at their recorded pace. Never a command."""
