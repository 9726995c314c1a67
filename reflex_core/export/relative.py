# SPDX-License-Identifier: Apache-2.0
"""What a robot's actions start from: the one place where offsets, steps and velocities become positions.

A policy may be trained on actions less the state that they were computed from (LeRobot's `relative_actions_processor`), on
steps from one row to the next, or on velocities. Its chunk is un-normalised, then the state of that very observation is
added: in rad and m, before gripper and guard, so that everybody behind it sees positions. The velocities of a base stay what
they are.
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

Doubles = NDArray[np.float64]

KEY = "relative_actions"


@dataclass(frozen=True, slots=True)
class Relative:
    """How a robot's actions become positions; one entry per action.

    state_columns: the number of the state that an action starts from, -1 for none. steps: how far one unit of a row leads from
    the row before: 1 for steps, dt_s for velocities, 0 for what is no step; None where none is.
    """

    state_columns: NDArray[np.intp]
    steps: Doubles | None = None

    def base(self, state: Floats) -> Floats:
        """Return (action_dim,) float32 that offsets are added to; 0 for actions that are positions.

        state: (n,) float32 as it was measured, in the policy's order and not normalised.
        """
        here = self.state_columns >= 0
        base = np.zeros(len(self.state_columns), np.float32)
        base[here] = state[self.state_columns[here]]
        return base

    def positions(self, actions: Floats, base: Floats) -> Floats:
        """Return (n, action_dim) positions of a chunk from `base`, without a change of what is neither offset nor step."""
        if self.steps is None:
            return actions + base
        summed = actions.astype(np.float64)
        stepped = self.steps != 0
        summed[:, stepped] = np.cumsum(summed[:, stepped] * self.steps[stepped], axis=0)
        return (summed + base).astype(np.float32)

    def offsets(self, positions: Floats, base: Floats) -> Floats:
        """Return (n, action_dim) that `positions` makes these of."""
        away: Floats = positions - base
        return away if self.steps is None else self._apart(away)

    def changes(self, added: Floats) -> Floats:
        """Return (n, action_dim) by how much a chunk differs where its positions differ by `added`."""
        return added if self.steps is None else self._apart(added)

    def corrected(self, actions: Floats, elapsed_rows: float, before: Floats, now: Floats) -> Floats:
        """Return (n or 1, action_dim) to add to a chunk's left-over, so that it leads from `now` to the same positions.

        actions: (n, action_dim) the whole chunk before positions were made of it. elapsed_rows: those that are over. before,
        now: the bases. An offset moves in every row; of steps and velocities the first one makes up for what moved.
        """
        moved = before - now
        if self.steps is None:
            return moved[None]
        stepped, added = self.steps != 0, np.zeros(actions.shape, np.float32)
        added[:] = np.where(stepped, 0.0, moved)
        # where the chunk leads at the row before its left-over begins: its base before the first row
        path = np.concatenate((np.zeros((1, len(moved)), np.float32), self.positions(actions, 0 * before)))
        at = min(max(elapsed_rows, 0.0), len(actions))
        low = min(int(np.floor(at + 1e-6)), len(actions) - 1)
        led = path[low] + (at - low) * (path[low + 1] - path[low])
        added[0, stepped] = (led + moved)[stepped] / self.steps[stepped]
        return added

    def _apart(self, positions: Floats) -> Floats:
        """Return (n, action_dim) with positions of what is a step as steps from row to row, the first one from 0."""
        assert self.steps is not None
        apart, stepped = positions.copy(), self.steps != 0
        differences = np.diff(positions[:, stepped].astype(np.float64), axis=0, prepend=0.0)
        apart[:, stepped] = differences / self.steps[stepped]
        return apart


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
    state_names: tuple[str, ...], state_dim: int | None, stepped: Mapping[int, float] | None = None,
) -> Relative | None:  # fmt: skip
    """Return what a robot's actions are offsets or steps from; None where they are positions.

    mask, action_names: of the export's actions. columns: those that the robot has, in its order. stepped: the robot's actions
    that are steps from row to row, with the factor of a step. Offsets start from the state number by number, as in training;
    steps from the number that has the action's name, where the state has names. Raises ConfigurationError where the state
    cannot be what the actions start from.
    """
    stepped = stepped or {}
    if not mask and not stepped:
        return None
    starts = np.full(len(columns), -1, dtype=np.intp)
    for at, column in enumerate(columns.tolist()):
        if at in stepped:
            starts[at] = _measuring(export, column, action_names, state_names)
        elif mask and mask[column]:
            starts[at] = column
    for column, start in zip(columns.tolist(), starts.tolist(), strict=True):
        if start >= 0:
            _check_start(export, column, start, action_names, state_names, state_dim)
    if not stepped:
        return Relative(starts)
    steps = np.zeros(len(columns))
    steps[list(stepped)] = list(stepped.values())
    return Relative(starts, steps)


def _measuring(
    export: Export, column: int, action_names: tuple[str, ...], state_names: tuple[str, ...]
) -> int:
    """Return the number of the state that measures an action."""
    if not action_names or not state_names:
        return column
    name = action_names[column]
    if name not in state_names:
        raise ConfigurationError(
            f"{export.where}: its action {column}, '{name}', starts from where the robot is, and the state ({', '.join(state_names)})"
            " does not hold that",
            "joint-names-mismatch",
        )
    return state_names.index(name)


def _check_start(
    export: Export, column: int, start: int, action_names: tuple[str, ...], state_names: tuple[str, ...],
    state_dim: int | None,
) -> None:  # fmt: skip
    if state_dim is not None and start >= state_dim:
        raise ConfigurationError(
            f"{export.where}: its action {column} is an offset from number {start} of the state, and the state has {state_dim}"
            " numbers",
            "state-dim-mismatch",
        )
    name = action_names[column] if column < len(action_names) else ""
    if name in state_names and state_names[start] != name:
        raise ConfigurationError(
            f"{export.where}: its action {column}, '{name}', is an offset from number {start} of the state, and that is"
            f" '{state_names[start]}': the names of actions and state must be in one order",
            "joint-names-mismatch",
        )
