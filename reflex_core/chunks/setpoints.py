# SPDX-License-Identifier: Apache-2.0
"""Setpoints for controllers that take one row at a time: the newest chunk, sampled at every tick.

Pure: times are int ns of one clock that the caller chooses, and nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reflex_core.chunks.course import Course, MotionCourse, Row, StraightCourse
from reflex_core.chunks.interpolation import Doubles, Spline
from reflex_core.values import ActionChunk, Floats

# the row (width,) that is due and when, int ns, to the one that is sent instead
Adjust = Callable[[Doubles, int], Doubles]

BLEND_S = 0.2  # a robot at rest is led so long from where it is to the rows, which may be far from there
FRESH_S = 0.5  # so long after the last setpoint the controller is where that one led it, whatever is measured
STALL_S = 0.1  # after so long without a tick, or two periods, the rows are approached again, as from rest
UNLIMITED = 1e9  # of a velocity: more than any, and a number to calculate with
REPEATS = 3  # how often the last setpoint is sent, as one message may be lost


class UnmeasuredError(ValueError):
    """It is not known where the robot would be led from."""


def next_tick(deadline_ns: int, now_ns: int, period_ns: int) -> int:
    """Return the next deadline, at least half a period ahead: what is late is left out and never made up for by a burst."""
    periods = -(-(now_ns + period_ns // 2 - deadline_ns) // period_ns)
    return deadline_ns + max(periods, 1) * period_ns


class SetpointStream:
    """The commands of one controller, tick by tick: along the newest rows, and silent when there is nothing new.

    velocities: the rows are speeds, which a controller keeps up until the next one: the stream ends in zeros. Else they
    are positions, which it holds. period_ns: from tick to tick. Not thread-safe.
    """

    def __init__(self, width: int, *, velocities: bool, period_ns: int) -> None:
        self._width, self._velocities, self._period_ns = width, velocities, period_ns
        self._stall_ns = max(round(STALL_S * 1e9), 2 * period_ns)
        self._fresh_ns = max(round(FRESH_S * 1e9), self._stall_ns)
        self.velocity_max = np.full(width, UNLIMITED)  # of setpoints of positions
        self._most = self._reach(period_ns)
        self._course: Course | None = None
        self._lasts_s = 0.0  # for how long the last row of velocities counts
        self._last: Row | None = None
        self._last_ns = 0
        self._before: Row | None = None  # sent before the last one
        self._before_ns = 0
        self._ticked_ns = 0  # the newest tick, or since when there is something to say
        self._approached_ns = 0  # from then on the rows are followed, which were approached after a stall
        self._repeats = 0
        self._zeros: Row = [0.0] * width
        self._due = self._zeros  # what was due at the newest tick
        self._added = self._zeros  # and by how much that was adjusted
        self._measurable = False
        self.adjusted = False  # whether what is followed now is to be adjusted
        self.revision = 0  # another one from whenever something else is followed, or nothing
        self.stalls = self.unmeasured_starts = 0

    @property
    def last(self) -> Row | None:
        """What was sent last; None where nothing was, or where it means nothing any more."""
        return self._last

    @property
    def resting(self) -> bool:
        """True where the newest setpoint is the end, which is sent several times."""
        return self._repeats > 0

    def velocity(self) -> Doubles:
        """Return (width,) how fast the newest setpoint of positions goes on from the one before, per second; 0 for a first one."""
        if self._before is None or self._last is None:
            return np.zeros(self._width)
        seconds = max(self._last_ns - self._before_ns, self._period_ns) * 1e-9
        velocity: Doubles = np.subtract(self._last, self._before) / seconds
        return velocity

    @property
    def silent(self) -> bool:
        """True while no tick sends anything."""
        return self._course is None

    def limit(self, velocity_max: Doubles) -> None:
        """Move no setpoint of positions faster. velocity_max: (width,) per second; Inf: as fast as the rows."""
        self.velocity_max = np.fmin(velocity_max.astype(np.float64), UNLIMITED)
        self._most = self._reach(self._period_ns)

    def follow(
        self, chunk: ActionChunk, zero_ns: int, start: int, now_ns: int, measured: Floats | None, *,
        motion: Spline | None = None, adjusted: bool = False,
    ) -> None:  # fmt: skip
        """Follow the rows from now on instead of earlier ones, which are forgotten.

        chunk: (n, width) rows; row i is due at zero_ns + (i + 1) * dt_s. start: the first that is followed. motion: the same in
        time, on this clock, which is followed instead of straight lines: for positions of joints. measured: (width,)
        where the robot is, None where that is not known; a stream that has been silent starts there. adjusted: these rows are to be
        adjusted, so that they begin where the ones before would be without that. Raises ValueError for rows of another width, and for
        NaN and Inf: what was followed before ends where it is; likewise UnmeasuredError for a start of a robot that was measured before
        and is not now: it may have been moved. One that never was starts at the first row.
        """
        if measured is not None and not np.isfinite(measured).all():
            measured = None
        self._measurable |= measured is not None
        self.adjusted = adjusted
        self.revision += 1
        if self._last is not None and self._last_ns - now_ns > self._stall_ns:
            self._began_again(now_ns)
        rows = chunk.actions[start:].astype(np.float64)
        if not self._fits(rows) or (motion is not None and not self._fits(motion.positions)):
            self.stop()
            raise ValueError(f"expected rows of {self._width} finite numbers, got {rows.shape}: not sent")
        if motion is None:
            dues_s = (zero_ns - now_ns) * 1e-9 + np.arange(start + 1, start + 1 + len(rows)) * chunk.dt_s
            origin, blend_s = self._origin(now_ns, measured)
            self._course = StraightCourse.led(
                now_ns, dues_s.tolist(), rows.tolist(), origin, blend_s, self.velocity_max
            )
        else:
            self._course = self._into(motion, now_ns, measured)
        self._lasts_s, self._repeats = chunk.dt_s if self._velocities else 0.0, 0

    def _fits(self, rows: Doubles) -> bool:
        """Return True for one or more rows of this width, all finite."""
        return (
            rows.ndim == 2
            and rows.shape[1] == self._width
            and len(rows) > 0
            and bool(np.isfinite(rows).all())
        )

    def _into(self, motion: Spline, now_ns: int, measured: Floats | None) -> MotionCourse:
        """Return the course that leads over to a motion, from the one that is followed or from rest."""
        before = self._course
        stalls = self.stalls
        origin, blend_s = self._origin(now_ns, measured)
        if origin is None:
            return MotionCourse.direct(now_ns, motion)
        if isinstance(before, MotionCourse) and self._moves(before) and self.stalls == stalls:
            added = self._zeros if self.adjusted else self._added
            return MotionCourse.from_motion(now_ns, motion, before, added, BLEND_S, self.velocity_max)
        return MotionCourse.from_rest(now_ns, motion, origin, max(blend_s, BLEND_S), self.velocity_max)

    def _origin(self, now_ns: int, measured: Floats | None) -> tuple[Row | None, float]:
        """Return where the robot is led from, and for how long it is led to the rows."""
        before = self._last
        if self.adjusted and before is not None:
            before = [at - added for at, added in zip(before, self._added, strict=True)]
        if self._velocities:
            return (self._zeros if before is None else before), 0.0
        if self._course is None or self._stalled(now_ns):
            self._ticked_ns = now_ns
        if before is not None and now_ns - self._last_ns <= self._fresh_ns:
            return before, max(self._approached_ns - now_ns, 0) * 1e-9
        self._last = None
        if measured is not None:
            return measured.astype(np.float64).tolist(), BLEND_S
        if not self._measurable:
            return None, 0.0
        self.stop()
        self.unmeasured_starts += 1
        raise UnmeasuredError("a start after a pause needs a measurement of where it is: not sent")

    def _moves(self, course: MotionCourse) -> bool:
        """Return False before the first tick of a course that begins at rest."""
        return self._last is not None and (course.origin is None or self._last_ns >= course.zero_ns)

    def _stalled(self, now_ns: int) -> bool:
        """Return True after a while without a tick, which is counted: the robot is behind the rows, and approaches them again."""
        if self._course is None or now_ns - self._ticked_ns <= self._stall_ns:
            return False
        self.stalls += 1
        self._approached_ns = now_ns + round(BLEND_S * 1e9)
        return True

    def tick(self, now_ns: int, *, paced: bool = True) -> Row | None:
        """Return the setpoint to send now, unadjusted; None: say nothing. paced: as in `advance`."""
        due = self.due(now_ns)
        return None if due is None else self.advance(due, now_ns, paced=paced)

    def due(self, now_ns: int) -> Row | None:
        """Return what is due now, which may be adjusted before `advance` takes it; None: nothing."""
        if self._course is not None and self._course.zero_ns - now_ns > self._stall_ns:
            self._began_again(now_ns)
        if self._course is None:
            return None
        self._course = self._approached(self._course, now_ns)
        self._due = self._course.at(now_ns)
        return self._due

    def advance(self, adjusted: Row, now_ns: int, *, paced: bool = True) -> Row | None:
        """Return the setpoint to send now, as near to what is due as the limit of speed allows; None: say nothing.

        adjusted: what `due` returned for the same moment, adjusted or not. paced: the clock goes on by a period from tick to
        tick, and the setpoint by what the limit of speed allows in that, however late the tick is. Else, as simulators' clocks go in
        steps of their own, by what it allows since the tick before.
        """
        if self._course is None:
            return None
        over_s = self._course.seconds_over(now_ns)
        if self._velocities:
            row, ended = adjusted, over_s > self._lasts_s
        elif self._repeats and self._last is not None:
            row, ended = self._last, True
        else:
            most = self._most if paced else self._reach(now_ns - self._ticked_ns)
            row = self._within_reach(adjusted, self._course.origin, most)
            ended = over_s >= 0.0 and row == adjusted
        if adjusted is self._due:
            self._added = self._zeros
        else:
            self._added = [sent - due for sent, due in zip(adjusted, self._due, strict=True)]
        if ended:
            row = self._rest(row)
            self._repeats += 1
        self._before, self._before_ns = self._last, self._last_ns
        self._last, self._last_ns = row, now_ns
        self._ticked_ns = max(now_ns, self._course.zero_ns)
        if self._repeats >= REPEATS:
            self._course = None
        return row

    def _approached(self, course: Course, now_ns: int) -> Course:
        """Return the course from now on, where its first tick comes only now, or none came for a while."""
        if self._velocities:
            return course
        first = self._last is None or self._last_ns < course.zero_ns
        if first and course.origin is not None and course.blend_s > 0.0:
            return course.restarted(now_ns, course.origin, course.blend_s, self.velocity_max)
        if self._last is None or not self._stalled(now_ns):
            return course
        return course.restarted(now_ns, self._last, BLEND_S, self.velocity_max)

    def _reach(self, within_ns: int) -> Row:
        """Return how far the limit of speed lets each column go."""
        reach: Row = (self.velocity_max * (max(within_ns, 0) * 1e-9)).tolist()
        return reach

    def _within_reach(self, due: Row, origin: Row | None, most: Row) -> Row:
        """Return what is due, as near to it as `most` allows from the setpoint before."""
        before = origin if self._last is None else self._last
        if before is None:
            return due
        return [min(max(to, at - reach), at + reach) for to, at, reach in zip(due, before, most, strict=True)]

    def _rest(self, row: Row) -> Row:
        return self._zeros if self._velocities else row

    def _began_again(self, now_ns: int) -> None:
        """Forget the rows, as the robot may be anywhere: speeds end in zeros, and of positions nothing more is said."""
        followed, last = self._course, self._last
        self.forget()
        if followed is not None and self._velocities and last is not None:
            zeros = self._rest(last)
            self._course = StraightCourse(now_ns, (0.0,), (zeros,), None, 0.0)
            self._last, self._last_ns = zeros, now_ns
            self._lasts_s, self._repeats = 0.0, 0

    def stop(self) -> list[Row]:
        """Follow nothing any more. Return the rows that leave the robot held; none where nothing was sent."""
        followed, self._course = self._course, None
        self.revision += 1
        if self._last is None or (followed is None and not self._velocities):
            return []
        self._last = self._rest(self._last)
        return [self._last] * REPEATS

    def forget(self) -> None:
        """Forget what was sent, as others may command the robot from now on."""
        self._course = self._last = None
        self._added = self._zeros
        self._approached_ns = 0
        self.revision += 1
