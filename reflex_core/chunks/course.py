# SPDX-License-Identifier: Apache-2.0
"""What a stream of setpoints follows, sampled at any moment: rows in straight lines, or a motion that is smooth in time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from reflex_core.chunks.interpolation import Doubles, Spline

CLOSED, STILL = 1e-6, 1e-4  # rad or m, and per second: no gap, and none that opens
FROM_REST = 1.5  # so much faster than a straight line is a cubic from rest


class Course(Protocol):
    """Where a stream is at any moment from `zero_ns` on, int ns of the stream's clock.

    origin: (width,) where the robot is led from at rest; None: unknown, or it moves already. blend_s: how long the way from there takes.
    """

    @property
    def zero_ns(self) -> int: ...
    @property
    def origin(self) -> Doubles | None: ...
    @property
    def blend_s(self) -> float: ...

    def at(self, now_ns: int) -> Doubles:
        """Return (width,) what is due now."""

    def seconds_over(self, now_ns: int) -> float:
        """Return how long ago the end was reached; negative before."""

    def restarted(self, now_ns: int, origin: Doubles, blend_s: float, velocity_max: Doubles) -> Course:
        """Return the course from now on, led from rest at `origin` within `blend_s`, or as long as the limits (width,) need."""


@dataclass(frozen=True, slots=True)
class StraightCourse:
    """Rows and when each is due, linear between them. times_s: (n,) increasing, after zero_ns. rows: (n, width).

    origin: (width,) where the robot is led from at zero_ns; None: unknown. blend_s: how long that takes; 0: until the first
    row, which is then the origin itself.
    """

    zero_ns: int
    times_s: tuple[float, ...]
    rows: Doubles
    origin: Doubles | None
    blend_s: float

    @classmethod
    def through(
        cls, now_ns: int, times_s: Sequence[float], rows: Doubles, origin: Doubles | None, blend_s: float
    ) -> StraightCourse:
        """Return the course from now on through those rows that are still to come; through the last one in any case."""
        past = min(bisect_right(times_s, 0.0), len(times_s) - 1)
        coming = (*(max(time_s, 0.0) for time_s in times_s[past:]),)
        if origin is None or blend_s > 0.0 or not coming[0] > 0.0:
            return cls(now_ns, coming, rows[past:], origin, blend_s)
        return cls(now_ns, (0.0, *coming), np.concatenate([origin[None], rows[past:]]), origin, 0.0)

    @classmethod
    def led(
        cls, now_ns: int, times_s: Sequence[float], rows: Doubles, origin: Doubles | None, blend_s: float,
        velocity_max: Doubles,
    ) -> StraightCourse:  # fmt: skip
        """Return the course from now on, whose blend takes as long as the way to the rows does at the limit of speed."""
        course = cls.through(now_ns, times_s, rows, origin, blend_s)
        if origin is None or not blend_s > 0.0:
            return course
        way_s = np.abs(course.along(blend_s) - origin) / velocity_max
        return replace(course, blend_s=max(blend_s, float(way_s.max())))

    def at(self, now_ns: int) -> Doubles:
        """Return (width,) what is due now, on the way from the origin to the rows."""
        seconds = max((now_ns - self.zero_ns) * 1e-9, 0.0)
        row = self.along(seconds)
        if self.origin is None or seconds >= self.blend_s:
            return row
        blended: Doubles = self.origin + seconds / self.blend_s * (row - self.origin)
        return blended

    def along(self, seconds: float) -> Doubles:
        """Return (width,) the rows so long after zero_ns: linear between them, the first one before them, the last one after them."""
        times, rows = self.times_s, self.rows
        after = bisect_left(times, seconds)
        row: Doubles
        if after == 0:
            row = rows[0]
        elif after == len(times):
            row = rows[-1]
        else:
            share = (seconds - times[after - 1]) / (times[after] - times[after - 1])
            row = rows[after - 1] + share * (rows[after] - rows[after - 1])
        return row

    def seconds_over(self, now_ns: int) -> float:
        """Return how long ago the last row was reached; negative before."""
        return (now_ns - self.zero_ns) * 1e-9 - max(self.times_s[-1], self.blend_s)

    def restarted(
        self, now_ns: int, origin: Doubles, blend_s: float, velocity_max: Doubles
    ) -> StraightCourse:
        """As `Course` says."""
        gone_s = (now_ns - self.zero_ns) * 1e-9
        times_s = [time_s - gone_s for time_s in self.times_s]
        return StraightCourse.led(now_ns, times_s, self.rows, origin, blend_s, velocity_max)


@dataclass(frozen=True, slots=True)
class MotionCourse:
    """A motion in time, on the stream's clock, and what leads over to it: no step of the position or of the velocity.

    gap, opening: (width,) how far the stream is from the motion at zero_ns, and how fast that changes; closed by a cubic within blend_s.
    """

    zero_ns: int
    motion: Spline
    origin: Doubles | None
    gap: Doubles
    opening: Doubles
    blend_s: float

    @classmethod
    def direct(cls, now_ns: int, motion: Spline) -> MotionCourse:
        """Return the motion itself from now on."""
        nothing = np.zeros(motion.positions.shape[1])
        return cls(now_ns, motion, None, nothing, nothing, 0.0)

    @classmethod
    def from_rest(
        cls, now_ns: int, motion: Spline, origin: Doubles, blend_s: float, velocity_max: Doubles
    ) -> MotionCourse:
        """Return the motion as a robot that rests at `origin` gets into it."""
        still = np.zeros(len(origin))
        return cls._closing(now_ns, motion, origin, still, blend_s, velocity_max, origin)

    @classmethod
    def from_motion(
        cls, now_ns: int, motion: Spline, before: MotionCourse, added: Doubles, blend_s: float, velocity_max: Doubles
    ) -> MotionCourse:  # fmt: skip
        """Return the motion as a robot gets into it that follows another one, sent `added` (width,) beside that."""
        place, velocity = before.state(now_ns)
        left_s = before.blend_s - (now_ns - before.zero_ns) * 1e-9
        return cls._closing(now_ns, motion, place + added, velocity, max(blend_s, left_s), velocity_max, None)

    @classmethod
    def _closing(
        cls, now_ns: int, motion: Spline, place: Doubles, velocity: Doubles, blend_s: float, velocity_max: Doubles,
        origin: Doubles | None,
    ) -> MotionCourse:  # fmt: skip
        there, speed = motion.at(now_ns)
        gap, opening = place - there, velocity - speed
        if (np.abs(gap) <= CLOSED).all() and (np.abs(opening) <= STILL).all():
            return cls(now_ns, motion, origin, gap, opening, 0.0)
        way_s = FROM_REST * float((np.abs(gap) / velocity_max).max())
        return cls(now_ns, motion, origin, gap, opening, max(blend_s, way_s))

    def restarted(self, now_ns: int, origin: Doubles, blend_s: float, velocity_max: Doubles) -> MotionCourse:
        """As `Course` says."""
        return MotionCourse.from_rest(now_ns, self.motion, origin, blend_s, velocity_max)

    def at(self, now_ns: int) -> Doubles:
        """Return (width,) what is due now."""
        place = self.motion.place(now_ns)
        seconds = max((now_ns - self.zero_ns) * 1e-9, 0.0)
        if seconds >= self.blend_s:
            return place
        left = 1.0 - seconds / self.blend_s
        place += left * left * ((3.0 - 2.0 * left) * self.gap + seconds * self.opening)
        return place

    def state(self, now_ns: int) -> tuple[Doubles, Doubles]:
        """Return (width,) what is due now, and (width,) how fast that moves."""
        _, velocity = self.motion.at(now_ns)
        seconds = max((now_ns - self.zero_ns) * 1e-9, 0.0)
        if seconds < self.blend_s:
            left = 1.0 - seconds / self.blend_s
            velocity += left * (1.0 - left) * (-6.0 / self.blend_s) * self.gap
            velocity += left * (3.0 * left - 2.0) * self.opening
        return self.at(now_ns), velocity

    def seconds_over(self, now_ns: int) -> float:
        """Return how long ago the motion came to rest; negative before."""
        blended_ns = self.zero_ns + int(self.blend_s * 1e9)
        return (now_ns - max(self.motion.end_ns, blended_ns)) * 1e-9
