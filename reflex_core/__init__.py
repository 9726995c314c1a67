# SPDX-License-Identifier: Apache-2.0
"""The policy engine: numpy and onnxruntime, no ROS and no HTTP."""

from reflex_core.files.share import version

__version__ = version()
