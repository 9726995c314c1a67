# SPDX-License-Identifier: Apache-2.0
"""From a LeRobot checkpoint to an ONNX export that proves itself: the torch side, which nothing that serves imports."""
