# SPDX-License-Identifier: Apache-2.0
"""The arm of test/fixtures/urdf/arm7.urdf with the joint names of a Panda, and files that describe it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from exports import PANDA_JOINTS
from grouped_robots import document
from repository import FIXTURES

from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.kinematics.capsules import Capsule
from reflex_core.robot.kinematics.description import Kinematics
from reflex_core.robot.kinematics.tree import tree_of

TOOL = "link8"
URDF = (FIXTURES / "urdf" / "arm7.urdf").read_text().replace('joint name="joint', 'joint name="panda_joint')
ONES, ZEROS = [1.0] * 7, [0.0] * 7


def kinematics() -> Kinematics:
    """Return the arm with two bodies that may touch: base and hand."""
    bodies = (
        Capsule("base", np.zeros(3), np.array([0.0, 0.0, 0.25]), 0.1),
        Capsule(TOOL, np.zeros(3), np.array([0.0, 0.0, 0.1]), 0.06),
    )
    tree = tree_of(URDF.encode(), "panda.urdf", PANDA_JOINTS, [TOOL, "base"])
    return Kinematics(tree, TOOL, bodies, ((0, 1),))


def described(folder: Path, max_ee_velocity: float, **changes: Any) -> Path:
    """Write an embodiment of schema v2 with its URDF beside it; return its path."""
    (folder / "panda.urdf").write_text(URDF)
    joints: list[str] = list(PANDA_JOINTS)
    arm = {"name": "arm", "space": "joints", "joints": joints, "output": {"kind": "joint_trajectory"}}
    path = folder / "described.json"
    path.write_text(json.dumps(document(**{
        "joint_names": joints, "action_space": {"type": "continuous", "dim": 7, "ranges": [[-3.0, 3.8]] * 7},
        "velocity_max": [2.175] * 7, "groups": [arm],
        "normalization": {"mean_action": ZEROS, "std_action": ONES, "mean_state": ZEROS, "std_state": ONES},
        "constraints": {"max_ee_velocity": max_ee_velocity, "collision_check": False},
        "kinematics": {"urdf": "panda.urdf", "tool": TOOL},
    } | changes)))  # fmt: skip
    return path


def fastest(robot: Embodiment | Kinematics, q: Any, seconds: float) -> float:
    """Return the greatest speed of the tool along q (n, 7), `seconds` between two rows."""
    known = robot.kinematics if isinstance(robot, Embodiment) else robot
    assert known is not None
    at = known.tree.poses(np.asarray(q, np.float64))[0][:, :3, 3]
    return float(np.linalg.norm(np.diff(at, axis=0), axis=1).max()) / seconds
