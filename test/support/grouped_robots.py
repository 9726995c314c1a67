# SPDX-License-Identifier: Apache-2.0
"""Embodiments of schema v2: a small arm with its gripper under one interface each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.presets import load_embodiment

ARM: dict[str, Any] = {
    "name": "arm",
    "space": "joints",
    "joints": ["shoulder", "elbow"],
    "output": {"kind": "joint_trajectory", "topic": "/arm_controller/joint_trajectory"},
}
HAND: dict[str, Any] = {
    "name": "hand",
    "space": "gripper",
    "joints": ["finger"],
    "gripper": {"open": 0.04, "closed": 0.0},
    "output": {"kind": "parallel_gripper", "action": "/hand/gripper_cmd", "max_effort": 20.0},
}


def document(**changes: Any) -> dict[str, Any]:
    """Return a complete file of two joints and a gripper; `changes` replace top-level keys."""
    return {
        "schema_version": 2,
        "embodiment": "two_joints",
        "joint_names": ["shoulder", "elbow", "finger"],
        "action_space": {"type": "continuous", "dim": 3, "ranges": [[-1, 1], [-2, 2], [0, 0.04]]},
        "velocity_max": [1.0, 2.0, 0.1],
        "normalization": {
            "mean_action": [0, 0, 0.02],
            "std_action": [0.5, 0.5, 0.01],
            "mean_state": [0, 0, 0.02],
            "std_state": [0.25, 0.25, 0.01],
        },
        "groups": [ARM, HAND],
        "cameras": [{"name": "wrist", "resolution": [640, 480], "fps": 30, "color_space": "rgb8"}],
        "control": {"frequency_hz": 20.0, "chunk_size": 50, "rtc_execution_horizon": 25},
        "constraints": {"max_ee_velocity": 1.0, "collision_check": False},
    } | changes


def grouped(path: Path, **changes: Any) -> Embodiment:
    """Write and read the robot of `document`."""
    file = path / "grouped.json"
    file.write_text(json.dumps(document(**changes)))
    return load_embodiment(file)
