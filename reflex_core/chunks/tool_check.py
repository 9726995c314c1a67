# SPDX-License-Identifier: Apache-2.0
"""Check the executed motion of a chunk against the limits of tool and bodies, after those of the joints.

What is executed is the spline of `interpolation.through`. A chunk that breaks a limit is slowed down along its own path in joint
space, or stops on it before it leaves; where no such motion is found, or the safety file says so, only a hold is safe.
"""

from __future__ import annotations

import numpy as np

from reflex_core.chunks.interpolation import Bounds, Doubles
from reflex_core.chunks.tool_motion import ToolMotion
from reflex_core.robot.limits.check import KINDS as JOINT_KINDS
from reflex_core.robot.limits.check import Check, Checked
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.reachable import Motion
from reflex_core.robot.limits.safety_config import REJECT
from reflex_core.robot.limits.tool_limits import KINDS as TOOL_KINDS
from reflex_core.robot.limits.tool_limits import ToolLimits
from reflex_core.values import Floats

KINDS = (*JOINT_KINDS, *TOOL_KINDS)
HELD_FOR = "tool_limit"


def check_of(limits: Limits, dt_s: float, mode: str) -> Check | ToolCheck:
    """Return what judges the chunks of a robot. Raises ValueError as Check does, also for a tool whose speed has no period."""
    check = Check(limits, dt_s, mode)
    if limits.tool is None:
        return check
    if not dt_s > 0.0:
        raise ValueError(f"the tool's speed cannot be checked: the chunk says {dt_s:g} s between two rows")
    return ToolCheck(check, limits.tool, dt_s, mode)


class ToolCheck:
    """A check of the joints, and of tool and bodies after it, as one call. Holds no state: thread-safe."""

    def __init__(self, check: Check, tool: ToolLimits, dt_s: float, mode: str) -> None:
        """Take the check of the joints, and the limits of the tool. dt_s: between two rows, above 0."""
        limits = check.limits
        self._check, self._dt_s = check, dt_s
        self._held = frozenset(TOOL_KINDS) if mode == REJECT else tool.rules.held
        self._rates = np.zeros(limits.dim, np.bool_) if limits.rates is None else limits.rates
        bounds = Bounds(
            limits.position_min, limits.position_max, limits.velocity_max,
            ~(limits.gripper | limits.workspace | self._rates), np.full(limits.dim, np.nan), limits.rates,
        )  # fmt: skip
        self._motion = ToolMotion(limits, tool, bounds, dt_s)

    def __call__(self, actions: Floats, motion: Motion, *, is_hold: bool = False) -> Checked:
        """Check a finite chunk; repair it where that is wanted. A hold is as it is: nothing better is known."""
        checked = self._check(actions, motion, is_hold=is_hold)
        if checked.actions is None or is_hold:
            return checked
        given = checked.actions
        first, knots, velocity = self._led(given, motion)
        if len(knots) == 1:
            return checked
        seconds = np.full(len(knots) - 1, self._dt_s)
        verdict = self._motion.verdict(knots, seconds, velocity)
        if verdict.clean:
            return checked

        def executed(rows: Doubles) -> Floats | None:
            """Return the whole chunk with these rows, within the joints' limits of acceleration."""
            whole = given.copy()
            whole[first:] = np.where(self._rates, given[first:], rows)
            return self._check(whole, motion).actions if self._motion.limited else whole

        repaired = None
        if not self._held & set(verdict.kinds):
            repaired = self._motion.slowed(knots, seconds, velocity, verdict, executed)
        lines, kinds = (*checked.violations, *verdict.lines), (*checked.kinds, *verdict.kinds)
        if repaired is None:
            return Checked(None, lines, kinds, actions.size, counts=True, held_for=HELD_FOR)
        changed = max(checked.changed, int((repaired != actions).sum()))
        return Checked(repaired, lines, kinds, changed, counts=True)

    def _led(self, rows: Floats, motion: Motion) -> tuple[int, Doubles, Doubles]:
        """Return the first row that is executed, the knots from where the robot is then, and its velocity there."""
        splice, start = motion.splice, motion.start
        if splice is not None:
            knots = np.concatenate([splice.end[None], rows[splice.row :]]).astype(np.float64)
            return splice.row, knots, splice.step / self._dt_s
        if start is None:  # nothing is known of the robot but that it is to be at row 0
            return 1, rows.astype(np.float64), np.zeros(rows.shape[1])
        chain = self._check.chain(rows, start).astype(np.float64)
        return 0, chain, np.zeros(rows.shape[1]) if start.step is None else start.step / self._dt_s
