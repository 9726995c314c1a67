# SPDX-License-Identifier: Apache-2.0
"""Keep one chunk inside the limits: position, then velocity, then acceleration.

The bands are those of ros2_control's joint_limits: around the previous command, one control period wide. A velocity is judged
as a position is, with the limits that `Limits` gives for it: its range, and how much it may change in a period.
A chunk that breaks nothing comes back as the same array after a few whole-array comparisons.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.limits import walk
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.reachable import Motion, Splice, Start
from reflex_core.robot.limits.safety_config import REJECT, SCALE
from reflex_core.robot.limits.within import Within
from reflex_core.values import Columns, Floats

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

POSITION, VELOCITY, ACCELERATION, WORKSPACE = (
    "joint_clamp",
    "velocity_clamp",
    "acceleration_clamp",
    "workspace_breach",
)
KINDS = (POSITION, VELOCITY, ACCELERATION, WORKSPACE)
LINES_KEPT = 20
TOO_LARGE = "non_finite"  # as the guard calls NaN and Inf of the policy itself
UNLIMITED_RAD = 32.0  # the size of number for which rounding is allowed where a joint turns for ever


@dataclass(frozen=True, slots=True)
class Checked:
    """actions: (horizon, action_dim) float32 inside the limits, None when only a hold is safe.

    kinds: the broken limits, by their label in metrics. changed: how many numbers differ from the model's, without those
    of columns that saturate by design. counts: a limit was broken that counts against the policy. held_for: why only a hold is
    safe, where that is not that the robot is too far away.
    """

    actions: Floats | None
    violations: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    changed: int = 0
    counts: bool = False
    held_for: str = ""

    @property
    def clean(self) -> bool:
        """Nothing was broken."""
        return not self.violations


@dataclass(slots=True)
class _Found:
    """What is wrong so far: one line per joint and kind."""

    lines: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    counts: bool = False

    def add(self, kind: str, line: str, *, counts: bool = True) -> None:
        self.counts = self.counts or counts
        if kind not in self.kinds:
            self.kinds.append(kind)
        if len(self.lines) < LINES_KEPT:
            self.lines.append(line)


class Check:
    """Limits, a control period and a mode as one call. Holds no state: thread-safe."""

    def __init__(self, limits: Limits, dt_s: float, mode: str) -> None:
        """Take limits. dt_s: seconds between two rows. Raises ValueError where speed is limited and dt_s is no period."""
        self.limits = limits
        self._speed = bool(np.isfinite(limits.velocity_max).any())
        self._bends = bool(np.isfinite(limits.acceleration_max).any())
        if not dt_s > 0.0 and (self._speed or self._bends):
            raise ValueError(f"velocity cannot be checked: the chunk says {dt_s:g} s between two rows")
        self._mode = mode
        self._dt_s = dt_s
        self._low, self._high = inner_limits(limits.position_min, limits.position_max)
        self._saturating = limits.saturating
        self._rates = np.zeros(limits.dim, np.bool_) if limits.rates is None else limits.rates
        self._measured = None if limits.unmeasured is None else ~limits.unmeasured
        extent = np.fmax(np.abs(limits.position_min), np.abs(limits.position_max))
        extent = np.where(np.isfinite(extent), extent, UNLIMITED_RAD)
        # two float32 neighbours, each rounded: nothing below this is a motion
        rounding = 2.0 * np.spacing(extent.astype(np.float32)).astype(np.float64)
        step, bend = limits.velocity_max * dt_s, limits.acceleration_max * dt_s * dt_s
        step, bend = np.fmin(step, np.inf), np.fmin(bend, np.inf)  # infinite per 0 s is no number: no limit
        self._step, self._bend = step + rounding, bend + 2.0 * rounding
        self._most = np.maximum(step - rounding, 1e-12)
        self._least = -self._most
        self._none = np.zeros(limits.dim, np.bool_)
        self._within = Within(self._low, self._high, self._step, self._bend)
        self._joints = tuple(
            walk.Joint(float(low), float(high), float(most), max(float(change), float(least)))
            for low, high, most, change, least in zip(
                self._low, self._high, self._most, bend - 2.0 * rounding, rounding, strict=True
            )
        )

    def __call__(self, actions: Floats, motion: Motion, *, is_hold: bool = False) -> Checked:
        """Check a finite chunk; repair it in clip and scale mode.

        is_hold: a chunk that stops the robot where it is: its deceleration is not limited, its elapsed rows do not matter,
        and its velocities are those of a hold already.
        """
        if motion.splice is None and not is_hold and self._clean(actions, motion.start):
            return Checked(actions)
        found = _Found()
        rows = self._in_range(actions, found)
        start, splice = motion.start, motion.splice
        if is_hold and splice is not None:
            start = None
        if self._out_of_reach(start, splice, found):
            return Checked(None, tuple(found.lines), tuple(found.kinds), actions.size, found.counts)
        chain, bad = rows, self._none
        if self._speed or self._bends:
            chain = self.chain(rows, start)
            moves = chain[1:] - chain[:-1]
            joining = rows[splice.row] - splice.end if splice is not None else None
            bad = self._too_fast(moves, joining, found, self._measured if is_hold else None)
            if self._bends and not is_hold:
                bad = bad | self._too_sharp(moves, joining, start, splice, found)
        if not found.lines:
            return Checked(rows)
        if self._mode == REJECT:
            return Checked(None, tuple(found.lines), tuple(found.kinds), actions.size, found.counts)
        requested = self._without_overshoot(actions)
        if _columns(bad):
            rows = self._walked(chain, start, splice, bad)
            if not np.isfinite(rows).all():  # numbers so large that their differences are infinite
                return Checked(
                    None, tuple(found.lines), tuple(found.kinds), actions.size, found.counts, TOO_LARGE
                )
        return Checked(
            rows, tuple(found.lines), tuple(found.kinds), int((rows != requested).sum()), found.counts
        )

    def _clean(self, actions: Floats, start: Start | None) -> bool:
        """Return True only where every comparison below finds nothing; False decides nothing."""
        if len(actions) < 2 or not (self._speed or self._bends):
            return False
        if start is None:
            step = actions[1] - actions[0]
            origin = actions[0] - np.minimum(np.maximum(step, self._least), self._most)
            return self._within(actions, origin, None)
        low, high = start.low, start.high
        if np.count_nonzero((high < self._low) | (low > self._high)):
            return False  # perhaps out of reach
        step = actions[1] - actions[0] if start.step is None else start.step
        origin = actions[0] - np.minimum(np.maximum(step, self._least), self._most)
        return self._within(actions, np.minimum(np.maximum(origin, low), high), start.step)

    def _in_range(self, actions: Floats, found: _Found) -> Floats:
        least, most = actions.min(axis=0), actions.max(axis=0)
        below, above = least < self._low, most > self._high
        if not (_columns(below) or _columns(above)):
            return actions
        design_low, design_high = self.limits.position_min, self.limits.position_max
        if self._saturating is not None:
            design_low, design_high = self._saturating.design_min, self._saturating.design_max
            below, above = (
                below & (least < self._saturating.quiet_min),
                above & (most > self._saturating.quiet_max),
            )
        under, over = (
            "{where}below min: {value:.6g} < {bound:.6g}",
            "{where}above max: {value:.6g} > {bound:.6g}",
        )
        self._outside(below, least, under, self._low, found, least < design_low)
        self._outside(above, most, over, self._high, found, most > design_high)
        clipped: Floats = np.minimum(np.maximum(actions, self._low), self._high)
        return clipped

    def _without_overshoot(self, actions: Floats) -> Floats:
        """Return the chunk with columns that saturate by design moved to their ends: that is no change worth counting."""
        found = self._saturating
        if found is None:
            return actions
        quiet = (actions.min(axis=0) >= found.quiet_min) & (actions.max(axis=0) <= found.quiet_max)
        moved: Floats = np.where(quiet, np.minimum(np.maximum(actions, self._low), self._high), actions)
        return moved

    def _out_of_reach(self, start: Start | None, splice: Splice | None, found: _Found) -> bool:
        """Return True when the robot is so far outside that no row is both in the range and one step away."""
        places = [(start.low, start.high)] if start is not None else []
        if splice is not None:
            places.append((splice.end, splice.end))
        for low, high in places:
            under, over = high + self._most < self._low, low - self._most > self._high
            if _columns(under) or _columns(over):
                already = "{where}range left already: {value:.6g} %s {bound:.6g}: holding"
                self._outside(under, high, already % "<", self._low, found)
                self._outside(over, low, already % ">", self._high, found)
                return True
        return False

    def _outside(
        self,
        which: Mask,
        values: Doubles,
        text: str,
        bounds: Floats,
        found: _Found,
        counts: Mask | None = None,
    ) -> None:
        for joint in _columns(which):
            inside_workspace = self.limits.workspace[joint]
            where = "workspace " if inside_workspace else ""
            violation = text.format(where=where, value=float(values[joint]), bound=float(bounds[joint]))
            kind, held_against = (
                WORKSPACE if inside_workspace else VELOCITY if self._rates[joint] else POSITION,
                counts is None or bool(counts[joint]),
            )
            unit = " per second" if self._rates[joint] else ""
            found.add(kind, f"{self.limits.names[joint]} {violation}{unit}", counts=held_against)

    def chain(self, rows: Floats, start: Start | None) -> Floats:
        """Return (horizon + 1, action_dim): the rows after the place they start from.

        Of all places where the robot may be, the one from which row 0 goes on as the robot moved before; where
        nothing is known, as the chunk itself goes on.
        """
        expected = start.step if start is not None else None
        if expected is None:
            expected = rows[1] - rows[0] if len(rows) > 1 else np.zeros(len(rows[0]))
        origin = rows[0] - np.minimum(np.maximum(expected, -self._most), self._most)
        if start is not None:
            origin = np.minimum(np.maximum(origin, start.low), start.high)
        chain = np.empty((len(rows) + 1, len(rows[0])), np.float32)
        chain[0], chain[1:] = origin, rows
        return chain

    def _too_fast(
        self, moves: Floats, joining: Doubles | None, found: _Found, judged: Mask | None
    ) -> Mask:  # fmt: skip
        fastest = np.abs(moves).max(axis=0)
        if joining is not None:
            fastest = np.maximum(fastest, np.abs(joining))
        fast: Mask = fastest > self._step
        fast = fast if judged is None else fast & judged
        for joint in _columns(fast):
            value, limit = float(fastest[joint]) / self._dt_s, float(self.limits.velocity_max[joint])
            if self._rates[joint]:
                change = f"{value:.6g} > {limit:.6g} per second squared"
                found.add(ACCELERATION, f"{self.limits.names[joint]} acceleration: {change}")
                continue
            unit = self.limits.unit(joint)
            found.add(VELOCITY, f"{self.limits.names[joint]} velocity: {value:.6g} > {limit:.6g} {unit}/s")
        return fast

    def _too_sharp(
        self,
        moves: Floats,
        joining: Doubles | None,
        start: Start | None,
        splice: Splice | None,
        found: _Found,
    ) -> Mask:
        known = start is not None and start.step is not None
        # without a command before, the way to row 0 may be no more than what the robot trails behind
        judged = moves if known else moves[1:]
        sharpest = np.abs(judged[1:] - judged[:-1]).max(axis=0, initial=0.0)
        if start is not None and start.step is not None:
            sharpest = np.maximum(sharpest, np.abs(moves[0] - start.step))
        if splice is not None and joining is not None:
            sharpest = np.maximum(sharpest, np.abs(joining - splice.step))
            if splice.row + 1 < len(moves):  # and on from there
                sharpest = np.maximum(sharpest, np.abs(moves[splice.row + 1] - joining))
        sharp: Mask = sharpest > self._bend
        for joint in _columns(sharp):
            value = float(sharpest[joint]) / self._dt_s**2
            limit = float(self.limits.acceleration_max[joint])
            unit = self.limits.unit(joint)
            found.add(
                ACCELERATION, f"{self.limits.names[joint]} acceleration: {value:.6g} > {limit:.6g} {unit}/s^2"
            )
        return sharp

    def _walked(self, chain: Floats, start: Start | None, splice: Splice | None, bad: Mask) -> Floats:
        """Return the chunk from the robot's position, through elapsed rows as they really were, then row by row."""
        rows: Floats = chain[1:].copy()
        columns = np.arange(len(bad)) if self._mode == SCALE else np.flatnonzero(bad)
        first, settled = self._broken(chain) if self._mode == SCALE else (0, 0)
        if splice is not None:
            first, at, last = splice.row, splice.end, splice.step
            rows[:first, columns] = splice.path()[:, columns]
        elif first > 0 and not self._bends:
            at, last = chain[first], chain[first] - chain[first - 1]
        elif start is not None and start.step is not None:
            # from the very start: braking may have to begin long before the row that needs it
            first, at, last = 0, chain[0], start.step
        else:
            at = chain[0] + self._shortened(chain[1] - chain[0])
            rows[0, columns] = at[columns]
            if len(rows) == 1:
                return self._rounded(rows)
            first, last = 1, chain[2] - at
        last = np.minimum(np.maximum(last, -self._most), self._most)
        if self._mode == SCALE:
            together, columns = np.flatnonzero(~self._rates), np.flatnonzero(self._rates)
            if len(together):
                rows[first:, together] = self._scaled(
                    rows[first:, together], together, at, last, settled - first
                )
            if not len(columns):
                return self._rounded(rows)
        # a velocity is limited by itself: it must not take longer to become 0 because a joint is slow
        walked = [
            walk.clip(*column)
            for column in zip(
                rows[first:, columns].T.tolist(), [self._joints[column] for column in columns],
                at[columns].tolist(), last[columns].tolist(), strict=True,
            )
        ]  # fmt: skip
        rows[first:, columns] = np.array(walked, np.float32).T
        return self._rounded(rows)

    def _scaled(self, wanted: Floats, columns: Columns, at: Doubles, last: Doubles, settled: int) -> Floats:
        """Return (n, len(columns)) rows of those joints in one direction. settled: from this row on they break no limit."""
        joints = [self._joints[column] for column in columns]
        walked = walk.scale(wanted.tolist(), joints, at[columns].tolist(), last[columns].tolist(), settled)
        return np.array(walked, np.float32).reshape(len(wanted), len(columns))

    def _shortened(self, move: Doubles) -> Doubles:
        """Shorten one step of all joints so that none moves faster than it may."""
        clipped = np.minimum(np.maximum(move, -self._most), self._most)
        if self._mode == SCALE:
            excess = np.where(self._rates, 0.0, np.abs(move) / self._most)
            return np.where(self._rates, clipped, move / max(1.0, float(excess.max())))
        return clipped

    def _rounded(self, rows: Floats) -> Floats:
        """Clamp what rounding left outside the range by its last bit."""
        inside: Floats = np.minimum(np.maximum(rows, self._low), self._high)
        return inside

    def _broken(self, chain: Floats) -> tuple[int, int]:
        """Return (first row that breaks a limit, first row from which on none does), of the chunk by itself."""
        moves = chain[1:] - chain[:-1]
        bad = (np.abs(moves) > self._step).any(axis=1)
        if self._bends:
            bad[1:] |= (np.abs(moves[1:] - moves[:-1]) > self._bend).any(axis=1)
        rows = np.flatnonzero(bad)
        return (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)


def _columns(mask: Mask) -> list[int]:
    """Return the true columns. At a handful of joints this is quicker than `any` and `flatnonzero`."""
    return [column for column, is_set in enumerate(mask.tolist()) if is_set]


def inner_limits(low: Doubles, high: Doubles) -> tuple[Floats, Floats]:
    """Return (min, max) as float32, each rounded INTO the range, so that a clamped float32 is never outside it."""
    inner_low, inner_high = low.astype(np.float32), high.astype(np.float32)
    inner_low = np.where(inner_low < low, np.nextafter(inner_low, np.float32(np.inf)), inner_low)
    inner_high = np.where(inner_high > high, np.nextafter(inner_high, np.float32(-np.inf)), inner_high)
    return inner_low.astype(np.float32), inner_high.astype(np.float32)
