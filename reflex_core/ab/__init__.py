# SPDX-License-Identifier: Apache-2.0
"""Compare two policies by their traces: which one succeeds more often. No ROS, no files but the traces."""
