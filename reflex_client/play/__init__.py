# SPDX-License-Identifier: Apache-2.0
"""Chunks row by row: which row is next, when it is due, and asking for the next chunk in time."""
