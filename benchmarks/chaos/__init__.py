# SPDX-License-Identifier: Apache-2.0
"""Real servers, robots and a ROS node under injected faults, and what has to stay true of them, seen from outside."""
