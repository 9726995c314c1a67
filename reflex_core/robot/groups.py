# SPDX-License-Identifier: Apache-2.0
"""Groups of action columns: what each means, and which robot interface commands it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JOINTS, GRIPPER, BASE, TOOL = "joints", "gripper", "base", "tool"  # spaces
POSITION, VELOCITY = (
    "position",
    "velocity",
)  # what a robot is commanded: policies that count otherwise are converted before


@dataclass(frozen=True, slots=True)
class Group:
    """Columns of the robot's actions that one robot interface commands.

    name: for messages; empty where the robot is one group. columns: in the robot's order. names: what the interface calls
    them: joints, or axes of a base. space: JOINTS, GRIPPER, BASE or TOOL. commands: POSITION in rad or m, or VELOCITY per
    second. output: the robot interface's name; empty: that of the setting `output`. options: of that interface, checked by it.
    """

    name: str
    columns: tuple[int, ...]
    names: tuple[str, ...]
    space: str = JOINTS
    commands: str = POSITION
    output: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def whole_robot(names: tuple[str, ...]) -> tuple[Group, ...]:
    """Return the one group of a robot whose description names none."""
    return (Group("", tuple(range(len(names))), names),)
