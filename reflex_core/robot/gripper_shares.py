# SPDX-License-Identifier: Apache-2.0
"""Grippers that a client counts in shares of the way from one end to the other, 0 to 1, and their joints in rad or m."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ObservationError
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import GripperEnds
from reflex_core.robot.intake import IMPLAUSIBLE_STATE
from reflex_core.text.untrusted import escaped
from reflex_core.values import Columns, Floats

CLOSED, OPEN = SENSES = ("closed", "open")
NO_ENDS = (
    "the robot that is served has no gripper of which its embodiment gives the ends: a group of space gripper with"
    ' "gripper": {"open": ..., "closed": ...} (schema_version 2)'
)
HAIR = 0.02  # of the way: an offset of the calibration, not another unit

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GripperJoint:
    """A gripper whose ends are known.

    action: its column of the robot's actions. state: the number of the state that measures it, None where none does. ends: rad or m.
    """

    name: str
    action: int
    state: int | None
    ends: GripperEnds


@dataclass(frozen=True, slots=True)
class GripperShare:
    """A gripper and what a client means by 1: CLOSED (0 is open) or OPEN (0 is closed)."""

    joint: GripperJoint
    one: str

    @property
    def _zero_and_one(self) -> tuple[float, float]:
        ends = self.joint.ends
        return (ends.open, ends.closed) if self.one == CLOSED else (ends.closed, ends.open)

    def to_joint(self, share: float, key: str) -> float:
        """Return the joint's position in rad or m; what is no number stays so. Raises ObservationError beyond 0..1, naming the key."""
        if not np.isfinite(share):
            return share
        if not -HAIR <= share <= 1.0 + HAIR:
            raise ObservationError(
                f"the state cannot be true: '{escaped(key)}' reads {share:.6g}: it is the share of the way to the {self.one} end of"
                f" '{escaped(self.joint.name)}', from 0 to 1",
                IMPLAUSIBLE_STATE,
            )
        zero, one = self._zero_and_one
        return zero + min(max(share, 0.0), 1.0) * (one - zero)

    def to_share(self, positions: Floats) -> Doubles:
        """Return the share of each position in rad or m; what lies beyond an end is at that end."""
        zero, one = self._zero_and_one
        shares: Doubles = np.clip((positions.astype(np.float64) - zero) / (one - zero), 0.0, 1.0)
        return shares


def gripper_joints(
    robot: Embodiment | None,
    names: Sequence[str],
    state_names: Sequence[str],
    hold_columns: Columns | None,
) -> tuple[GripperJoint, ...]:
    """Return the grippers whose ends the robot's description gives; none of schema v1, which does not say them.

    names: of the actions; state_names: of the state, where known. hold_columns: (action_dim,) the number of the state that measures each
    action, negative for none; None where the state is not joint positions.
    """
    if robot is None or not any(group.gripper for group in robot.groups):
        return ()
    places = {name: place for place, name in enumerate(state_names)}
    found = []
    for group in robot.groups:
        if group.gripper is None:
            continue
        column = group.columns[0]
        at = places.get(names[column], -1) if hold_columns is None else int(hold_columns[column])
        found.append(GripperJoint(names[column], column, at if at >= 0 else None, group.gripper))
    return tuple(sorted(found, key=lambda joint: joint.action))


def in_shares(rows: Floats, shares: Sequence[GripperShare]) -> Floats:
    """Return (n, action_dim) float32 with the columns of these grippers in shares; `rows` itself where there are none."""
    if not shares:
        return rows
    made = rows.copy()
    for share in shares:
        made[:, share.joint.action] = share.to_share(rows[:, share.joint.action])
    return made
