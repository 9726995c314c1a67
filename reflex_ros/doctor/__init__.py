# SPDX-License-Identifier: Apache-2.0
"""Doctor checks of the ROS 2 installation, middleware and graph."""
