# SPDX-License-Identifier: Apache-2.0
"""What an export is compared with LeRobot on, and how far the two are apart."""
