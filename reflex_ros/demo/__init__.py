# SPDX-License-Identifier: Apache-2.0
"""The simulated Panda: scenes, physics, camera and trajectory following, without ROS."""
