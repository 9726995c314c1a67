# SPDX-License-Identifier: Apache-2.0
"""Read the `groups` and `unused` of an embodiment, schema v2: every joint has one group, or a reason why nothing commands it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from reflex_core.files.json_fields import JsonFields, Refuse, is_number
from reflex_core.robot.embodiment import SATURATION_TOLERANCE, Doubles, TwoEnded
from reflex_core.robot.groups import (
    AXES,
    BASE,
    COMMANDS,
    GRIPPER,
    POSITION,
    SPACES,
    TOOL,
    VELOCITY,
    GripperEnds,
    Group,
)
from reflex_core.robot.kinematics.arm import Arm, arm_of
from reflex_core.robot.kinematics.description import Kinematics
from reflex_core.robot.output_options import KINDS, read_kind, read_options
from reflex_core.robot.units import LEAST
from reflex_core.text.untrusted import is_name

MOST_GROUPS = 16
GROUP_KEYS = "name space commands joints axes gripper output"
UNUSED_KEYS = "joints reason"
GRIPPER_KEYS = "open closed close_threshold saturation_tolerance"


@dataclass(frozen=True, slots=True)
class Grouped:
    """What the groups of a file say. grippers: their columns as the guard and the policy stage see them."""

    groups: tuple[Group, ...]
    grippers: tuple[TwoEnded, ...]


def read_groups(
    root: JsonFields, joint_names: Sequence[str], low: Doubles, high: Doubles, refuse: Refuse
) -> Grouped:
    """Return the groups of a document. low, high: the ranges of its columns. Raises a refusal naming group, key and joint."""
    blocks = root.get("groups")
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= MOST_GROUPS:
        raise refuse("groups", f"a list of 1 to {MOST_GROUPS} groups", blocks)
    pairs = [
        _group(JsonFields(block, refuse, f"groups[{at}]"), joint_names, low, high)
        for at, block in enumerate(blocks)
    ]
    groups = tuple(group for group, _ in pairs)
    names = [group.name for group in groups]
    if len(set(names)) != len(names):
        raise refuse("groups", "groups with different names", names)
    _check_owners(groups, _unused(root, joint_names, refuse), joint_names, refuse)
    _check_addresses(groups, refuse)
    return Grouped(groups, tuple(gripper for _, gripper in pairs if gripper is not None))


def with_arms(groups: tuple[Group, ...], kinematics: Kinematics | None, refuse: Refuse) -> tuple[Group, ...]:
    """Return the groups, those with the tool's arm whose interface commands where the tool is.

    Raises a refusal where that is not known, or the group has not all joints that move it.
    """
    return tuple(
        replace(group, arm=_arm(group, kinematics, f"groups[{at}].output", refuse))
        if KINDS[group.output].of_tool
        else group
        for at, group in enumerate(groups)
    )


def _arm(group: Group, kinematics: Kinematics | None, where: str, refuse: Refuse) -> Arm:
    if kinematics is None:
        raise refuse(
            f"{where}.kind",
            "one that commands joints, as the file has no 'kinematics' that say where the tool is",
            group.output,
        )
    try:
        arm = arm_of(kinematics, group.columns)
    except ValueError as error:
        raise refuse(
            f"{where}.kind",
            f"one that commands joints, or of a group with {error} as well, which moves the tool",
            group.output,
        ) from error
    if not arm.tree.steps:
        raise refuse(
            f"{where}.kind", f"one that commands joints, as none moves the tool '{arm.link}'", group.output
        )
    if group.options.get("frame") == arm.link:
        raise refuse(
            f"{where}.frame", "the robot's base, along whose axes commands are, and not the tool", arm.link
        )
    return arm


def _group(
    block: JsonFields, joint_names: Sequence[str], low: Doubles, high: Doubles
) -> tuple[Group, TwoEnded | None]:
    block.only(GROUP_KEYS.split())
    if not is_name(block.get("name")):
        raise block.refusal("name", "a short printable name")
    space = block.choice("space", SPACES)
    if space == TOOL:
        raise block.refusal(
            "space",
            "joints, gripper or base: commanding a tool's pose needs kinematics, which are not there yet",
        )
    commands = block.choice("commands", COMMANDS, VELOCITY if space == BASE else POSITION)
    joints = _joints(block, joint_names)
    columns = tuple(joint_names.index(name) for name in joints)
    output = block.fields("output")
    kind = read_kind(output, space, commands, len(columns))
    options = read_options(output, kind)
    for key, of_space in (("gripper", GRIPPER), ("axes", BASE)):
        if key in block and space != of_space:
            raise block.refusal(key, f"left out, as its space is {space}")
    ends, gripper = None, None
    if space == GRIPPER:
        if commands != POSITION:
            raise block.refusal("commands", f"{POSITION}, as open and closed are positions")
        ends, gripper = _gripper(block, columns, low, high)
        _check_options(output, ends)
    return Group(
        name=block["name"],
        columns=columns,
        names=_axes(block, joints) if space == BASE else joints,
        space=space,
        commands=commands,
        output=kind,
        options=options,
        gripper=ends,
    ), gripper


def _joints(block: JsonFields, joint_names: Sequence[str]) -> tuple[str, ...]:
    """Return the joints of a group or of an entry of `unused`, each one of the robot's and there once."""
    joints = block.names("joints", ())
    strangers = [name for name in joints if name not in joint_names]
    if not joints or strangers or len(set(joints)) != len(joints):
        raise block.refusal("joints", f"different names of 'joint_names' ({', '.join(joint_names)})")
    return joints


def _axes(block: JsonFields, joints: tuple[str, ...]) -> tuple[str, ...]:
    axes = block.names("axes", ())
    if len(axes) != len(joints) or len(set(axes)) != len(axes) or set(axes) - set(AXES):
        raise block.refusal("axes", f"one of {', '.join(AXES)} for each of {', '.join(joints)}")
    return axes


def _gripper(
    block: JsonFields, columns: tuple[int, ...], low: Doubles, high: Doubles
) -> tuple[GripperEnds, TwoEnded]:
    """Return where a gripper is open and closed, in rad or m of its joint, and its column as one with two ends."""
    if len(columns) != 1:
        raise block.refusal("joints", "the one joint of a gripper")
    table = block.fields("gripper").only(GRIPPER_KEYS.split())
    column = columns[0]
    least, most = float(low[column]), float(high[column])
    for key in ("open", "closed"):
        if not is_number(table.get(key), least, most):
            raise table.refusal(key, f"a position of its joint, from {least:g} to {most:g} (rad or m)")
    ends = GripperEnds(float(table["open"]), float(table["closed"]))
    if abs(ends.open - ends.closed) < LEAST:
        raise table.refusal("closed", f"another position than 'open' ({ends.open:g})")
    tolerance = table.number("saturation_tolerance", 0, 1, SATURATION_TOLERANCE)
    return ends, TwoEnded(column, _threshold(table, ends, least, most), saturation_tolerance=tolerance)


def _check_options(output: JsonFields, ends: GripperEnds) -> None:
    """Raise a refusal for options with which the gripper would never move."""
    travel = abs(ends.open - ends.closed)
    if output.get("dead_band", 0.0) >= travel:
        raise output.refusal("dead_band", f"less than the {travel:g} from open to closed")
    values = [output.get(key) for key in ("open_value", "closed_value")]
    if None in values and values != [None, None]:
        lacks = ("open_value", "closed_value")[values.index(None)]
        raise output.refusal(lacks, "there too, as the other of open_value and closed_value is")
    if values[0] is not None and values[0] == values[1]:
        raise output.refusal("closed_value", f"another number than 'open_value' ({values[0]:g})")


def _threshold(table: JsonFields, ends: GripperEnds, least: float, most: float) -> float | None:
    """Return the threshold in 0..1 of the range, of one in shares of the way from open to closed."""
    if "close_threshold" not in table:
        return None
    if {ends.open, ends.closed} != {least, most}:
        raise table.refusal(
            "close_threshold",
            f"left out, unless 'open' and 'closed' are the ends of the range ({least:g} and {most:g})",
        )
    share = table.number("close_threshold", 0, 1)
    return share if ends.closed > ends.open else 1.0 - share


def _unused(root: JsonFields, joint_names: Sequence[str], refuse: Refuse) -> tuple[str, ...]:
    """Return the joints that nothing commands, each with a reason."""
    blocks = root.get("unused", [])
    if not isinstance(blocks, list):
        raise refuse("unused", f"a list of objects with {UNUSED_KEYS.replace(' ', ' and ')}", blocks)
    found: list[str] = []
    for at, block in enumerate(blocks):
        entry = JsonFields(block, refuse, f"unused[{at}]").only(UNUSED_KEYS.split())
        found += _joints(entry, joint_names)
        if not entry.text("reason").strip():
            raise entry.refusal("reason", "why nothing commands them")
    return tuple(found)


def _check_owners(
    groups: tuple[Group, ...], unused: tuple[str, ...], joint_names: Sequence[str], refuse: Refuse
) -> None:
    """Raise a refusal where a joint belongs to no group, or to two."""
    owners = Counter(joint_names[column] for group in groups for column in group.columns) + Counter(unused)
    if lacks := [name for name in joint_names if not owners[name]]:
        raise refuse(
            "groups", f"groups that name every joint, or 'unused' with a reason, for {', '.join(lacks)}", None
        )
    if twice := [name for name in joint_names if owners[name] > 1]:
        of = [group.name for group in groups if joint_names.index(twice[0]) in group.columns]
        where = of + ["unused"] * unused.count(twice[0])
        raise refuse("groups", f"groups of which only one names '{twice[0]}'", where)


def _check_addresses(groups: tuple[Group, ...], refuse: Refuse) -> None:
    """Raise a refusal where two groups command the same topic or action: each would overwrite the other."""
    taken: dict[str, str] = {}
    for group in groups:
        for address in _addresses(group):
            if address in taken:
                at = "the node's own topic" if not address else f"'{address}'"
                raise refuse(
                    "groups", f"groups with a topic or action each, {at} has", [taken[address], group.name]
                )
            taken[address] = group.name


def _addresses(group: Group) -> Iterator[str]:
    for key in KINDS[group.output].addresses:
        yield str(group.options.get(key, ""))
