# SPDX-License-Identifier: Apache-2.0
"""Read an export: its files and hash, its configuration, its statistics, model families, and its binding to a robot."""
