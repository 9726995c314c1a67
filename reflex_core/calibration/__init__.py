# SPDX-License-Identifier: Apache-2.0
"""Measuring this machine, keeping what was measured, and learning how late chunks are."""
