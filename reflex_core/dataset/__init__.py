# SPDX-License-Identifier: Apache-2.0
"""Traces become data to train with: which requests count, what each one teaches, and the files that are written."""
