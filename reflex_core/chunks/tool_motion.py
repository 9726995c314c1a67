# SPDX-License-Identifier: Apache-2.0
"""Motions of tool and bodies: whether one keeps its limits, and a slower one on the same path that does.

Slower is one factor for all joints, at each place of the path another: as the tool's speed there allows, and less and less
before a stop. Where the joints' acceleration is limited, slowing down keeps to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reflex_core.chunks.envelope import envelope
from reflex_core.chunks.interpolation import Bounds, Doubles
from reflex_core.robot.limits.hold import PERIODS
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.tool import MARGIN_M, Course, ToolJudge, Verdict
from reflex_core.robot.limits.tool_limits import ToolLimits
from reflex_core.values import Floats

ATTEMPTS = 12  # to find a slower motion; then the robot is held
BELOW = 0.97  # times the limit: what a repair aims at, so that it is found soon
EARLIER = 0.5  # rows: a stop that was too late is tried so much earlier
DEEPER_M = 2.0 * MARGIN_M  # inside the limits of place: from there a repaired motion can be led on
BRAKED = 1.0 / PERIODS  # of a row: so much less is done in a period where no acceleration is limited
SHARE = 0.7  # of the acceleration limit that slowing down may take: the bends of the path have the rest


class ToolMotion:
    """The limits of one robot's tool, and how its rows are executed. Holds no state: thread-safe."""

    def __init__(self, limits: Limits, tool: ToolLimits, bounds: Bounds, dt_s: float) -> None:
        """Take the limits. bounds: in which motions are made. dt_s: between two rows, above 0."""
        self._judge, self._bounds, self._dt_s = ToolJudge(tool), bounds, dt_s
        self._bend = limits.acceleration_max * dt_s * dt_s
        self._moves_tool = self._judge.moving
        self.limited = bool(np.isfinite(self._bend[self._moves_tool]).any())

    def verdict(
        self, knots: Doubles, seconds: Doubles, velocity: Doubles, margin_m: float = MARGIN_M
    ) -> Verdict:  # fmt: skip
        """Judge the motion through knots (n + 1, d), seconds (n,) apart, that begins with `velocity` (d,) per second.

        A hold at any moment of it must keep the limits of place as well.
        """
        low, high = envelope(knots, seconds, velocity, self._bounds)
        steps = np.diff(knots, axis=0) * (self._dt_s / seconds)[:, None]
        periods = np.full((len(steps), 1), PERIODS)
        if self.limited:
            limited = np.isfinite(self._bend)
            longest = (np.abs(steps[:, limited]) / self._bend[limited]).max(axis=1, initial=PERIODS)
            periods = longest[:, None]
        return self._judge(Course(knots, seconds, low, high, knots[1:] + steps * periods / 2.0), margin_m)

    def slowed(
        self,
        knots: Doubles,
        seconds: Doubles,
        velocity: Doubles,
        verdict: Verdict,
        executed: Callable[[Doubles], Floats | None],
    ) -> Floats | None:
        """Return what `executed` makes of rows (n, d) on the path of the knots that keep every limit, None where none were found.

        verdict: of the knots. executed: returns rows whose last n are executed, None where there are none.
        """
        count = len(seconds)
        pace, stop, places = np.ones(count + 1), float(count), np.arange(count + 1.0)
        for attempt in range(ATTEMPTS):
            steps = np.diff(places)
            for way in np.flatnonzero(verdict.hurry > 1.0).tolist():
                over = slice(int(places[way]), int(np.ceil(places[way + 1])) + 1)
                pace[over] = np.minimum(pace[over], steps[way] * BELOW / float(verdict.hurry[way]))
            if verdict.leaves < count:
                if stop == 0.0:
                    return None
                stop = min(stop, max(float(places[verdict.leaves]) - EARLIER * attempt, 0.0))
            places = _places(self._braked(pace, stop, knots), stop)
            rows = executed(_along(knots, places))
            if rows is None:
                return None
            now = np.concatenate([knots[:1], rows[-count:].astype(np.float64)])
            verdict = self.verdict(now, seconds, velocity, DEEPER_M)
            if verdict.clean:
                return rows
        return None

    def _braked(self, pace: Doubles, stop: float, knots: Doubles) -> Doubles:
        """Return (n + 1,) how much of a row may be done in a period at each knot, so that slowing down begins in time."""
        change = np.full(len(pace), BRAKED)
        if self.limited:
            moves = np.abs(np.diff(knots, axis=0))
            room = np.where(moves > 0.0, SHARE * self._bend / np.where(moves > 0.0, moves, 1.0), np.inf)
            change[:-1] = np.minimum(change[:-1], room.min(axis=1))
        allowed, last = pace.tolist(), len(pace) - 1
        for at in range(last - 1, -1, -1):
            way = min(max(stop - at, 0.0), 1.0)
            beyond = 0.0 if stop < at + 1.0 else allowed[at + 1]
            allowed[at] = min(allowed[at], (beyond * beyond + 2.0 * float(change[at]) * way) ** 0.5)
        return np.array(allowed)


def _places(pace: Doubles, stop: float) -> Doubles:
    """Return (n + 1,) where on the path the motion is after each period, in rows."""
    squares, last = (pace * pace).tolist(), len(pace) - 1
    places = [0.0]
    for _ in range(last):
        at = places[-1]
        half = _pace_at(squares, at, last) / 2.0
        places.append(min(at + _pace_at(squares, min(at + half, stop), last), stop))
    return np.array(places)


def _pace_at(squares: Sequence[float], place: float, last: int) -> float:
    """Return the pace at a place: its square changes evenly between two knots."""
    row = min(int(place), last - 1)
    square = squares[row] + (squares[row + 1] - squares[row]) * (place - row)
    return float(max(square, 0.0) ** 0.5)


def _along(knots: Doubles, places: Doubles) -> Doubles:
    """Return (n, d) the points of the path at all places but the first."""
    row = np.minimum(places[1:].astype(np.intp), len(knots) - 2)
    along: Doubles = knots[row] + (knots[row + 1] - knots[row]) * (places[1:] - row)[:, None]
    return along
