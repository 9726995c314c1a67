# SPDX-License-Identifier: Apache-2.0
"""How much slower than they may the joints of a robot go, so that its tool keeps its limits of speed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.limits.tool_limits import ToolLimits

Doubles = NDArray[np.float64]

SHARE = 0.8  # of the limits: the joints go on while the arm's levers grow, and faster where a way turns


def tool_pace(limits: ToolLimits, place: Doubles, speeds: Doubles) -> float:
    """Return by which factor, from 0 to 1, joints go slower, so that the tool keeps its limits in whichever directions they go.

    place: (d,) rad or m. speeds: (d,) at most, per second; 0 for a joint that stays, infinite ones are those of no arm and count not.
    """
    jacobian = np.abs(limits.kinematics.tree.jacobians(place[None], limits.kinematics.tool)[0])
    rates = jacobian @ np.where(np.isfinite(speeds), speeds, 0.0)
    fastest, turning = float(np.linalg.norm(rates[:3])), float(np.linalg.norm(rates[3:]))
    rules, pace = limits.rules, 1.0
    for rate, most in ((fastest, rules.speed_max), (turning, rules.turning_max)):
        if rate > SHARE * most:
            pace = min(pace, SHARE * most / rate)
    return pace
