# SPDX-License-Identifier: Apache-2.0
"""Embodiment files of robots that fit the probes of odd_exports.py, and the presets of schema v1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from repository import ROOT

from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.presets import load_embodiment

FIXTURES = ROOT / "test" / "fixtures" / "embodiments_v1"


def robot(path: Path, names: list[str], **changes: Any) -> Embodiment:
    """Write and read a robot with these joints, each from -25 to 25, at 20 Hz; `changes` replace top-level keys."""
    dim = len(names)
    document: dict[str, Any] = {
        "schema_version": 1,
        "embodiment": "custom",
        "joint_names": names,
        "action_space": {"type": "continuous", "dim": dim, "ranges": [[-25, 25]] * dim},
        "normalization": {
            "mean_action": [0.0] * dim,
            "std_action": [1.0] * dim,
            "mean_state": [0.0] * dim,
            "std_state": [1.0] * dim,
        },
        "cameras": [{"name": "front", "resolution": [64, 64], "fps": 30, "color_space": "rgb8"}],
        "control": {"frequency_hz": 20.0, "chunk_size": 50, "rtc_execution_horizon": 8},
        "constraints": {"max_ee_velocity": 1.0, "max_gripper_velocity": 1.0, "collision_check": False},
    } | changes
    file = path / "robot.json"
    file.write_text(json.dumps(document))
    return load_embodiment(file)


def ranges(dim: int, **last: list[float]) -> dict[str, Any]:
    """An action space whose last range is given: `ranges(3, gripper=[0, 1])`."""
    given = [*([[-25.0, 25.0]] * (dim - 1)), *last.values()]
    return {"type": "continuous", "dim": dim, "ranges": given}


def v1(name: str) -> Embodiment:
    """Return a preset as it was in schema v1: one group, its gripper in units of its own."""
    return load_embodiment(FIXTURES / f"{name}.json")
