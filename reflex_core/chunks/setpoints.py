# SPDX-License-Identifier: Apache-2.0
"""Setpoints for controllers that take one row at a time: the newest chunk, sampled at every tick.

Pure: times are int ns of one clock that the caller chooses, and nothing here waits.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.values import ActionChunk, Floats

Doubles = NDArray[np.float64]

BLEND_S = 0.2  # a robot at rest is led so long from where it is to the rows, which may be far from there
FRESH_S = 0.5  # so long after the last setpoint the controller is where that one led it, whatever is measured
STALL_S = 0.1  # after so long without a tick the rows are approached again, as from rest
REPEATS = 3  # how often the last setpoint is sent, as one message may be lost


def next_tick(deadline_ns: int, now_ns: int, period_ns: int) -> int:
    """Return the next deadline, at least half a period ahead: what is late is left out and never made up for by a burst."""
    periods = -(-(now_ns + period_ns // 2 - deadline_ns) // period_ns)
    return deadline_ns + max(periods, 1) * period_ns


@dataclass(frozen=True, slots=True)
class _Course:
    """Rows and when each is due. times_s: (n,) increasing, after zero_ns. rows: (n, width).

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
    ) -> _Course:
        """Return the course from now on through those rows that are still to come; through the last one in any case."""
        past = min(bisect_right(times_s, 0.0), len(times_s) - 1)
        coming = (*(max(time_s, 0.0) for time_s in times_s[past:]),)
        if origin is None or blend_s > 0.0 or not coming[0] > 0.0:
            return cls(now_ns, coming, rows[past:], origin, blend_s)
        return cls(now_ns, (0.0, *coming), np.concatenate([origin[None], rows[past:]]), origin, 0.0)

    def at(self, now_ns: int) -> Doubles:
        """Return (width,) what is due now: linear between rows, the first one before them, the last one after them."""
        seconds = max((now_ns - self.zero_ns) * 1e-9, 0.0)
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
        if self.origin is None or seconds >= self.blend_s:
            return row
        blended: Doubles = self.origin + seconds / self.blend_s * (row - self.origin)
        return blended

    def seconds_over(self, now_ns: int) -> float:
        """Return how long ago the last row was reached; negative before."""
        return (now_ns - self.zero_ns) * 1e-9 - max(self.times_s[-1], self.blend_s)


class SetpointStream:
    """The commands of one controller, tick by tick: along the newest rows, and silent when there is nothing new.

    velocities: the rows are speeds, which a controller keeps up until the next one: the stream ends in zeros. Else they
    are positions, which it holds. Not thread-safe.
    """

    def __init__(self, width: int, *, velocities: bool) -> None:
        self._width, self._velocities = width, velocities
        self._course: _Course | None = None
        self._lasts_s = 0.0  # for how long the last row of velocities counts
        self._last: Doubles | None = None
        self._last_ns = 0
        self._repeats = 0
        self.stalls = 0

    @property
    def silent(self) -> bool:
        """True while no tick sends anything."""
        return self._course is None

    def follow(
        self, chunk: ActionChunk, zero_ns: int, start: int, now_ns: int, measured: Floats | None
    ) -> None:
        """Follow the rows from now on instead of earlier ones, which are forgotten.

        chunk: (n, width) rows; row i is due at zero_ns + (i + 1) * dt_s. start: the first that is followed. measured: (width,)
        where the robot is, None where that is not known; a stream that has been silent starts there. Raises ValueError for rows of
        another width, and for NaN and Inf: what was followed before ends where it is.
        """
        if self._last is not None and self._last_ns - now_ns > STALL_S * 1e9:
            self._began_again(now_ns)
        rows = chunk.actions[start:].astype(np.float64)
        if rows.ndim != 2 or rows.shape[1] != self._width or not len(rows) or not np.isfinite(rows).all():
            self.stop()
            raise ValueError(f"expected rows of {self._width} finite numbers, got {rows.shape}: not sent")
        dues_s = (zero_ns - now_ns) * 1e-9 + np.arange(start + 1, start + 1 + len(rows)) * chunk.dt_s
        origin, blend_s = self._origin(now_ns, measured)
        self._course = _Course.through(now_ns, dues_s.tolist(), rows, origin, blend_s)
        self._lasts_s, self._repeats = chunk.dt_s if self._velocities else 0.0, 0

    def _origin(self, now_ns: int, measured: Floats | None) -> tuple[Doubles | None, float]:
        """Return where the robot is led from, and for how long it is led to the rows."""
        if self._velocities:
            return (np.zeros(self._width) if self._last is None else self._last), 0.0
        if self._last is not None and now_ns - self._last_ns <= FRESH_S * 1e9:
            return self._last, 0.0
        known = self._last if measured is None else measured.astype(np.float64)
        return known, 0.0 if known is None else BLEND_S

    def tick(self, now_ns: int) -> Doubles | None:
        """Return (width,) the setpoint to send now; None: say nothing."""
        if self._course is None:
            return None
        if self._course.zero_ns - now_ns > STALL_S * 1e9:
            self._began_again(now_ns)
        if self._course is None:
            return None
        self._course = self._approached(self._course, now_ns)
        over_s = self._course.seconds_over(now_ns)
        row = self._course.at(now_ns)
        if over_s > self._lasts_s or (not self._velocities and over_s >= 0.0):
            row = self._rest(row)
            self._repeats += 1
        self._last, self._last_ns = row, now_ns
        if self._repeats >= REPEATS:
            self._course = None
        return row

    def _approached(self, course: _Course, now_ns: int) -> _Course:
        """Return the course from now on, where its first tick comes only now, or none came for a while."""
        if self._velocities or course.origin is None:
            return course
        first = self._last is None or self._last_ns < course.zero_ns
        if first and course.blend_s > 0.0:
            return _restarted(course, now_ns, course.origin, course.blend_s)
        if self._last is None or now_ns - max(self._last_ns, course.zero_ns) <= STALL_S * 1e9:
            return course
        self.stalls += 1
        return _restarted(course, now_ns, self._last, BLEND_S)

    def _rest(self, row: Doubles) -> Doubles:
        return np.zeros(self._width) if self._velocities else row

    def _began_again(self, now_ns: int) -> None:
        """Forget the rows, as the robot may be anywhere: speeds end in zeros, and of positions nothing more is said."""
        followed, last = self._course, self._last
        self.forget()
        if followed is not None and self._velocities and last is not None:
            zeros = self._rest(last)
            self._course, self._last, self._last_ns = (
                _Course(now_ns, (0.0,), zeros[None], None, 0.0),
                zeros,
                now_ns,
            )
            self._lasts_s, self._repeats = 0.0, 0

    def stop(self) -> list[Doubles]:
        """Follow nothing any more. Return the rows that leave the robot held; none where nothing was sent."""
        followed, self._course = self._course, None
        if self._last is None or (followed is None and not self._velocities):
            return []
        self._last = self._rest(self._last)
        return [self._last] * REPEATS

    def forget(self) -> None:
        """Forget what was sent, as others may command the robot from now on."""
        self._course = self._last = None


def _restarted(course: _Course, now_ns: int, origin: Doubles, blend_s: float) -> _Course:
    """Return the course from now on, led from `origin`."""
    gone_s = (now_ns - course.zero_ns) * 1e-9
    times_s = [time_s - gone_s for time_s in course.times_s]
    return _Course.through(now_ns, times_s, course.rows, origin, blend_s)
