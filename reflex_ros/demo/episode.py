# SPDX-License-Identifier: Apache-2.0
"""What is kept of an episode of the demo, over ROS or HTTP."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """How far the arm had come `time_s` into the episode. measure_m: what the goal measures, a height or a distance."""

    time_s: float
    measure_m: float
    succeeded: bool


@dataclass(frozen=True)
class Episode:
    """The result of an episode. Medians are over its chunks and None when the policy sent none."""

    episode_id: str
    seed: int
    instruction: str
    target: str
    succeeded: bool
    measure_m: float
    duration_s: float
    chunks: int
    holds: int
    denoise_steps: float | None
    latency_ms: float | None
    observation_age_ms: float | None
    note: str = ""
