# SPDX-License-Identifier: Apache-2.0
"""Why rows were corrected or not, as replies, traces and metrics name it."""

from __future__ import annotations

APPLIED = "applied"
EVERY_STEP = "every_step"  # the chunk is served uncorrected, and corrected where it is streamed
COLD_START, LOW_LATENCY, HIGH_SUCCESS = "cold_start", "low_latency", "high_success"
TOO_LARGE = "magnitude_safety_skip"
NOT_A_POLICY_CHUNK = "not_a_policy_chunk"
GUARDED = "guard"  # corrected so, the robot would have to be held
