# SPDX-License-Identifier: Apache-2.0
"""Apply an embodiment's gripper and payload release to a chunk in physical units."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import GripperEnds
from reflex_core.values import Columns, Floats

Mask = NDArray[np.bool_]

NEAR_SHARE = 0.05  # of the range: so near to its threshold a value decides nothing
OPEN_SHARE = 0.8  # of the way from closed: a gripper that is less open may hold something, and undecided rows let nothing go
ALONE = np.float32(0.0)


@dataclass(frozen=True, slots=True)
class End:
    """One two-ended action dimension. low, high: its ends as float32 that lie inside the range.

    margin: within it of `switch` a row takes the end of the row before it; 0: every row decides alone. state_column: where the
    observation's state measures this dimension, in its own unit; None where it does not. parting: from where on a measured one
    counts as at its upper end.
    """

    component_idx: int
    low: np.float32
    high: np.float32
    switch: np.float32 | None
    inverted: bool
    margin: np.float32 = ALONE
    state_column: int | None = None
    parting: np.float32 = ALONE


def ends_of(embodiment: Embodiment | None, hold_columns: Columns | None = None) -> tuple[End, ...]:
    """Return the dimensions with two ends or another transformation; empty for most robots.

    hold_columns: (action_dim,) the state column that measures each action, negative for none; None where nothing is measured.
    Grippers of schema v2 have a margin around their threshold; those of v1 and payload releases have none.
    """
    if embodiment is None:
        return ()
    own = {
        column: group.gripper
        for group in embodiment.groups
        if group.gripper is not None
        for column in group.columns
    }
    ends = []
    for part in embodiment.two_ended:
        if not (part.inverted or part.threshold is not None):
            continue
        column = part.component_idx
        low, high = embodiment.action_min[column], embodiment.action_max[column]
        switch = None if part.threshold is None else np.float32(low + part.threshold * (high - low))
        end = End(column, _inside(low, high), _inside(high, low), switch, part.inverted)
        if part.threshold is not None and column in own:
            end = replace(
                end,
                margin=np.float32(_margin(part.threshold) * (high - low)),
                state_column=_measured_at(hold_columns, column),
                parting=_parting(own[column]),
            )
        ends.append(end)
    return tuple(ends)


def _margin(threshold: float) -> float:
    """Return the share of the range around a threshold in 0..1; half the way to an end at most, so that both can be reached."""
    return min(NEAR_SHARE, threshold / 2, (1.0 - threshold) / 2)


def _parting(gripper: GripperEnds) -> np.float32:
    return np.float32(gripper.closed + OPEN_SHARE * (gripper.open - gripper.closed))


def _measured_at(hold_columns: Columns | None, column: int) -> int | None:
    at = -1 if hold_columns is None else int(hold_columns[column])
    return at if at >= 0 else None


def _inside(bound: np.float64, other: np.float64) -> np.float32:
    """Return the bound as float32, rounded towards the other one: else the guard finds the end itself out of range."""
    rounded = np.float32(bound)
    outside = rounded < bound if bound < other else rounded > bound
    return np.nextafter(rounded, np.float32(other)) if outside else rounded


def at_the_ends(actions: Floats, ends: tuple[End, ...], state: Floats | None = None) -> Floats:
    """Return (horizon, action_dim) float32 with each two-ended dimension flipped within its range, then moved to an end.

    Near its threshold a row takes the end of the row before it, and those at the beginning the open one where the gripper is
    measured nearly open by `state`, else the closed one: noise there moves nothing and lets nothing go, and the same request
    gives the same rows. Where it is not measured, the first row decides alone. Returns `actions` itself when there is nothing to
    do. NaN and Inf stay as they are, for the guard to see.

    Args:
        actions: (horizon, action_dim), rad or m.
        ends: As `ends_of` gives them.
        state: Of the observation that the actions were made from, rad and m; None where there is none.
    """
    if not ends:
        return actions
    actions = actions.copy()
    for end in ends:
        column = actions[:, end.component_idx]
        if end.inverted:
            column = end.low + end.high - column
        if end.switch is not None:
            snapped = np.where(_is_upper(column, end, end.switch, state), end.high, end.low)
            column = np.where(np.isfinite(column), snapped, column)
        actions[:, end.component_idx] = column
    return actions


def _is_upper(column: Floats, end: End, switch: np.float32, state: Floats | None) -> Mask:
    """Return (horizon,) whether each row means the upper end; any value where the row is not finite."""
    upper: Mask = column >= switch
    finite = np.isfinite(column)
    if not end.margin > 0.0 or not finite.any():
        return upper
    decides = finite & (np.abs(column - switch) > end.margin)
    before = _measured_upper(end, state)
    if before is None:
        decides[finite.argmax()] = True
        before = False
    newest = np.maximum.accumulate(np.where(decides, np.arange(len(column)), -1))
    return np.where(newest >= 0, upper[newest], before)


def _measured_upper(end: End, state: Floats | None) -> bool | None:
    """Return whether the gripper is measured at its upper end, as `parting` says; None where it is not measured."""
    at = end.state_column
    if at is None or state is None or state.ndim != 1 or at >= state.size or not np.isfinite(state[at]):
        return None
    return bool(state[at] >= end.parting)
