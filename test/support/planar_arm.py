# SPDX-License-Identifier: Apache-2.0
"""An arm of two links of 1 m that turn about z, stretched along x at 0, and what its tool may do."""

from __future__ import annotations

from typing import Any

import numpy as np

from reflex_core.robot.kinematics.capsules import Capsule
from reflex_core.robot.kinematics.description import Kinematics
from reflex_core.robot.kinematics.tree import tree_of
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.reachable import Motion, Start
from reflex_core.robot.limits.tool_limits import ToolLimits, ToolRules
from reflex_core.values import Floats

NAMES = ("shoulder", "elbow")
DT_S = 0.05
URDF = """<robot name="planar">
  <link name="base"/><link name="upper"/><link name="lower"/><link name="hand"/>
  <joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="0 0 1"/></joint>
  <joint name="elbow" type="revolute">
    <parent link="upper"/><child link="lower"/><origin xyz="1 0 0"/><axis xyz="0 0 1"/>
  </joint>
  <joint name="wrist" type="fixed"><parent link="lower"/><child link="hand"/><origin xyz="1 0 0"/></joint>
</robot>"""
BODIES = (
    Capsule("base", np.array([-0.5, 0.0, 0.0]), np.array([0.0, 0.0, 0.0]), 0.1),
    Capsule("hand", np.zeros(3), np.zeros(3), 0.05),
)


def planar(**rules: Any) -> Limits:
    """The limits of the arm, 3 rad either way and 4 rad/s; `acceleration` in rad/s^2, the others are those of ToolRules."""
    acceleration = float(rules.pop("acceleration", np.inf))
    tree = tree_of(URDF.encode(), "planar.urdf", NAMES, ["hand", "base"])
    far, none = np.full(2, 3.0), np.zeros(2, np.bool_)
    tool = ToolLimits(Kinematics(tree, "hand", BODIES, ((0, 1),)), ToolRules(**rules), far)
    return Limits(
        NAMES, -far, far, np.full(2, 4.0), np.full(2, acceleration), none, none, tool=tool, together=True
    )


def at_rest(*q: float) -> Motion:
    """The robot stands at q, as it was commanded to."""
    return Motion(Start(np.array(q), np.array(q), np.zeros(2)))


def towards(begin: tuple[float, float], end: tuple[float, float], count: int = 30) -> Floats:
    """(count, 2) rows from one place to another, by a cosine: at rest at both ends."""
    share = (1.0 - np.cos(np.pi * np.arange(1, count + 1) / count))[:, None] / 2.0
    rows = np.array(begin) + (np.array(end) - np.array(begin)) * share
    return rows.astype(np.float32)
