# SPDX-License-Identifier: Apache-2.0
"""Groups of action columns: what each means, and which robot interface commands it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.kinematics.arm import Arm

Mask = NDArray[np.bool_]

JOINTS, GRIPPER, BASE, TOOL = SPACES = ("joints", "gripper", "base", "tool")
# what a robot is commanded: policies that count otherwise are converted before
POSITION, VELOCITY = COMMANDS = ("position", "velocity")
# of a base, as geometry_msgs/Twist names its fields
AXES = ("linear.x", "linear.y", "linear.z", "angular.x", "angular.y", "angular.z")


@dataclass(frozen=True, slots=True)
class GripperEnds:
    """Positions of a gripper's joint in rad or m; either may be the larger."""

    open: float
    closed: float


@dataclass(frozen=True, slots=True)
class Group:
    """Columns of the robot's actions that one robot interface commands.

    name: for messages; empty where the robot is one group. columns: in the robot's order. names: what the interface calls
    them: joints, or axes of a base. space: JOINTS, GRIPPER, BASE or TOOL. commands: POSITION in rad or m, or VELOCITY per
    second. output: the robot interface's name; empty: that of the setting `output`. options: of that interface, checked by
    output_options.py. gripper: where it is open and closed; None for other groups, and for grippers of schema v1.
    arm: where the tool is for its columns, where its interface commands that; None for others.
    """

    name: str
    columns: tuple[int, ...]
    names: tuple[str, ...]
    space: str = JOINTS
    commands: str = POSITION
    output: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    gripper: GripperEnds | None = None
    arm: Arm | None = field(default=None, compare=False, repr=False)  # arrays compare to no truth


def whole_robot(names: tuple[str, ...]) -> tuple[Group, ...]:
    """Return the one group of a robot whose description names none."""
    return (Group("", tuple(range(len(names))), names),)


def renamed(groups: tuple[Group, ...], names: tuple[str, ...]) -> tuple[Group, ...]:
    """Return the groups with the robot's own names of all its columns. A base's axes keep theirs."""
    return tuple(
        group
        if group.space == BASE
        else replace(group, names=tuple(names[column] for column in group.columns))
        for group in groups
    )


def velocity_columns(groups: Sequence[Group], action_dim: int) -> Mask | None:
    """Return (action_dim,) true for columns that command a velocity; None where none does."""
    return _mask(
        [column for group in groups if group.commands == VELOCITY for column in group.columns], action_dim
    )


def unmeasured_columns(groups: Sequence[Group], action_dim: int) -> Mask | None:
    """Return (action_dim,) true for columns that are held whatever is measured; None where none is.

    Those that command a velocity, which 0 stops, and those that no robot interface commands.
    """
    positions = {column for group in groups if group.commands == POSITION for column in group.columns}
    return _mask([column for column in range(action_dim) if groups and column not in positions], action_dim)


def _mask(columns: Sequence[int], action_dim: int) -> Mask | None:
    if not columns:
        return None
    mask = np.zeros(action_dim, np.bool_)
    mask[list(columns)] = True
    return mask
