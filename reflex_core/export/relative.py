# SPDX-License-Identifier: Apache-2.0
"""Relative actions: the one place where offsets from the state become positions.

A policy may be trained on actions less the state that they were computed from (LeRobot's `relative_actions_processor`). Its
chunk is un-normalised, then the state of that very observation is added to every row: in the policy's own units, before
units and guard, so that everybody behind it sees positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ConfigurationError
from reflex_core.export.export import Export
from reflex_core.export.processors import PREPROCESSOR, RelativeActions
from reflex_core.files.json_fields import JsonFields, Refuse
from reflex_core.values import Floats

KEY = "relative_actions"


@dataclass(frozen=True, slots=True)
class Relative:
    """state_columns: (action_dim,) for each of the robot's actions the number of the state that it starts from, -1 for none."""

    state_columns: NDArray[np.intp]

    def base(self, state: Floats) -> Floats:
        """Return (action_dim,) float32 that offsets are added to; 0 for actions that are positions.

        state: (n,) float32 as it was measured, in the policy's order and not normalised.
        """
        here = self.state_columns >= 0
        base = np.zeros(len(self.state_columns), np.float32)
        base[here] = state[self.state_columns[here]]
        return base


def read_mask(
    export: Export, config: Mapping[str, Any], dim: int, names: tuple[str, ...], fail: Refuse
) -> tuple[bool, ...]:
    """Return (dim,) True for the export's actions that are offsets; () where none is.

    names: of its actions, where it has some. Raises ExportError where reflex_config.json is wrong, or contradicts
    LeRobot's processors.
    """
    steps = export.processors.relative if export.processors is not None else None
    of_steps = _mask_of(steps.mask(dim)) if steps is not None else ()
    if KEY not in config:
        return of_steps
    written = _written(config[KEY], dim, names, fail)
    if export.processors is not None and written != of_steps:
        raise fail(KEY, f"as {PREPROCESSOR} says ({_shown(of_steps)})", _shown(written))
    return written


def unmatched(export: Export, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the `exclude_joints` that no action's name contains: LeRobot silently excludes nothing for them.

    names: of its actions, where it has some; those next to `exclude_joints` are first.
    """
    steps, block = (
        export.processors.relative if export.processors is not None else None,
        export.config.get(KEY),
    )
    if steps is None and isinstance(block, Mapping) and block.get("enabled", True):
        steps = RelativeActions(
            tuple(block.get("exclude_joints") or ()), tuple(block.get("action_names") or names)
        )
    if steps is None:
        return ()
    known = [name.lower() for name in steps.action_names]
    return tuple(
        token for token in steps.exclude_joints if token and not any(token.lower() in name for name in known)
    )


def _written(block: Any, dim: int, names: tuple[str, ...], fail: Refuse) -> tuple[bool, ...]:
    if isinstance(block, bool):
        block = {"enabled": block}
    if not isinstance(block, dict) or set(block) - {"enabled", "mask", "exclude_joints", "action_names"}:
        raise fail(KEY, "true, false, or an object with enabled, mask, exclude_joints, action_names", block)
    fields = JsonFields(block, fail, KEY)
    enabled = fields.truth("enabled", default=True)
    # an empty or null list says nothing
    excluded = fields.names("exclude_joints") if block.get("exclude_joints") else ()
    steps = RelativeActions(excluded, fields.names("action_names") if block.get("action_names") else names)
    mask = block.get("mask", steps.mask(dim).tolist())
    if not isinstance(mask, list) or len(mask) != dim or not all(isinstance(one, bool) for one in mask):
        raise fail(f"{KEY}.mask", f"{dim} times true or false, one per action dimension", mask)
    if "mask" in block and excluded:
        raise fail(KEY, "an object with either mask or exclude_joints", block)
    return _mask_of(np.array(mask)) if enabled else ()


def _mask_of(mask: NDArray[np.bool_]) -> tuple[bool, ...]:
    return tuple(bool(one) for one in mask) if mask.any() else ()


def _shown(mask: tuple[bool, ...]) -> str:
    return f"offsets at {[index for index, one in enumerate(mask) if one]}" if mask else "no offsets"


def relative_of(
    export: Export, mask: tuple[bool, ...], columns: NDArray[np.intp], action_names: tuple[str, ...],
    state_names: tuple[str, ...], state_dim: int | None,
) -> Relative | None:  # fmt: skip
    """Return what a robot's actions are offsets from; None where they are positions.

    mask, action_names: of the export's actions. columns: those that the robot has, in its order. The state is added number
    by number, as in training. Raises ConfigurationError where the state cannot be what the actions start from.
    """
    if not mask:
        return None
    starts = np.array([column if mask[column] else -1 for column in columns.tolist()], dtype=np.intp)
    last = int(starts.max(initial=-1))
    if state_dim is not None and last >= state_dim:
        raise ConfigurationError(
            f"{export.path}: its action {last} is an offset from number {last} of the state, and the state has {state_dim}"
            " numbers",
            "state-dim-mismatch",
        )
    for column in starts[starts >= 0].tolist():
        name = action_names[column] if column < len(action_names) else ""
        if name in state_names and state_names[column] != name:
            raise ConfigurationError(
                f"{export.path}: its action {column}, '{name}', is an offset from number {column} of the state, and that is"
                f" '{state_names[column]}': the names of actions and state must be in one order",
                "joint-names-mismatch",
            )
    return Relative(starts)
