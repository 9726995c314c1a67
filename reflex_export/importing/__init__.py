# SPDX-License-Identifier: Apache-2.0
"""Reading other people's ONNX exports without torch: what they say, what is missing, and our description of them."""
