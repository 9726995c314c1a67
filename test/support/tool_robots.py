# SPDX-License-Identifier: Apache-2.0
"""An arm whose tool is described, and exports that lead it to a pose: each sees the tool, and says how far it is from there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from graphs import FLOAT, Graph
from numpy.typing import NDArray
from repository import FIXTURES

from reflex_core.robot.kinematics.tree import tree_of
from reflex_core.robot.presets import load_embodiment
from reflex_core.robot.rotations import KINDS

Doubles = NDArray[np.float64]

ARM = [f"joint{number}" for number in range(1, 8)]
FINGER = "finger_joint1"
JOINTS = [*ARM, FINGER]
TOOL = "link8"
LOW = [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973, 0.0]
HIGH = [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973, 0.04]
HOME = [0.0, 0.2, 0.0, -2.0, 0.0, 2.2, 0.8, 0.03]  # the tool points down
ROWS, RATE_HZ = 40, 20.0
SPREAD = 20  # rows over which a policy goes all the way
URDF = FIXTURES / "urdf" / "arm7.urdf"
TREE = tree_of(URDF.read_bytes(), str(URDF), JOINTS, (TOOL,))

LIBERO_STATE: dict[str, Any] = {
    "input": "state", "names": ["x", "y", "z", "rx", "ry", "rz", "left", "right"],
    "tool": {"columns": ["x", "y", "z", "rx", "ry", "rz"], "rotation": "axis_angle"},
    "joints": [{"column": "left", "joint": FINGER}, {"column": "right", "joint": FINGER, "factor": -1.0}],
}  # fmt: skip
LIBERO_TOOL: dict[str, Any] = {
    "columns": ["dx", "dy", "dz", "drx", "dry", "drz"], "space": "tool", "mode": "delta", "frame": "base",
    "rotation": "axis_angle", "scale": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
}  # fmt: skip
LIBERO_HAND: dict[str, Any] = {
    "columns": ["gripper"],
    "space": "gripper",
    "mode": "absolute",
    "gripper": {"open": -1.0, "closed": 1.0},
}
LIBERO_NAMES = [*LIBERO_TOOL["columns"], "gripper"]
ROT6D = [f"r{number}" for number in range(6)]
POSE_STATE: dict[str, Any] = {
    "input": "state", "names": ["x", "y", "z", *ROT6D, FINGER],
    "tool": {"columns": ["x", "y", "z", *ROT6D], "rotation": "rot6d_columns"},
}  # fmt: skip
POSE_TOOL: dict[str, Any] = {
    "columns": ["x", "y", "z", *ROT6D], "space": "tool", "mode": "absolute", "frame": "base", "rotation": "rot6d_columns",
}  # fmt: skip
POSE_HAND: dict[str, Any] = {
    "columns": [FINGER],
    "space": "gripper",
    "gripper": {"open": 1.0, "closed": 0.0},
}


def pose(q: Sequence[float] | Doubles) -> Doubles:
    """(4, 4) where the tool is for eight joints."""
    found: Doubles = TREE.poses(np.array([q], np.float64))[0, 0]
    return found


def apart(one: Doubles, other: Doubles) -> tuple[float, float]:
    """How far two poses are from each other: m, degrees."""
    turned = KINDS["axis_angle"].of_matrix(one[:3, :3] @ other[:3, :3].T)
    return float(np.linalg.norm(one[:3, 3] - other[:3, 3])), float(np.rad2deg(np.linalg.norm(turned)))


def robot(path: Path, arm: Mapping[str, Any], hand: Mapping[str, Any], **changes: Any) -> Path:
    """Write the arm with its gripper under these robot interfaces; `changes` replace top-level keys."""
    path.mkdir(parents=True, exist_ok=True)
    shutil.copy(URDF, path / "arm.urdf")
    dim = len(JOINTS)
    groups = [
        {"name": "arm", "space": "joints", "joints": ARM, "output": dict(arm)},
        {"name": "hand", "space": "gripper", "joints": [FINGER], "gripper": {"open": 0.04, "closed": 0.0},
            "output": dict(hand)},
    ]  # fmt: skip
    document = {
        "schema_version": 2, "embodiment": "arm7", "joint_names": JOINTS,
        "action_space": {"type": "continuous", "dim": dim, "ranges": [list(pair) for pair in zip(LOW, HIGH, strict=True)]},
        "velocity_max": [2.0] * 7 + [0.2], "groups": groups,
        "normalization": {"mean_action": HOME, "std_action": [0.5] * dim, "mean_state": HOME, "std_state": [0.5] * dim},
        "kinematics": {"urdf": "arm.urdf", "tool": TOOL},
        "cameras": [{"name": "camera", "resolution": [64, 48], "fps": 30, "color_space": "rgb8"}],
        "control": {"frequency_hz": RATE_HZ, "chunk_size": ROWS, "rtc_execution_horizon": 20},
        "constraints": {"max_ee_velocity": 1.0, "collision_check": False},
    } | changes  # fmt: skip
    file = path / "robot.json"
    file.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return file


def loaded(path: Path, **changes: Any) -> Any:
    """The arm as it is read."""
    topic = {"kind": "joint_trajectory", "topic": "/arm_controller/joint_trajectory"}
    return load_embodiment(robot(path, topic, {"kind": "gripper_topic", "topic": "/hand"}, **changes))


def policy(
    path: Path, names: Sequence[str], felt_as: Mapping[str, Any], counted: Sequence[Mapping[str, Any]], gains: Doubles,
    offsets: Doubles, products: Sequence[tuple[int, int]] = (), **config: Any,
) -> Path:  # fmt: skip
    """Write an export: row i is gains[i] @ (state, products of two of its numbers) + offsets[i].

    gains: (ROWS, names, state + products). offsets: (ROWS, names).
    """
    path.mkdir(parents=True, exist_ok=True)
    width, dim = gains.shape[2] - len(products), len(names)
    graph = Graph(seed=5)
    felt = graph.input("state", FLOAT, [1, width])
    picked = [
        graph.op("Gather", felt, graph.constant(list(one), np.int64), axis=1)
        for one in zip(*products, strict=True)
    ]
    seen = graph.op("Concat", felt, graph.op("Mul", *picked), axis=1) if picked else felt
    seen = graph.op("Add", seen, graph.op("Mul", graph.mean(graph.input("img_front", FLOAT, [1, 3, 24, 32]), 1, 2, 3),
        graph.constant(0.0)))  # fmt: skip
    flat = graph.op("MatMul", seen, graph.constant(gains.reshape(-1, gains.shape[2]).T))
    rows = graph.op("Add", graph.shaped(flat, 1, len(gains), dim), graph.constant(offsets[None]))
    described = {"state": dict(felt_as), "action_space": list(counted)} | config
    return _written(path, graph, rows, names, len(gains), described)


def _written(
    path: Path, graph: Graph, rows: str, names: Sequence[str], count: int, config: Mapping[str, Any]
) -> Path:
    """Write a deterministic graph whose chunk is the tensor `rows`, and its description."""
    graph.output(rows, "actions", FLOAT, [1, count, len(names)])
    graph.save(path / "policy.onnx")
    written = {
        "model_id": "test/tool", "model_type": "tool", "export_kind": "monolithic", "policy": "deterministic",
        "graphs": {"monolithic": "policy.onnx"}, "actions_output": "actions", "chunk_size": count, "action_dim": len(names),
        "action_names": list(names), "frequency_hz": RATE_HZ, "images": [{"camera": "front", "input": "img_front", "mask": None}],
        "normalization": {"state": {"mode": "identity"}, "action": {"mode": "identity"}},
    } | dict(config)  # fmt: skip
    text = json.dumps({key: value for key, value in written.items() if value is not None})
    (path / "reflex_config.json").write_text(text)
    return path


def libero(path: Path, position: Sequence[float], yaw: float, **config: Any) -> Path:
    """An export of LIBERO's convention that leads a tool that points down to a position and a turn about the base's z.

    Such a tool is turned by pi about (cos yaw/2, sin yaw/2, 0), so that two numbers of its state tell the sine of its yaw.
    """
    gains, offsets = np.zeros((ROWS, 7, 9)), np.zeros((ROWS, 7))
    moves = slice(0, SPREAD)
    for axis in range(3):
        gains[moves, axis, axis] = -1 / 0.05 / SPREAD
        offsets[moves, axis] = position[axis] / 0.05 / SPREAD
    gains[moves, 5, 8] = -2 / np.pi**2 / 0.5 / SPREAD
    offsets[moves, 5] = np.sin(yaw) / 0.5 / SPREAD
    offsets[:, 6] = -1.0
    return policy(
        path, LIBERO_NAMES, LIBERO_STATE, [LIBERO_TOOL, LIBERO_HAND], gains, offsets, [(3, 4)], **config
    )


def absolute(path: Path, goal: Doubles, **config: Any) -> Path:
    """An export of absolute poses with 6D rotations that leads the tool from where it is to `goal`, (4, 4)."""
    wanted = np.concatenate((goal[:3, 3], KINDS["rot6d_columns"].of_matrix(goal[:3, :3])))
    gains, offsets = np.zeros((ROWS, 10, 10)), np.zeros((ROWS, 10))
    share = np.minimum(np.arange(1, ROWS + 1) / SPREAD, 1.0)
    for number in range(9):
        gains[:, number, number] = 1.0 - share
        offsets[:, number] = share * wanted[number]
    offsets[:, 9] = 1.0
    return policy(path, POSE_STATE["names"], POSE_STATE, [POSE_TOOL, POSE_HAND], gains, offsets, **config)


def blind(path: Path, goal: Doubles) -> Path:
    """An export of absolute poses that sees a picture alone: every row is `goal`, (4, 4)."""
    path.mkdir(parents=True, exist_ok=True)
    wanted = [*goal[:3, 3], *KINDS["rot6d_columns"].of_matrix(goal[:3, :3]), 1.0]
    graph = Graph(seed=5)
    idle = graph.op(
        "Mul", graph.mean(graph.input("img_front", FLOAT, [1, 3, 24, 32]), 1, 2, 3), graph.constant(0.0)
    )
    rows = graph.op("Add", graph.constant(np.tile(wanted, (1, ROWS, 1))), graph.shaped(idle, 1, 1, 1))
    return _written(path, graph, rows, POSE_STATE["names"], ROWS, {"action_space": [POSE_TOOL, POSE_HAND]})
