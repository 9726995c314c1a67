# SPDX-License-Identifier: Apache-2.0
"""Robot interfaces: one file per kind of command that moves a robot."""
