# SPDX-License-Identifier: Apache-2.0
"""Whether a measured state can be true: a reading no joint can have is a broken sensor or a mistaken caller.

By what the robot is physically able to do, never by statistics of a data set: what is merely rare is not wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import velocity_columns

Doubles = NDArray[np.float64]

MARGIN_RAD = 0.2  # calibration offsets and soft limits: a robot may rest this far past the range it is given
MARGIN_SHARE = 0.1  # of the range; the wider of the two counts
LARGEST = 1e6  # no joint, length or rate of a robot is larger, whatever its unit


@dataclass(frozen=True, slots=True, eq=False)
class StateRange:
    """What a state vector may hold.

    One entry per state column that is a joint of the embodiment; other columns must
    be finite and at most LARGEST.

    columns: where in the state the joint is. low, high: its physical range, rad or m (a gripper: its own unit).
    margin: how far outside it a reading may lie, same unit.
    """

    columns: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    margin: tuple[float, ...] = ()

    def problem(self, state: Iterable[float], names: Sequence[str] = ()) -> str:
        """Return why the state vector is implausible, one sentence that names the worst joint; "" if it is not.

        state: (state_dim,), may be shorter than the columns known here. names: of its columns, where known.
        """
        values = state.tolist() if isinstance(state, np.ndarray) else [float(value) for value in state]
        if self._inside(values):
            return ""
        for column, value in enumerate(values):
            if not math.isfinite(value):
                return f"{self._called(column, names)} reads {value}, which is not finite"
            if abs(value) > LARGEST:
                return f"{self._called(column, names)} reads {value:.6g}: no state of a robot is beyond {LARGEST:g}"
        beyond, index = max(
            ((self._beyond(index, values), index) for index in range(len(self.columns))), default=(0.0, 0)
        )
        return self._sentence(index, values[self.columns[index]]) if beyond > 0.0 else ""

    def _inside(self, values: Sequence[float]) -> bool:
        """Return True only where no reading is outside any range: what nearly all states are. False decides nothing."""
        count = len(values)
        for value in values:
            if not -LARGEST <= value <= LARGEST:  # nor is a NaN
                return False
        for column, low, high in zip(self.columns, self.low, self.high, strict=True):
            if column < count and not low <= values[column] <= high:
                return False
        return True

    def _beyond(self, index: int, values: Sequence[float]) -> float:
        """Return how far a joint's reading is outside the plausible range, in margins; 0 or less: it is inside."""
        if self.columns[index] >= len(values):
            return 0.0
        value, margin = values[self.columns[index]], self.margin[index]
        outside = max(self.low[index] - value, value - self.high[index])
        return (outside - margin) / max(margin, 1e-9)

    def _called(self, column: int, names: Sequence[str]) -> str:
        if column in self.columns:
            return f"joint '{self.names[self.columns.index(column)]}'"
        return f"joint '{names[column]}'" if column < len(names) else f"number {column} of the state"

    def _sentence(self, index: int, value: float) -> str:
        low, high, unit = self.low[index], self.high[index], self.units[index]
        return (
            f"joint '{self.names[index]}' reads {value:.6g}{unit}: its range is {low:g} to {high:g}{unit},"
            f" and a reading may lie at most {self.margin[index]:.3g}{unit} outside (plausibility_margin_rad)"
        )


ANYTHING = StateRange()  # of an unknown robot


def state_range(
    embodiment: Embodiment | None,
    state_names: Sequence[str],
    hold_columns: Sequence[int] | NDArray[np.intp] | None,
    margin_rad: float = MARGIN_RAD,
) -> StateRange:
    """Return what the states of one robot may hold; without an embodiment, anything finite up to LARGEST.

    state_names: of the state's columns, empty where unknown. hold_columns: for each joint of the embodiment the state
    column that measures it, below 0 for one that needs none; None where not every joint is measured; then names decide.
    margin_rad: the setting `plausibility_margin_rad`, in the joint's own unit.
    """
    if embodiment is None:
        return ANYTHING
    joints = embodiment.joint_names or tuple(f"action_{joint}" for joint in range(embodiment.action_dim))
    if hold_columns is not None:
        pairs = [(int(column), joint) for joint, column in enumerate(hold_columns) if column >= 0]
    else:
        known = {name: joint for joint, name in enumerate(joints)}
        pairs = [(column, known[name]) for column, name in enumerate(state_names) if name in known]
    rates = velocity_columns(embodiment.groups, embodiment.action_dim)
    if rates is not None:  # their range says nothing of a position
        pairs = [(column, joint) for column, joint in pairs if not rates[joint]]
    ends = [end.component_idx for end in embodiment.two_ended]
    low, high = embodiment.action_min, embodiment.action_max
    return StateRange(
        columns=tuple(column for column, _ in pairs),
        names=tuple(joints[joint] for _, joint in pairs),
        units=tuple("" if joint in ends else " rad" for _, joint in pairs),
        low=tuple(float(low[joint]) for _, joint in pairs),
        high=tuple(float(high[joint]) for _, joint in pairs),
        margin=tuple(max(margin_rad, MARGIN_SHARE * float(high[joint] - low[joint])) for _, joint in pairs),
    )
