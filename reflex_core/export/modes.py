# SPDX-License-Identifier: Apache-2.0
"""How an export's actions become what the robot's groups are commanded, and every contradiction between the two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ConfigurationError
from reflex_core.export.action_modes import DELTA, RELATIVE, VELOCITY
from reflex_core.export.action_space import ActionColumn
from reflex_core.export.contract import Contract
from reflex_core.export.export import Export
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import GRIPPER, Group
from reflex_core.robot.groups import VELOCITY as COMMANDS_VELOCITY
from reflex_core.robot.units import PER_S

MISMATCH, MISSING = "action-space-mismatch", "action-space-missing"


@dataclass(frozen=True, slots=True)
class Modes:
    """What is done to a robot's actions, by their place in its order.

    stepped: those that the export itself calls offsets (0), steps (1) or velocities (dt_s) and that become positions.
    passed: velocities that stay velocities.
    """

    stepped: Mapping[int, float]
    passed: frozenset[int]


def modes_of(
    export: Export, contract: Contract, embodiment: Embodiment | None, columns: NDArray[np.intp], dt_s: float
) -> Modes:
    """Return what is done to the robot's actions. columns: the export's, in the robot's order.

    Raises ConfigurationError where export and embodiment say different things, or what is needed is not said.
    """
    stepped: dict[int, float] = {}
    passed: set[int] = set()
    groups = {
        column: group for group in (embodiment.groups if embodiment else ()) for column in group.columns
    }
    for at, column in enumerate(columns.tolist()):
        says = contract.action_space[column] if contract.action_space else ActionColumn()
        name = contract.action_names[column] if contract.action_names else f"action {column}"
        mode = says.mode or (RELATIVE if contract.relative and contract.relative[column] else "")
        _check_space(export, groups.get(at), name, says)
        _check_unit(export, name, says, mode)
        if at in groups and groups[at].commands == COMMANDS_VELOCITY:
            _require_velocity(export, groups[at], name, mode)
            passed.add(at)
        elif mode == VELOCITY:
            stepped[at] = _period(export, name, dt_s)
        elif says.mode in (DELTA, RELATIVE) and not (contract.relative and contract.relative[column]):
            stepped[at] = 1.0 if says.mode == DELTA else 0.0
    return Modes(stepped, frozenset(passed))


def mode_notes(contract: Contract, embodiment: Embodiment | None) -> Iterator[str]:
    """Yield what a declaration does not do, for the log."""
    declared = any(column.gripper for column in contract.action_space)
    if declared and embodiment is not None and embodiment.gripper is not None and not embodiment.groups:
        yield (
            "it says what open and closed of its gripper are, and the embodiment, of schema v1, does not: its numbers are taken as"
            " the robot's"
        )


def _check_space(export: Export, group: Group | None, name: str, says: ActionColumn) -> None:
    if group is not None and says.space and says.space != group.space:
        raise ConfigurationError(
            f"{export.config_path}: 'action_space' says that '{name}' is of space {says.space}, the embodiment's group"
            f" '{group.name}' is of space {group.space}: correct the one that is wrong",
            MISMATCH,
        )
    if group is not None and says.gripper is not None and group.space != GRIPPER:
        raise ConfigurationError(
            f"{export.config_path}: 'action_space' says what is open and closed of '{name}', the embodiment's group '{group.name}' is"
            f" of space {group.space}: correct the one that is wrong",
            MISMATCH,
        )


def _check_unit(export: Export, name: str, says: ActionColumn, mode: str) -> None:
    """Raise ConfigurationError where the unit is one of velocities, and the mode is not."""
    if says.unit.strip().lower() in PER_S and mode != VELOCITY:
        raise ConfigurationError(
            f"{export.config_path}: 'action_space' counts '{name}' in {says.unit}, and its mode is {mode or 'not written'}: write"
            ' "mode": "velocity", or another unit',
            MISMATCH if mode else MISSING,
        )


def _require_velocity(export: Export, group: Group, name: str, mode: str) -> None:
    """Raise ConfigurationError unless the export says that it gives velocities."""
    if mode == VELOCITY:
        return
    if mode:
        raise ConfigurationError(
            f"{export.config_path}: '{name}' is {mode}, and the embodiment's group '{group.name}' commands velocities: correct the"
            " one that is wrong",
            MISMATCH,
        )
    raise ConfigurationError(
        f"{export.config_path}: does not say whether '{name}' is a velocity, which group '{group.name}' commands: write"
        f' "action_space": [{{"columns": ["{name}"], "mode": "velocity"}}]',
        MISSING,
    )


def _period(export: Export, name: str, dt_s: float) -> float:
    if dt_s > 0:
        return dt_s
    raise ConfigurationError(
        f"{export.config_path}: '{name}' is a velocity, and without 'frequency_hz' nothing says for how long: write it, or name an"
        " embodiment",
        MISSING,
    )
