# SPDX-License-Identifier: Apache-2.0
"""Apply an embodiment's gripper and payload release to a chunk in physical units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reflex_core.robot.embodiment import Embodiment
from reflex_core.values import Floats


@dataclass(frozen=True, slots=True)
class End:
    """One two-ended action dimension. low, high: its ends as float32 that lie inside the range."""

    component_idx: int
    low: np.float32
    high: np.float32
    switch: np.float32 | None
    inverted: bool


def ends_of(embodiment: Embodiment | None) -> tuple[End, ...]:
    """Return the dimensions with two ends or another transformation; empty for most robots."""
    if embodiment is None:
        return ()
    ends = []
    for part in embodiment.two_ended:
        if not (part.inverted or part.threshold is not None):
            continue
        low, high = embodiment.action_min[part.component_idx], embodiment.action_max[part.component_idx]
        switch = None if part.threshold is None else np.float32(low + part.threshold * (high - low))
        ends.append(End(part.component_idx, _inside(low, high), _inside(high, low), switch, part.inverted))
    return tuple(ends)


def _inside(bound: np.float64, other: np.float64) -> np.float32:
    """Return the bound as float32, rounded towards the other one: else the guard finds the end itself out of range."""
    rounded = np.float32(bound)
    outside = rounded < bound if bound < other else rounded > bound
    return np.nextafter(rounded, np.float32(other)) if outside else rounded


def at_the_ends(actions: Floats, ends: tuple[End, ...]) -> Floats:
    """Return (horizon, action_dim) float32 with each two-ended dimension flipped within its range, then moved to an end.

    Returns `actions` itself when there is nothing to do. NaN and Inf stay as they are, for the guard to see.
    """
    if not ends:
        return actions
    actions = actions.copy()
    for end in ends:
        column = actions[:, end.component_idx]
        if end.inverted:
            column = end.low + end.high - column
        if end.switch is not None:
            snapped = np.where(column >= end.switch, end.high, end.low)
            column = np.where(np.isfinite(column), snapped, column)
        actions[:, end.component_idx] = column
    return actions
