# SPDX-License-Identifier: Apache-2.0
"""Replay: recorded requests run again, and what came out compared with what was recorded."""
