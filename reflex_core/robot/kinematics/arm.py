# SPDX-License-Identifier: Apache-2.0
"""Where the tool is and how it moves for the columns of one group of joints: of a setpoint, not of a whole chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.kinematics.description import Kinematics
from reflex_core.robot.kinematics.tree import Tree
from reflex_core.robot.poses import Poses
from reflex_core.robot.rotations import axis_angle_of_matrix

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Arm:
    """The joints of one group that move the tool. tree: its columns are the group's. link: the tool."""

    tree: Tree
    link: str

    def pose(self, q: Doubles) -> Poses:
        """Return the tool's pose in the robot's base. q: (width,) rad or m."""
        found = self.tree.poses(q[None])[0, 0]
        return Poses(found[:3, 3], found[:3, :3])

    def twist(self, q: Doubles, velocity: Doubles) -> Doubles:
        """Return (6,) the velocity of the tool's origin in m/s and its turning in rad/s, along the axes of the base.

        q, velocity: (width,) rad or m, and per second.
        """
        found: Doubles = self.tree.jacobians(q[None], self.link)[0] @ velocity
        return found


def arm_of(kinematics: Kinematics, columns: Sequence[int]) -> Arm:
    """Return the arm of a group with these columns of the robot. Raises ValueError with the joints it lacks."""
    tree, tool = kinematics.tree, kinematics.tool
    at = tree.links.index(tool)
    step, kept = tree.ends[at][0], set[int]()
    while step >= 0:
        kept.add(step)
        step = tree.steps[step].parent
    order = sorted(kept)
    place = {step: new for new, step in enumerate(order)} | {-1: -1}
    lacks = [tree.joints[tree.steps[step].column] for step in order if tree.steps[step].column not in columns]
    if lacks:
        raise ValueError(", ".join(dict.fromkeys(lacks)))
    steps = tuple(
        replace(one, parent=place[one.parent], column=list(columns).index(one.column))
        for one in (tree.steps[step] for step in order)
    )
    end, pose = tree.ends[at]
    names = tuple(tree.joints[column] for column in columns)
    return Arm(Tree(names, (tool,), steps, ((place[end], pose),)), tool)


def away(here: Poses, there: Poses) -> Doubles:
    """Return (6,) the way from one pose to the other: m, and rad about one axis, along the axes of the base."""
    turned = axis_angle_of_matrix(there.rotation @ here.rotation.T)
    return np.concatenate((there.position - here.position, turned))
