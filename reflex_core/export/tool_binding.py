# SPDX-License-Identifier: Apache-2.0
"""Bind an export that commands a tool's pose to a robot whose tool is described, or raise why they do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from reflex_core.errors import ConfigurationError
from reflex_core.export.action_modes import ABSOLUTE
from reflex_core.export.action_space import UNSAID, tool_of
from reflex_core.export.contract import Contract, StateSlot
from reflex_core.export.declared_units import KEY as UNITS
from reflex_core.export.declared_units import declares_units
from reflex_core.export.export import Export
from reflex_core.export.gripper_sense import Sense, grippers, unexplained
from reflex_core.export.state_space import StateJoint, StateSpace
from reflex_core.export.tool_rows import OtherColumn, SeenState, ToolRows
from reflex_core.files.json_fields import leaves
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import TOOL, unmeasured_columns
from reflex_core.robot.kinematics.inverse import Inverse
from reflex_core.robot.units import NO_UNIT, SI, UNIT_OF
from reflex_core.text.untrusted import shown

SLUG, MISMATCH = "tool-space", "action-space-mismatch"


def tool_rows(export: Export, contract: Contract, embodiment: Embodiment | None) -> ToolRows | None:
    """Return how the export's rows of a tool's pose become the robot's joint rows; None where it commands no tool.

    Without an embodiment absolute poses are served as they are, and command nothing. Raises ConfigurationError where robot and
    export do not fit, what is needed is not said, or pinocchio is not installed.
    """
    tool, slot = tool_of(contract.action_space), contract.state
    if tool is None:
        if slot is not None and slot.space is not None and embodiment is not None:
            raise _error(
                export,
                f"its state is declared by 'state.tool' or 'state.joints', and no action of it is of space {TOOL}",
            )
        return None
    if embodiment is None:
        if tool.mode == ABSOLUTE:
            return None
        raise _error(
            export,
            f"its actions are {tool.mode} to a tool's pose, which needs the robot's kinematics: name an embodiment",
        )
    if embodiment.kinematics is None:
        raise _error(
            export,
            f"its actions are a tool's pose, and embodiment '{embodiment.name}' has no 'kinematics' that say where its tool is",
        )
    _check_numbers(export, contract)
    kinematics = embodiment.kinematics
    inverse = Inverse(
        kinematics.tree,
        kinematics.tool,
        embodiment.action_min,
        embodiment.action_max,
        f"{export.where}: a policy of a tool's pose",
    )
    statistics = export.action_statistics
    if statistics is not None:  # of a padded chunk, those of its own columns
        statistics = statistics.chosen(np.arange(contract.action_dim))
    return ToolRows(
        space=tool,
        others=tuple(_others(export, contract, embodiment, inverse)),
        statistics=statistics,
        seen=_seen(export, slot, embodiment),
        tree=kinematics.tree,
        link=kinematics.tool,
        inverse=inverse,
    )


def tool_notes(rows: ToolRows | None, contract: Contract, embodiment: Embodiment | None) -> Iterator[str]:
    """Yield what is taken for granted, for the log."""
    if rows is None or embodiment is None:
        return
    for other in rows.others:
        theirs, ours = _called(contract, other.column), embodiment.joint_names[other.joint]
        if theirs != ours:
            yield f"its '{theirs}' is taken as the gripper '{ours}', the only column beside the tool on both sides"


def _error(export: Export, what: str, slug: str = SLUG) -> ConfigurationError:
    return ConfigurationError(f"{export.config_path}: {what}", slug)


def _called(contract: Contract, column: int) -> str:
    return contract.action_names[column] if contract.action_names else f"action {column}"


def _check_numbers(export: Export, contract: Contract) -> None:
    """Raise where something beside `action_space` says that the numbers are no metres and radians of a pose."""
    if not export.says_how_it_normalises:
        raise _error(
            export,
            "does not say how its actions of a tool's pose are normalised, and an embodiment's statistics are of joints: write"
            ' "normalization"',
        )
    if declares_units(export):
        for unit in leaves(export.config[UNITS]):
            if UNIT_OF[str(unit).strip().lower()] != SI:
                raise _error(
                    export,
                    f"'{UNITS}' has {shown(unit)}, and 'action_space' a tool's pose, which is in m and rad: write a scale",
                    MISMATCH,
                )
    if any(contract.relative):
        raise _error(
            export, "'relative_actions' says that actions are offsets number by number, and 'action_space' that they are a tool's pose", MISMATCH
        )  # fmt: skip


def _others(
    export: Export, contract: Contract, embodiment: Embodiment, inverse: Inverse
) -> Iterator[OtherColumn]:
    """Yield the columns beside the tool, each as one joint of the robot that does not move the tool."""
    theirs = [
        column for column in range(contract.action_dim)
        if not contract.action_space or contract.action_space[column].tool is None
    ]  # fmt: skip
    idle = unmeasured_columns(embodiment.groups, embodiment.action_dim)
    moves = set(inverse.columns.tolist())
    ours = [at for at in range(embodiment.action_dim) if at not in moves and (idle is None or not idle[at])]
    names = {embodiment.joint_names[at]: at for at in ours}
    pairs = {column: names[name] for column in theirs if (name := _called(contract, column)) in names}
    left = [at for at in ours if at not in pairs.values()]
    strangers = [column for column in theirs if column not in pairs]
    ends = grippers(embodiment)
    if len(left) == len(strangers) == 1 and left[0] in ends:
        pairs[strangers[0]] = left[0]
    elif left or strangers:
        raise _error(
            export,
            f"beside the tool it has {', '.join(_called(contract, one) for one in theirs) or 'nothing'}, and embodiment"
            f" '{embodiment.name}' has {', '.join(embodiment.joint_names[at] for at in ours) or 'nothing'}: each must be the"
            " other's, by name",
            MISMATCH,
        )
    for column, at in pairs.items():
        yield _other(export, contract, embodiment, column, at)


def _other(export: Export, contract: Contract, embodiment: Embodiment, column: int, at: int) -> OtherColumn:
    says, name = contract.action_space[column] if contract.action_space else UNSAID, _called(contract, column)
    group = next((one for one in embodiment.groups if at in one.columns), None)
    if group is not None and says.space and says.space != group.space:
        raise _error(
            export,
            f"'action_space' says that '{name}' is of space {says.space}, the embodiment's group '{group.name}' is of space"
            f" {group.space}: correct the one that is wrong",
            MISMATCH,
        )
    if says.mode not in ("", ABSOLUTE):
        raise _error(
            export, f"'{name}' is {says.mode}, and beside a tool's pose columns must be {ABSOLUTE}", MISMATCH
        )
    unit = says.unit.strip().lower()
    if unit and UNIT_OF[unit] != SI:
        raise _error(
            export,
            f"counts '{name}' in {says.unit}, and beside a tool's pose columns must be in rad or m: write a scale",
            MISMATCH,
        )
    joint = grippers(embodiment).get(at)
    if joint is None or says.gripper is None:
        declared = bool(unit and unit not in NO_UNIT) or declares_units(export)
        if joint is not None and not declared:
            raise unexplained(export, name)
        return OtherColumn(at, column, 1.0 / says.scale)
    sense = Sense(says.gripper, joint)
    return OtherColumn(at, column, sense.factor, sense.offset)


def _seen(export: Export, slot: StateSlot | None, embodiment: Embodiment) -> SeenState:
    """Return the policy's state as numbers of the robot's joints."""
    if slot is None or (slot.input is None and not slot.bins):
        return SeenState((), 0, (), "", (), None)
    says, statistics = slot.space or StateSpace(), export.state_statistics
    known = (*says.pose, *(one.number for one in says.joints))
    dim = len(slot.names) or (statistics.dim if statistics is not None else 0) or max(known, default=-1) + 1
    if statistics is not None and statistics.dim != dim:
        raise _error(
            export,
            f"its state has {dim} names, its statistics have {statistics.dim} numbers",
            "state-dim-mismatch",
        )
    if not known and not slot.names:
        raise _error(
            export,
            f'does not say what the numbers of its state are: write "state": {{"names": [...]}} of joints'
            f' ({", ".join(embodiment.joint_names)}), or "tool" for a pose',
        )
    columns = {name: at for at, name in enumerate(embodiment.joint_names)}
    joints = {one.number: one for one in says.joints}
    joints |= {
        number: StateJoint(number, name)
        for number, name in enumerate(slot.names)
        if number not in known and name in columns
    }
    _check_state(export, slot, dim, joints, says, columns)
    made = tuple((columns[one.joint], one) for one in joints.values())
    return SeenState(slot.names, dim, says.pose, says.rotation, made, statistics)


def _check_state(
    export: Export, slot: StateSlot, dim: int, joints: Mapping[int, StateJoint], says: StateSpace, columns: Mapping[str, int]
) -> None:  # fmt: skip
    for one in joints.values():
        if one.joint not in columns:
            raise _error(
                export,
                f"'state.joints' has '{one.joint}', and the robot has {', '.join(columns)}",
                "joint-names-mismatch",
            )
    lacks = [number for number in range(dim) if number not in joints and number not in says.pose]
    if not lacks and not [number for number in (*says.pose, *joints) if number >= dim]:
        return
    named = ", ".join(slot.names[one] if slot.names else str(one) for one in lacks)
    raise _error(
        export,
        f"its state has {dim} numbers, of which {named or 'less than it declares'} is neither of the tool's pose nor a joint of"
        f' the robot ({", ".join(columns)}): write "state": {{"joints": [{{"column": ..., "joint": ...}}]}}',
        "state-dim-mismatch",
    )
