# SPDX-License-Identifier: Apache-2.0
"""A person commands the robot: whether that can be, and by which rows the robot goes where the person wants it. Pure.

The rows go no faster than a share of each joint's limit of speed: the motion between two of them, which begins at rest or turns, is
at most that much faster (interpolation.AT_A_TURN), so that it keeps the limit at every moment. That speed is reached gradually:
a trajectory that comes to its controller a little late is then not far from the one before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reflex_core.chunks.handover import LEAD_S
from reflex_core.chunks.interpolation import AT_A_TURN
from reflex_core.robot.groups import GRIPPER, JOINTS, POSITION, Group
from reflex_core.robot.limits.check import Check, inner_limits
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.reachable import Motion, Start
from reflex_core.robot.limits.safety_config import REJECT
from reflex_core.robot.limits.tool_pace import tool_pace
from reflex_core.robot.limits.walk import Joint, band, stoppable
from reflex_core.values import Floats

Doubles = NDArray[np.float64]

SPEED_SHARE = 1.0 / AT_A_TURN
GRADUAL_S = 0.2  # in which a joint comes to that speed, or from it to a standstill, at least
ROUNDING_SHARE = 0.99  # of a limit that rows are planned for, so that rounding to float32 does not break it
AHEAD_S = 0.5  # the rows go on for so long after the commands would have ended
LATE_S = 0.05  # so late a trajectory may reach its controller: until then the motion before goes on


def why_not(groups: Sequence[Group], limits: Limits | None, dt_s: float) -> str:
    """Return why no person can command this robot, as a clause; empty where one can."""
    if limits is None or not dt_s > 0.0:
        return "it needs the robot's limits and rate: name an embodiment"
    for group in groups:
        if group.commands != POSITION or group.space not in (JOINTS, GRIPPER):
            return f"it commands joint positions, and group '{group.name}' takes others"
    columns = sorted({column for group in groups for column in group.columns})
    free = [
        limits.names[i] for i in columns if not (limits.gripper[i] or np.isfinite(limits.velocity_max[i]))
    ]
    return f"it needs a limit of speed for every joint, and {', '.join(free)} has none" if free else ""


class PersonPath:
    """Leads the robot to where a person wants it, inside its limits."""

    def __init__(self, limits: Limits, dt_s: float, lasting_s: float) -> None:
        """Take the limits. dt_s: between two rows. lasting_s: how long the rows go on at most."""
        self.dt_s, self._tool = dt_s, limits.tool
        self._low, self._high = inner_limits(limits.position_min, limits.position_max)
        self._step = limits.velocity_max * (dt_s * SPEED_SHARE * ROUNDING_SHARE)
        gradual = self._step * min(dt_s / GRADUAL_S, 1.0)
        bend = np.minimum(limits.acceleration_max * (dt_s * dt_s * ROUNDING_SHARE), gradual)
        self._joints = tuple(
            Joint(float(low), float(high), float(step), float(change))
            for low, high, step, change in zip(self._low, self._high, self._step, bend, strict=True)
        )
        # a controller whose command is not known is given none that is due sooner
        self._least = math.ceil(LEAD_S / dt_s) + 1
        self._most = max(math.ceil(lasting_s / dt_s), self._least)
        self.following = math.ceil(LATE_S / dt_s)  # rows of the motion before that go on
        self._check = Check(limits, dt_s, REJECT)

    @property
    def knows_tool(self) -> bool:
        """Whether the robot's tool has limits."""
        return self._tool is not None

    def fits(self, rows: Floats, place: Doubles, velocity: Doubles) -> bool:
        """Return whether rows keep every limit of the joints on the way from a place, where the robot moves so fast."""
        return self._check(rows, Motion(Start(place, place, velocity * self.dt_s))).clean

    def pace(self, place: Doubles, target: Doubles) -> float:
        """Return the share, up to 1, of their usual speed at which the joints go to a target, so that the tool keeps its limits."""
        if self._tool is None:
            return 1.0
        away = np.abs(np.clip(target, self._low, self._high) - place)
        return tool_pace(self._tool, place, np.minimum(self._step, away) / self.dt_s)

    def rows(self, place: Doubles, velocity: Doubles, target: Doubles, pace: float = 1.0) -> Floats | None:
        """Return (n, action_dim) float32 rows from now on; None where the robot is too far outside its range.

        place, velocity: (action_dim,) what is commanded now, rad or m and per second. target: (action_dim,) where it is wanted;
        beyond the range its end. pace: the share of the usual speed.
        """
        if ((place < self._low - self._step) | (place > self._high + self._step)).any():
            return None
        wanted = np.clip(target, self._low, self._high)
        columns = [
            _towards(*column, self._most, pace)
            for column in zip(wanted.tolist(), self._joints, place.tolist(), (velocity * self.dt_s).tolist(), strict=True)
        ]  # fmt: skip
        rows = np.clip(np.array(columns).T.astype(np.float32), self._low, self._high)
        away = np.flatnonzero((rows != rows[-1]).any(axis=1))
        found: Floats = rows[: max(away[-1] + 2 if len(away) else 1, self._least)]
        return found


def _towards(wanted: float, joint: Joint, at: float, last: float, count: int, pace: float) -> list[float]:
    """Return `count` rows of one joint on its way to `wanted`, where it comes to rest. last: its step before the first."""
    if math.isinf(joint.step):
        return [wanted] * count
    rows, room, most_step = list[float](), joint.brake_room, joint.step * pace
    for _ in range(count):
        away = wanted - at
        least, most = band(joint, room, at, last)
        step = math.copysign(min(most_step, stoppable(abs(away), joint.bend)), away)
        last = min(max(step, least), most)
        at = wanted if last == away else at + last
        rows.append(at)
    return rows
