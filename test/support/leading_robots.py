# SPDX-License-Identifier: Apache-2.0
"""Robots of several groups, and exports that lead each joint steadily: what a controller is commanded can be foretold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from graphs import FLOAT, Graph

ROWS, RATE_HZ = 40, 20.0
GRIPPER = {"open": 0.04, "closed": 0.0}


def leading(
    path: Path, columns: Mapping[str, Sequence[float]], action_space: Sequence[Mapping[str, Any]]
) -> Path:
    """Write an export whose every chunk is the same numbers: (ROWS,) by name, counted as `action_space` says."""
    path.mkdir(parents=True, exist_ok=True)
    names = list(columns)
    graph = Graph(seed=5)
    idle = graph.op("Add",
        graph.op("Mul", graph.mean(graph.input("img_front", FLOAT, [1, 3, 24, 32]), 1, 2, 3), graph.constant(0.0)),
        graph.op("Mul", graph.mean(graph.input("state", FLOAT, [1, len(names)]), 1), graph.constant(0.0)),
    )  # fmt: skip
    rows = graph.constant(np.array([list(columns[name]) for name in names]).T.reshape(1, ROWS, len(names)))
    graph.output(graph.op("Add", rows, graph.shaped(idle, 1, 1, 1)), "actions", FLOAT, [1, ROWS, len(names)])
    graph.save(path / "policy.onnx")
    written = {
        "model_id": "test/leading", "model_type": "leading", "export_kind": "monolithic", "policy": "deterministic",
        "graphs": {"monolithic": "policy.onnx"}, "actions_output": "actions", "chunk_size": ROWS, "action_dim": len(names),
        "action_names": names, "frequency_hz": RATE_HZ, "images": [{"camera": "front", "input": "img_front", "mask": None}],
        "state": {"input": "state", "names": names}, "action_space": list(action_space),
        "normalization": {"state": {"mode": "identity"}, "action": {"mode": "identity"}},
    }  # fmt: skip
    (path / "reflex_config.json").write_text(json.dumps(written))
    return path


def embodiment(path: Path, groups: Sequence[Mapping[str, Any]]) -> Path:
    """Write a robot of schema v2 with these groups; every joint may go from -3 to 3, and a gripper from closed to open."""
    joints = [(name, group) for group in groups for name in group["joints"]]
    dim = len(joints)
    ranges = [[0, 0.04] if group["space"] == "gripper" else [-3, 3] for _, group in joints]
    statistics = {key: [0.0 if key.startswith("mean") else 1.0] * dim
        for key in ("mean_action", "std_action", "mean_state", "std_state")}  # fmt: skip
    document = {
        "schema_version": 2, "embodiment": "led", "joint_names": [name for name, _ in joints],
        "action_space": {"type": "continuous", "dim": dim, "ranges": ranges}, "velocity_max": [5.0] * dim,
        "normalization": statistics, "groups": list(groups),
        "cameras": [{"name": "camera", "resolution": [64, 48], "fps": 30, "color_space": "rgb8"}],
        "control": {"frequency_hz": RATE_HZ, "chunk_size": ROWS, "rtc_execution_horizon": 20},
        "constraints": {"max_ee_velocity": 1.0, "collision_check": False},
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def joints(name: str, names: Sequence[str], kind: str = "joint_trajectory", **options: Any) -> dict[str, Any]:
    """A group of joints, positions unless `commands` says otherwise."""
    commands = options.pop("commands", "position")
    return {"name": name, "space": "joints", "commands": commands, "joints": list(names),
        "output": {"kind": kind, **options}}  # fmt: skip


def gripper(name: str, joint: str, kind: str, **options: Any) -> dict[str, Any]:
    """A gripper."""
    return {
        "name": name,
        "space": "gripper",
        "joints": [joint],
        "gripper": GRIPPER,
        "output": {"kind": kind, **options},
    }


def base(name: str, axes: Mapping[str, str], **options: Any) -> dict[str, Any]:
    """A base, its axes by the names of its columns."""
    return {"name": name, "space": "base", "joints": list(axes), "axes": list(axes.values()),
        "output": {"kind": "twist", **options}}  # fmt: skip


def steadily(step: float) -> list[float]:
    """Offsets from where the robot is: one more `step` with every row."""
    return [step * (row + 1) for row in range(ROWS)]


RELATIVE: dict[str, Any] = {"space": "joints", "mode": "relative", "unit": "rad"}
