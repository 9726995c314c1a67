# SPDX-License-Identifier: Apache-2.0
"""The numbers of an export's state that are a tool's pose, and those that are joints by another name.

`state.tool` and `state.joints` of reflex_config.json: a robot measures joints, and what a policy saw in training is made of
them. Numbers that neither names are the joints of their names.
"""

from __future__ import annotations

from dataclasses import dataclass

from reflex_core.export.action_space import LEAST_SCALE, MOST_SCALE
from reflex_core.export.tool_space import POSITION
from reflex_core.files.json_fields import JsonFields, is_whole
from reflex_core.robot import rotations

TOOL_KEYS = "columns rotation"
JOINT_KEYS = "column joint factor offset"


@dataclass(frozen=True, slots=True)
class StateJoint:
    """A number of the state: factor * (the joint in rad or m) + offset."""

    number: int
    joint: str
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class StateSpace:
    """What numbers of a state are. pose: x, y, z, then those of `rotation` (a key of `rotations.KINDS`); () without a tool."""

    pose: tuple[int, ...] = ()
    rotation: str = ""
    joints: tuple[StateJoint, ...] = ()


def read_state_space(block: JsonFields, names: tuple[str, ...], most: int) -> StateSpace | None:
    """Return what the block `state` says of its numbers; None where it says nothing.

    names: of the numbers, where they have some. most: how many there may be. Raises the block's refusals.
    """
    if "tool" not in block and "joints" not in block:
        return None
    pose, rotation = _pose(block.fields("tool"), names, most) if "tool" in block else ((), "")
    entries = block.get("joints", [])
    if not isinstance(entries, list):
        raise block.refusal("joints", f"a list of objects with {', '.join(JOINT_KEYS.split())}")
    joints = tuple(_joint(block, at, names, most) for at in range(len(entries)))
    taken = [*pose, *(joint.number for joint in joints)]
    if twice := [number for number in taken if taken.count(number) > 1]:
        raise block.refusal("joints", f"of numbers that have one meaning, number {twice[0]} has more")
    return StateSpace(pose, rotation, joints)


def _pose(block: JsonFields, names: tuple[str, ...], most: int) -> tuple[tuple[int, ...], str]:
    block.only(TOOL_KEYS.split())
    rotation = block.choice("rotation", rotations.KINDS)
    wanted = POSITION + rotations.KINDS[rotation].width
    written = block.get("columns")
    if not isinstance(written, list) or len(written) != wanted:
        raise block.refusal(
            "columns", f"{wanted} numbers of the state, x, y, z and {wanted - POSITION} of {rotation}"
        )
    columns = tuple(_number(block, "columns", one, names, most) for one in written)
    if len(set(columns)) != wanted:
        raise block.refusal("columns", f"{wanted} different numbers of the state")
    return columns, rotation


def _joint(block: JsonFields, at: int, names: tuple[str, ...], most: int) -> StateJoint:
    entry = block.item("joints", at).only(JOINT_KEYS.split())
    number = _number(entry, "column", entry.get("column"), names, most)
    factor = entry.number("factor", -MOST_SCALE, MOST_SCALE, 1.0)
    if abs(factor) < LEAST_SCALE:
        raise entry.refusal("factor", "a number that is not 0")
    joint = entry.text("joint", expected="the name of one of the robot's joints")
    return StateJoint(number, joint, factor, entry.number("offset", -MOST_SCALE, MOST_SCALE, 0.0))


def _number(block: JsonFields, key: str, written: object, names: tuple[str, ...], most: int) -> int:
    if isinstance(written, str) and written in names:
        return names.index(written)
    if is_whole(written, 0, most - 1):
        return written
    raise block.refusal(key, f"of {', '.join(names)}" if names else f"numbers from 0 to {most - 1}")
