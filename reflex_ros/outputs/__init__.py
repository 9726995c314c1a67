# SPDX-License-Identifier: Apache-2.0
"""What moves a robot: one file per robot interface."""
