# SPDX-License-Identifier: Apache-2.0
"""The policy engine: numpy and onnxruntime, no ROS and no HTTP."""

__version__ = "0.1.0"
