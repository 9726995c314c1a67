# SPDX-License-Identifier: Apache-2.0
"""The block `action_space` of reflex_config.json: how an export counts each number of its actions.

What it leaves unsaid is not guessed: `units` and `relative_actions` say part of it in exports that have them, and the same
said twice must be the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reflex_core.export.action_modes import FROM_THE_STATE, MODES, RELATIVE, VELOCITY
from reflex_core.export.tool_space import ToolSpace, read_tool
from reflex_core.files.json_fields import JsonFields, Refuse, is_number, is_whole
from reflex_core.robot.groups import BASE, GRIPPER, SPACES, TOOL, GripperEnds
from reflex_core.robot.units import UNIT_OF

KEY = "action_space"
KEYS = "columns space mode unit scale frame rotation gripper"

LEAST_SCALE, MOST_SCALE = 1e-6, 1e6


@dataclass(frozen=True, slots=True)
class ActionColumn:
    """How an export counts one number of its actions; empty, or None, where it does not say.

    unit: as written. scale: what 1 of the policy is in that unit. gripper: the policy's numbers for open and closed. tool: the
    pose that the number is one of.
    """

    space: str = ""
    mode: str = ""
    unit: str = ""
    scale: float = 1.0
    gripper: GripperEnds | None = None
    tool: ToolSpace | None = None

    @property
    def starts(self) -> bool:
        """True when a state is needed to make a position of it; the velocity of a base stays one."""
        return self.mode in FROM_THE_STATE and not (self.space == BASE and self.mode == VELOCITY)


UNSAID = ActionColumn()


def read_action_space(
    config: Mapping[str, Any],
    dim: int,
    names: tuple[str, ...],
    relative: tuple[bool, ...] | None,
    fail: Refuse,
) -> tuple[ActionColumn, ...]:
    """Return (dim,) how each number of the actions is counted, () where nothing is said.

    names: of the actions. relative: what `relative_actions` or LeRobot's processors say, None where they say nothing.
    Raises fail's error for what is not known, said twice, or said differently.
    """
    if KEY not in config:
        return ()
    entries = config[KEY]
    if not isinstance(entries, list):
        raise fail(KEY, f"a list of objects with columns and any of {', '.join(KEYS.split()[1:])}", entries)
    found: list[ActionColumn | None] = [None] * dim
    for at, entry in enumerate(entries):
        block = JsonFields(entry, fail, f"{KEY}[{at}]").only(KEYS.split())
        columns = _columns(block, dim, names)
        scales = _scales(block, len(columns))
        tool = read_tool(block, columns, scales) if block.get("space") == TOOL else None
        if tool is not None and tool_of(found) is not None:
            raise block.refusal("space", f"{TOOL} in one entry: a robot has one tool here")
        for column, scale in zip(columns, scales, strict=True):
            if found[column] is not None:
                raise block.refusal(
                    "columns", f"columns that no other entry names, as {_called(column, names)}"
                )
            found[column] = _column(block, scale, tool)
    whole = tuple(one or UNSAID for one in found)
    if relative is not None:
        _check_relative(whole, relative, names, fail)
    return whole


def tool_of(space: Iterable[ActionColumn | None]) -> ToolSpace | None:
    """Return the tool's pose that some columns are; None where none is one."""
    return next((one.tool for one in space if one is not None and one.tool is not None), None)


def _columns(block: JsonFields, dim: int, names: tuple[str, ...]) -> tuple[int, ...]:
    written = block.get("columns")
    expected = f"a list of names ({', '.join(names)})" if names else f"a list of numbers from 0 to {dim - 1}"
    if not isinstance(written, list) or not written:
        raise block.refusal("columns", expected)
    columns = []
    for one in written:
        if isinstance(one, str) and one in names:
            columns.append(names.index(one))
        elif is_whole(one, 0, dim - 1):
            columns.append(one)
        else:
            raise block.refusal("columns", expected)
    if len(set(columns)) != len(columns):
        raise block.refusal("columns", "different columns")
    return tuple(columns)


def _scales(block: JsonFields, count: int) -> Sequence[float]:
    """Return the scale of each column of an entry: one for all, or one for each."""
    written = block.get("scale", 1.0)
    scales = written if isinstance(written, list) else [written] * count
    if len(scales) != count or not all(is_number(one, LEAST_SCALE, MOST_SCALE) for one in scales):
        raise block.refusal("scale", f"a positive number, or {count} of them")
    return [float(one) for one in scales]


def _column(block: JsonFields, scale: float, tool: ToolSpace | None) -> ActionColumn:
    space = block.choice("space", SPACES) if "space" in block else ""
    unit = block.text("unit", "")
    if unit and unit.strip().lower() not in UNIT_OF:
        raise block.refusal("unit", "radians, metres, degrees, percent or norm100")
    for key in ("frame", "rotation"):
        if key in block and space != TOOL:
            raise block.refusal(key, f"left out, as its space is {space or 'not written'} and not {TOOL}")
    gripper = _gripper(block, space) if "gripper" in block else None
    if gripper is not None and scale != 1.0:
        raise block.refusal("scale", "left out, as 'gripper' says what the numbers mean")
    return ActionColumn(
        space=space,
        mode=block.choice("mode", MODES) if "mode" in block else "",
        unit=unit,
        scale=scale,
        gripper=gripper,
        tool=tool,
    )


def _gripper(block: JsonFields, space: str) -> GripperEnds:
    if space not in ("", GRIPPER):
        raise block.refusal("gripper", f"left out, as its space is {space}")
    table = block.fields("gripper").only(("open", "closed"))
    ends = GripperEnds(table.number("open"), table.number("closed"))
    if abs(ends.open - ends.closed) < LEAST_SCALE:
        raise table.refusal("closed", f"another number than 'open' ({ends.open:g})")
    return ends


def _check_relative(
    found: tuple[ActionColumn, ...], relative: tuple[bool, ...], names: tuple[str, ...], fail: Refuse
) -> None:
    """Raise where a mode is not what `relative_actions` or the processors say of the same column."""
    mask = relative or (False,) * len(found)
    for column, one in enumerate(found):
        if one.tool is not None and not mask[column]:
            continue  # poses are not subtracted number by number
        if one.mode and (one.mode == RELATIVE) != mask[column]:
            known = "offsets from the state" if mask[column] else "no offsets from the state"
            raise fail(
                KEY,
                f"as relative_actions or LeRobot's processors say of {_called(column, names)} ({known})",
                one.mode,
            )


def _called(column: int, names: tuple[str, ...]) -> str:
    return f"'{names[column]}'" if names else f"action {column}"
