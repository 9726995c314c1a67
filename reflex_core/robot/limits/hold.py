# SPDX-License-Identifier: Apache-2.0
"""Make holds: where a robot is held, and how it gets there. The one place for it, and the guard's.

1. The measurement is fresh and plausible and nothing stopped since the last command: the running stream, braked.
2. After a stop, a takeover, a deactivation: where each joint is measured.
3. The measurement is bad or stale: the last command, if it is finite and was really being followed.
4. Neither: nothing, which the caller reports.

Every row lies inside the limits, and no joint is commanded to move faster than its limit, neither from where it is measured
nor from its last command. What is not possible at once takes longer: the first rows are then left out.

A column that commands a velocity is held by 0, whatever is known of the rest of the robot: from the commanded velocity as
fast as its acceleration limit allows, at once where there is none. It needs no measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.limits.check import inner_limits
from reflex_core.robot.limits.limits import Limits
from reflex_core.values import Floats

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

STREAM, MEASURED, COMMAND = "stream", "measured", "command"  # rules 1, 2 and 3
PERIODS = 2.0  # of control, in which a joint without an acceleration limit is braked
ZERO = "zero"  # nothing but velocities is held
LONGEST_S = 60.0  # a joint that needs longer to come to its hold is not held but moved
MOST_CHANGE = 1e9  # of a velocity in a period: more than any, and a number to calculate with


@dataclass(frozen=True, slots=True)
class Stream:
    """Command of a robot at one moment: all (action_dim,), rad or m.

    at: commanded now. target: the row that is being approached. step: the move of the period under way.
    follows: the joints that follow their commands, as far as was measured. continuous: between two rows the robot follows a
    spline, so that it can be braked from its very speed; else a straight line, which is broken off at a row.
    """

    at: Doubles
    target: Doubles
    step: Doubles
    follows: Mask
    continuous: bool = False

    def chosen(self, columns: Mask) -> Stream:
        """Return the same of some columns."""
        return Stream(
            self.at[columns], self.target[columns], self.step[columns], self.follows[columns], self.continuous
        )


@dataclass(frozen=True, slots=True)
class Hold:
    """rows: (n, action_dim) float32; row i is due (i + 1) * dt_s after the hold begins, the last one is a standstill.

    start: the first row that every joint can reach in time; those before are inside the limits, and not to be sent, but for
    velocities, which are braked from row 0 on. rule: stream, measured, command or zero. origin: (action_dim,) where the
    robot begins, float64. held: (action_dim,) the columns it is a hold of, NaN in the others; None: all of them.
    """

    rows: Floats
    dt_s: float
    start: int
    rule: str
    origin: Doubles
    held: Mask | None = None

    @property
    def position(self) -> Floats:
        """(action_dim,) where the robot comes to rest."""
        end: Floats = self.rows[-1]
        return end


def hold(
    limits: Limits | None, dt_s: float, stream: Stream | None, measured: Floats | None, age_s: float = 0.0
) -> Hold | None:
    """Return the hold of a robot, or None where nothing is known that it could be held at and no velocity is commanded.

    Where only its velocities can be held, `held` tells them. stream: None after a stop. measured: (action_dim,) rad or m,
    fresh and plausible, else None. dt_s: of the rows, 0 where no rate is known: one row then. age_s: of the measurement; a
    joint that follows went on with its command since.
    Source: the rules above.
    """
    if limits is None or limits.unmeasured is None:
        return _joints_held(limits, dt_s, stream, measured, age_s)
    unmeasured, joints = limits.unmeasured, ~limits.unmeasured
    arm = None
    if joints.any():
        where = None if measured is None else measured[joints]
        of_joints = None if stream is None else stream.chosen(joints)
        arm = _joints_held(limits.chosen(joints), dt_s, of_joints, where, age_s)
    at = np.zeros(int(unmeasured.sum())) if stream is None else np.nan_to_num(stream.at[unmeasured])
    return _of_both(unmeasured, dt_s, at, _stopping(limits.chosen(unmeasured), dt_s, at), arm)


def _stopping(limits: Limits, dt_s: float, at: Doubles) -> Floats:
    """Return (n, len(at)) the velocities from `at` down to 0, each as fast as it may change."""
    low, high = _range(limits, limits.dim)
    most = _most(limits, dt_s, limits.dim) if dt_s > 0.0 else np.full(limits.dim, np.inf)
    longest = LONGEST_S / dt_s if dt_s > 0.0 else 1.0
    count = max(int(np.ceil(min(float((np.abs(at) / most).max()), longest))), 1)
    periods = np.arange(1.0, count + 1.0)[:, None]
    slower = np.maximum(np.abs(at) - np.minimum(most, MOST_CHANGE) * periods, 0.0)
    slower[-1] = 0.0
    rows: Floats = np.minimum(np.maximum((np.sign(at) * slower).astype(np.float32), low), high)
    return rows


def _of_both(unmeasured: Mask, dt_s: float, at: Doubles, stopping: Floats, arm: Hold | None) -> Hold:
    """Return one hold of a robot's joints, where they can be held, and of its velocities."""
    joints = ~unmeasured
    count = max(len(stopping), 0 if arm is None else len(arm.rows))
    rows = np.full((count, len(unmeasured)), np.nan, np.float32)
    rows[:, unmeasured] = _lasting(stopping, count)
    origin = np.full(len(unmeasured), np.nan)
    origin[unmeasured] = at
    if arm is None:
        return Hold(rows, dt_s, 0, ZERO, origin, unmeasured if joints.any() else None)
    rows[:, joints], origin[joints] = _lasting(arm.rows, count), arm.origin
    return Hold(rows, dt_s, arm.start, arm.rule, origin)


def _lasting(rows: Floats, count: int) -> Floats:
    """Return the rows, `count` of them: the last one lasts."""
    return np.concatenate([rows, np.tile(rows[-1], (count - len(rows), 1))])


def _joints_held(
    limits: Limits | None, dt_s: float, stream: Stream | None, measured: Floats | None, age_s: float
) -> Hold | None:
    """Return the hold of joints by the four rules, None where nothing is known that they could be held at."""
    where = None if measured is None else measured.astype(np.float64)
    if stream is not None and not (np.isfinite(stream.at).all() and np.isfinite(stream.target).all()):
        stream = None
    if stream is not None and where is None and not stream.follows.all():
        stream = None
    if stream is None and where is None:
        return None
    if stream is not None and where is not None and limits is not None and age_s > 0.0:
        gone = np.fmin(limits.velocity_max, 1e9) * age_s
        where = np.where(stream.follows, where + np.clip(stream.at - where, -gone, gone), where)
    dim = len(stream.at if stream is not None else where)  # type: ignore[arg-type]
    low, high = _range(limits, dim)
    path = _path(limits, dt_s, stream, where)
    path = np.minimum(np.maximum(path, low), high)
    rule = MEASURED if stream is None or not stream.follows.any() else COMMAND if where is None else STREAM
    origin = _origin(stream, where)
    if not dt_s > 0.0:
        return Hold(path[-1:].astype(np.float32), dt_s, 0, rule, origin)
    centres = _centres(stream, where)
    most = _most(limits, dt_s, dim)
    start, count = _periods(path[-1], centres, (low, high), most)
    if (max(start + 1, count) - 1) * dt_s > LONGEST_S:
        return None
    rows = np.concatenate([path, np.tile(path[-1], (max(count - len(path), 0), 1))])
    reach = np.arange(1, len(rows) + 1)[:, None] * most
    for centre in centres:
        rows = np.where(np.isnan(centre), rows, np.minimum(np.maximum(rows, centre - reach), centre + reach))
    rows = np.minimum(np.maximum(rows, low), high)
    inside: Floats = np.minimum(np.maximum(rows.astype(np.float32), low), high).astype(np.float32)
    return Hold(inside, dt_s, start, rule, origin)


def _range(limits: Limits | None, dim: int) -> tuple[Floats, Floats]:
    if limits is None:
        return np.full(dim, -np.inf, np.float32), np.full(dim, np.inf, np.float32)
    return inner_limits(limits.position_min, limits.position_max)


def _most(limits: Limits | None, dt_s: float, dim: int) -> Doubles:
    """Return the largest move of a period, less what rounding to float32 may add."""
    if limits is None:
        return np.full(dim, np.inf)
    step = limits.velocity_max * dt_s
    extent = np.fmax(np.abs(limits.position_min), np.abs(limits.position_max))
    rounding = np.where(np.isfinite(extent), np.spacing(extent.astype(np.float32)).astype(np.float64), 0.0)
    return np.maximum(step - 2.0 * rounding, 1e-12)


def _path(limits: Limits | None, dt_s: float, stream: Stream | None, where: Doubles | None) -> Doubles:
    """Return (n, action_dim) the way to the standstill before any limit: the stream braked, or where a joint is measured."""
    if stream is None:
        assert where is not None
        return where[None]
    rows = _braked(limits, dt_s, stream)
    return rows if where is None else np.where(stream.follows, rows, where)


def _braked(limits: Limits | None, dt_s: float, stream: Stream) -> Doubles:
    """Brake as hard as the acceleration limit allows; where there is none, stop at the row that is being approached."""
    if stream.continuous and dt_s > 0.0:
        return _decelerated(limits, dt_s, stream)
    bend = np.full(len(stream.at), np.inf)
    if limits is not None and dt_s > 0.0:
        bend = limits.acceleration_max * dt_s * dt_s
    if np.isinf(bend).all():
        return stream.target[None]
    at, step, rows = stream.at, np.where(np.isinf(bend), 0.0, stream.step), list[Doubles]()
    at = np.where(np.isinf(bend), stream.target, at)
    if limits is not None:
        most = np.where(np.isinf(bend), 0.0, limits.velocity_max * dt_s)
        step = np.minimum(np.maximum(step, -most), most)
        bend = _together(limits, step, bend)
    while True:
        step = np.sign(step) * np.maximum(np.abs(step) - bend, 0.0)
        at = at + step
        rows.append(at)
        if not step.any() or len(rows) * dt_s > LONGEST_S:
            return np.array(rows)


def _decelerated(limits: Limits | None, dt_s: float, stream: Stream) -> Doubles:
    """Brake every joint with a constant deceleration: its limit, or within PERIODS where there is none."""
    at, step, rows = stream.at, stream.step, list[Doubles]()
    bend = np.full(len(at), np.inf)
    if limits is not None:
        most, bend = limits.velocity_max * dt_s, limits.acceleration_max * dt_s * dt_s
        step = np.minimum(np.maximum(step, -most), most)
    bend = _together(limits, step, np.where(np.isinf(bend), np.abs(step) / PERIODS, bend))
    while True:
        fast = np.abs(step)
        slow = np.maximum(fast - bend, 0.0)
        # its mean speed in this period; in the last one it comes only as far as it takes to stop
        way = np.where(
            slow > 0.0, (fast + slow) / 2.0, fast * fast / np.where(bend > 0.0, 2.0 * bend, np.inf)
        )
        at, step = at + np.sign(step) * way, np.sign(step) * slow
        rows.append(at)
        if not step.any() or len(rows) * dt_s > LONGEST_S:
            return np.array(rows)


def _together(limits: Limits | None, step: Doubles, bend: Doubles) -> Doubles:
    """Return (d,) changes of a period's move: where `Limits.together` says so, such ones that all joints come to rest at once."""
    if limits is None or not limits.together:
        return bend
    fast, moves = np.abs(step), step != 0.0
    longest = float((fast[moves] / bend[moves]).max(initial=0.0))
    return fast / longest if longest > 0.0 else bend


def _origin(stream: Stream | None, where: Doubles | None) -> Doubles:
    if stream is None:
        assert where is not None
        return where
    return stream.at if where is None else np.where(stream.follows, stream.at, where)


def _centres(stream: Stream | None, where: Doubles | None) -> list[Doubles]:
    """Return the positions from which no joint may move faster than its limit, NaN where a position does not count."""
    centres = [] if where is None else [where]
    if stream is not None:
        centres.append(np.where(stream.follows, stream.at, np.nan))
    return centres


def _periods(
    end: Doubles, centres: list[Doubles], limits: tuple[Floats, Floats], most: Doubles
) -> tuple[int, int]:
    """Return (first row in reach of every centre and inside the limits, number of rows until the end is reached).

    Intervals that meet in pairs all meet: what counts is the way of each centre into the range, and half of that
    between two centres.
    """
    low, high = limits
    ways = [np.maximum(np.maximum(low - centre, centre - high), 0.0) for centre in centres]
    ways += [np.abs(one - other) / 2 for i, one in enumerate(centres) for other in centres[:i]]
    first = np.nanmax([np.nan_to_num(way) / most for way in ways])
    last = np.nanmax([np.nan_to_num(np.abs(end - centre)) / most for centre in centres])
    return max(int(np.ceil(min(first, 1e9))) - 1, 0), max(int(np.ceil(min(last, 1e9))), 1)
