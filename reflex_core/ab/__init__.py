# SPDX-License-Identifier: Apache-2.0
"""What traces of two policies say about which of them is better. No ROS, no files but the traces."""
