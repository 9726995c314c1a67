# SPDX-License-Identifier: Apache-2.0
"""What a stream of setpoints follows, sampled at any moment: rows in straight lines, or a motion that is smooth in time.

Plain numbers at every tick: for a robot's few joints on a cold cache, as every hundredth of a second, arrays are twice as slow.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from reflex_core.chunks.interpolation import Doubles, Spline

Row = list[float]  # one setpoint: rad or m, or per second

CLOSED, STILL = 1e-6, 1e-4  # rad or m, and per second: no gap, and none that opens
FROM_REST = 1.5  # so much faster than a straight line is a cubic from rest


class Course(Protocol):
    """Where a stream is at any moment from `zero_ns` on, int ns of the stream's clock.

    origin: (width,) where the robot is led from at rest; None: unknown, or it moves already. blend_s: how long the way from there takes.
    """

    @property
    def zero_ns(self) -> int: ...
    @property
    def origin(self) -> Row | None: ...
    @property
    def blend_s(self) -> float: ...

    def at(self, now_ns: int) -> Row:
        """Return (width,) what is due now."""

    def seconds_over(self, now_ns: int) -> float:
        """Return how long ago the end was reached; negative before."""

    def restarted(self, now_ns: int, origin: Row, blend_s: float, velocity_max: Doubles) -> Course:
        """Return the course from now on, led from rest at `origin` within `blend_s`, or as long as the limits (width,) need."""


@dataclass(frozen=True, slots=True)
class StraightCourse:
    """Rows and when each is due, linear between them. times_s: (n,) increasing, after zero_ns. rows: n of the stream's width.

    origin: where the robot is led from at zero_ns; None: unknown. blend_s: how long that takes; 0: until the first
    row, which is then the origin itself.
    """

    zero_ns: int
    times_s: tuple[float, ...]
    rows: tuple[Row, ...]
    origin: Row | None
    blend_s: float

    @classmethod
    def through(
        cls, now_ns: int, times_s: Sequence[float], rows: Sequence[Row], origin: Row | None, blend_s: float
    ) -> StraightCourse:
        """Return the course from now on through those rows that are still to come; through the last one in any case."""
        past = min(bisect_right(times_s, 0.0), len(times_s) - 1)
        coming = (*(max(time_s, 0.0) for time_s in times_s[past:]),)
        if origin is None or blend_s > 0.0 or not coming[0] > 0.0:
            return cls(now_ns, coming, (*rows[past:],), origin, blend_s)
        return cls(now_ns, (0.0, *coming), (origin, *rows[past:]), origin, 0.0)

    @classmethod
    def led(
        cls, now_ns: int, times_s: Sequence[float], rows: Sequence[Row], origin: Row | None, blend_s: float,
        velocity_max: Doubles,
    ) -> StraightCourse:  # fmt: skip
        """Return the course from now on, whose blend takes as long as the way to the rows does at the limit of speed."""
        course = cls.through(now_ns, times_s, rows, origin, blend_s)
        if origin is None or not blend_s > 0.0:
            return course
        way_s = np.abs(np.subtract(course.along(blend_s), origin)) / velocity_max
        return replace(course, blend_s=max(blend_s, float(way_s.max())))

    def at(self, now_ns: int) -> Row:
        """Return what is due now, on the way from the origin to the rows."""
        seconds = max((now_ns - self.zero_ns) * 1e-9, 0.0)
        row = self.along(seconds)
        if self.origin is None or seconds >= self.blend_s:
            return row
        return _between(self.origin, row, seconds / self.blend_s)

    def along(self, seconds: float) -> Row:
        """Return the rows so long after zero_ns: linear between them, the first one before them, the last one after them."""
        times, rows = self.times_s, self.rows
        after = bisect_left(times, seconds)
        if after == 0 or after == len(times):
            return rows[0 if after == 0 else -1]
        share = (seconds - times[after - 1]) / (times[after] - times[after - 1])
        return _between(rows[after - 1], rows[after], share)

    def seconds_over(self, now_ns: int) -> float:
        """Return how long ago the last row was reached; negative before."""
        return (now_ns - self.zero_ns) * 1e-9 - max(self.times_s[-1], self.blend_s)

    def restarted(self, now_ns: int, origin: Row, blend_s: float, velocity_max: Doubles) -> StraightCourse:
        """As `Course` says."""
        gone_s = (now_ns - self.zero_ns) * 1e-9
        times_s = [time_s - gone_s for time_s in self.times_s]
        return StraightCourse.led(now_ns, times_s, self.rows, origin, blend_s, velocity_max)


def _between(one: Row, other: Row, share: float) -> Row:
    return [a + share * (b - a) for a, b in zip(one, other, strict=True)]


@dataclass(frozen=True, slots=True)
class MotionCourse:
    """A motion in time, on the stream's clock, and what leads over to it: no step of the position or of the velocity.

    away: (2, width) how far the stream is from the motion at zero_ns, and how fast that changes; closed by a cubic within blend_s.
    """

    zero_ns: int
    motion: Spline
    origin: Row | None
    away: Doubles
    blend_s: float
    # what a tick reads of both: when the knots are; of each way and column its two positions, and both velocities times how long it
    # takes; of each column how far it is away, and how fast
    _times_ns: tuple[int, ...] = field(init=False, repr=False)
    _ways: list[list[list[float]]] = field(init=False, repr=False)
    _away: list[list[float]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Lay out what a tick reads."""
        times_ns, places, speeds = self.motion.times_ns, self.motion.positions, self.motion.velocities
        takes_s = np.diff(times_ns)[:, None] * 1e-9
        ways = np.stack([places[:-1], places[1:], takes_s * speeds[:-1], takes_s * speeds[1:]], axis=2)
        object.__setattr__(self, "_times_ns", tuple(times_ns.tolist()))
        object.__setattr__(self, "_ways", ways.tolist())
        object.__setattr__(self, "_away", self.away.T.tolist())

    @classmethod
    def direct(cls, now_ns: int, motion: Spline) -> MotionCourse:
        """Return the motion itself from now on."""
        return cls(now_ns, motion, None, np.zeros((2, motion.positions.shape[1])), 0.0)

    @classmethod
    def from_rest(
        cls, now_ns: int, motion: Spline, origin: Row, blend_s: float, velocity_max: Doubles
    ) -> MotionCourse:
        """Return the motion as a robot that rests at `origin` gets into it."""
        still, place = np.zeros(len(origin)), np.array(origin)
        return cls._closing(now_ns, motion, place, still, blend_s, velocity_max, origin)

    @classmethod
    def from_motion(
        cls, now_ns: int, motion: Spline, before: MotionCourse, added: Row, blend_s: float, velocity_max: Doubles
    ) -> MotionCourse:  # fmt: skip
        """Return the motion as a robot gets into it that follows another one, sent `added` (width,) beside that."""
        place, velocity = before.state(now_ns)
        left_s = before.blend_s - (now_ns - before.zero_ns) * 1e-9
        return cls._closing(
            now_ns, motion, place + np.array(added), velocity, max(blend_s, left_s), velocity_max, None
        )

    @classmethod
    def _closing(
        cls, now_ns: int, motion: Spline, place: Doubles, velocity: Doubles, blend_s: float, velocity_max: Doubles,
        origin: Row | None,
    ) -> MotionCourse:  # fmt: skip
        there, speed = motion.at(now_ns)
        away = np.stack([place - there, velocity - speed])
        gap, opening = np.abs(away)
        if (gap <= CLOSED).all() and (opening <= STILL).all():
            return cls(now_ns, motion, origin, away, 0.0)
        way_s = FROM_REST * float((gap / velocity_max).max())
        return cls(now_ns, motion, origin, away, max(blend_s, way_s))

    def restarted(self, now_ns: int, origin: Row, blend_s: float, velocity_max: Doubles) -> MotionCourse:
        """As `Course` says."""
        return MotionCourse.from_rest(now_ns, self.motion, origin, blend_s, velocity_max)

    def at(self, now_ns: int) -> Row:
        """Return what is due now."""
        place = self._along(now_ns)
        seconds = max((now_ns - self.zero_ns) * 1e-9, 0.0)
        if seconds >= self.blend_s:
            return place
        left = 1.0 - seconds / self.blend_s
        square = left * left
        of_gap, of_opening = (3.0 - 2.0 * left) * square, seconds * square
        return [
            at + of_gap * gap + of_opening * opening
            for at, (gap, opening) in zip(place, self._away, strict=True)
        ]

    def _along(self, now_ns: int) -> Row:
        """Return where the motion is: cubic between two knots, at rest before the first and after the last."""
        times_ns = self._times_ns
        after = bisect_right(times_ns, now_ns)
        if after == 0 or after == len(times_ns):
            end: Row = self.motion.positions[0 if after == 0 else -1].tolist()
            return end
        began_ns = times_ns[after - 1]
        u = (now_ns - began_ns) / (times_ns[after] - began_ns)
        left = 1.0 - u
        a, b, c, d = (1.0 + 2.0 * u) * left * left, u * u * (3.0 - 2.0 * u), u * left * left, u * u * left
        return [a * p + b * q + c * v - d * w for p, q, v, w in self._ways[after - 1]]

    def state(self, now_ns: int) -> tuple[Doubles, Doubles]:
        """Return (width,) what is due now, and (width,) how fast that moves."""
        _, velocity = self.motion.at(now_ns)
        seconds = max((now_ns - self.zero_ns) * 1e-9, 0.0)
        if seconds < self.blend_s:
            left, (gap, opening) = 1.0 - seconds / self.blend_s, self.away
            velocity += left * (1.0 - left) * (-6.0 / self.blend_s) * gap
            velocity += left * (3.0 * left - 2.0) * opening
        return np.array(self.at(now_ns)), velocity

    def seconds_over(self, now_ns: int) -> float:
        """Return how long ago the motion came to rest; negative before."""
        blended_ns = self.zero_ns + int(self.blend_s * 1e9)
        return (now_ns - max(self.motion.end_ns, blended_ns)) * 1e-9
