# SPDX-License-Identifier: Apache-2.0
"""Hand the robot over from one chunk to the next: the motion it executes now, and how a new one begins.

What is published is a motion through the rows of a chunk. It begins where the running one is at that moment, with its
velocity, and a new chunk's first rows are faded in. After a hold, a stop or a doubt it is unknown what the controller commands
at that moment: the new motion then begins at rest, and gives the controller time for the way to its first row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from reflex_core.chunks.interpolation import OUTSIDE, Bounds, Doubles, Spline, Times, fade, through
from reflex_core.chunks.tool_motion import ToolMotion
from reflex_core.export.binding import Binding
from reflex_core.robot.groups import JOINTS, POSITION, velocity_columns
from reflex_core.robot.limits.hold import Hold
from reflex_core.robot.limits.limits import Limits
from reflex_core.values import ActionChunk, Columns, Floats

# so long a controller has for the way to the first row, where its command is not known; longer, at most MOST_LEAD_S, where it may
# still be where the last motion ended, as after a stop beside a joint that is blocked
LEAD_S, MOST_LEAD_S = 0.2, 1.0
MOVED = 0.05  # rad or m: a joint that went so far since a hold is commanded by others
# a row that is due sooner is left out: float32 is too coarse for a velocity over so short a way; at most a share of a period
CLOSEST_S, LARGEST_SHARE = 0.005, 0.25
FROM_REST = 1.5  # so much faster than a straight line is a cubic from rest, at most
UNKNOWN_DT_S = 0.1  # of a hold whose rows have no period


def bounds_of(binding: Binding, limits: Limits | None) -> Bounds:
    """Return what the motions of this robot must stay in: the guard's limits, and which columns move like joints."""
    dim = len(binding.action_names)
    smooth, fade_s = np.ones(dim, np.bool_), np.full(dim, np.nan)
    for group in binding.groups:
        smooth[list(group.columns)] = group.space == JOINTS and group.commands == POSITION
        fade_s[list(group.columns)] = group.options.get("fade_s", np.nan)
    if limits is None:
        return replace(
            Bounds.unlimited(dim), smooth=smooth, fade_s=fade_s, rates=velocity_columns(binding.groups, dim)
        )
    smooth &= ~(limits.gripper | limits.workspace)
    return Bounds(limits.position_min, limits.position_max, limits.velocity_max, smooth, fade_s, limits.rates)


def braking(held: Hold, columns: Columns | slice, now_ns: int) -> Spline:
    """Return how velocities become 0: along all rows of the hold, whatever the joints of the robot need time for."""
    times_ns = now_ns + np.arange(len(held.rows) + 1) * round((held.dt_s or UNKNOWN_DT_S) * 1e9)
    rows = np.concatenate([held.origin[None, columns], held.rows[:, columns].astype(np.float64)])
    return Spline(times_ns, rows, np.zeros_like(rows), anchored=True)


class Handover:
    """The motion that the robot executes, as it was published last. Not thread-safe: who orders what is published has the lock.

    rates: (action_dim,) the columns that command a velocity.
    """

    def __init__(
        self, bounds: Bounds, where: Callable[[int], Floats | Doubles | None], fade_s: Callable[[], float],
        measured: Callable[[int], Floats | Doubles | None] = lambda _: None, tool: ToolMotion | None = None,
    ) -> None:  # fmt: skip
        """Start without a motion.

        Args:
            bounds: What motions stay in.
            where: Returns (action_dim,) the robot's position at a time, commanded or else measured; None where unknown.
            fade_s: The setting.
            measured: Returns (action_dim,) where the joints are measured at a time; None where that is not known.
            tool: Whose limits the motions keep; None: it has none.
        """
        self._bounds, self._where, self._fade_s = bounds, where, fade_s
        self._measured, self._tool = measured, tool
        self.rates = np.zeros(len(bounds.low), np.bool_) if bounds.rates is None else bounds.rates
        self._running: Spline | None = None
        self._braking: Spline | None = None
        self._known_ns = 0  # from then on the controller does what `_running` says, wherever it began
        self._left: Doubles | None = None  # (action_dim,) where the newest motion ends
        self._held_at: Floats | Doubles | None = None  # where the joints were as it began, if that was a hold
        # what a controller does until then that was not where the joints are
        self._otherwise: Spline | None = None

    def forget(self) -> None:
        """Forget the running motion: what the controller commands from now on is not known for sure."""
        self._running = self._braking = self._otherwise = None

    def led(self, chunk: ActionChunk, stamp_ns: int, start: int, now_ns: int) -> ActionChunk:
        """Return the chunk as the robot can take it over at `now_ns`; itself where nothing has to change.

        From row `start` on it is faded into the running motion. Where that is not known, the rows until it is lie on the way to
        the first one after them. No joint has to be faster than its limit, from where it is commanded to be at this moment.
        """
        due_ns, rows = _due_ns(chunk, stamp_ns)[start:], chunk.actions[start:]
        if not chunk.dt_s > 0.0 or not np.isfinite(rows).all():
            return chunk
        place, velocity = self.at(now_ns)
        led = rows
        if self._running is not None:
            led = fade(rows, due_ns, self._running, now_ns, self._fades_s())
        if place is not None:
            first = self._first_given(led, due_ns, now_ns, place)
            led = self._slow_enough(led, due_ns, now_ns, place, len(led) if self._unknown(now_ns) else 0)
            led = self._slow_tool(led, due_ns, chunk.dt_s, now_ns)
            if first > 0 and self._unknown(now_ns):
                led = self._on_the_way(led, due_ns, now_ns, place, velocity, first)
        if led is rows:
            return chunk
        return replace(chunk, actions=np.concatenate([chunk.actions[:start], led]))

    def take_over(
        self, chunk: ActionChunk, stamp_ns: int, start: int, now_ns: int, following: int = 0
    ) -> Spline:
        """Return the motion through rows `start` on that begins at `now_ns`; it is the running one from then on.

        following: so many rows are those of the running motion, which goes on until the last of them is due: a controller that
        gets the new motion before that is led without a step.
        """
        anchored, closest_ns = not self._unknown(now_ns), _closest_ns(chunk.dt_s)
        if following and anchored and self._running is not None and start + following < len(chunk.actions):
            return self._branch(self._running, chunk, stamp_ns, start + following, now_ns)
        times_ns, knots, velocity, _ = self._knots(
            chunk.actions[start:], _due_ns(chunk, stamp_ns)[start:], chunk.dt_s, now_ns
        )
        motion = through(times_ns, knots, velocity, self._bounds, anchored=anchored)
        if not anchored and self._running is not None:
            # were the controller given rows alone, each chunk would put off the moment from which on its command is known
            motion = motion.with_knot(max(self._known_ns, now_ns + closest_ns))
        if self._running is None and self._otherwise is None and self._left is not None:
            self._otherwise = _at_rest(self._still_commanded(self._left, knots[0]), now_ns)
        self._otherwise = None if anchored else _joining(self._otherwise, motion, now_ns)
        self._known_ns, self._braking = now_ns if anchored else int(motion.times_ns[1]), None
        self._running, self._left, self._held_at = motion, motion.positions[-1], None
        return motion

    def _branch(self, running: Spline, chunk: ActionChunk, stamp_ns: int, first: int, now_ns: int) -> Spline:
        """Return the running motion until row `first` - 1 is due, and from there on the one through the rows after it."""
        due_ns = _due_ns(chunk, stamp_ns)[first - 1 :]
        place, velocity = self._inside(running, int(due_ns[0]))
        rows = chunk.actions[first:].astype(np.float64)
        tail = through(due_ns, np.concatenate([place[None], rows]), velocity, self._bounds, anchored=True)
        motion = self._led_into(running, tail, now_ns)
        self._known_ns, self._braking, self._otherwise = now_ns, None, None
        self._running, self._left, self._held_at = motion, motion.positions[-1], None
        return motion

    def _led_into(self, running: Spline, tail: Spline, now_ns: int) -> Spline:
        """Return the running motion from now until `tail` begins, and that."""
        between = (running.times_ns > now_ns) & (running.times_ns < tail.times_ns[0])
        here, speed = self._inside(running, now_ns)
        return Spline(
            np.concatenate([[now_ns], running.times_ns[between], tail.times_ns]),
            np.concatenate([here[None], running.positions[between], tail.positions]),
            np.concatenate([speed[None], running.velocities[between], tail.velocities]),
            anchored=True,
        )

    @property
    def executing(self) -> bool:
        """Whether a chunk's motion is executed, into which the next chunk is faded."""
        return self._running is not None

    def setting_out(self, now_ns: int) -> bool:
        """Return whether a controller is still on its own way to the motion that is executed: another message would stop it there."""
        return self._running is not None and self._unknown(now_ns)

    def braking(self, now_ns: int) -> bool:
        """Return whether a hold is still on its way to rest."""
        return (
            self._running is None and self._braking is not None and now_ns < int(self._braking.times_ns[-1])
        )

    def keeps_tool(self, chunk: ActionChunk, stamp_ns: int, start: int, now_ns: int) -> bool:
        """Return whether the motion of `take_over` keeps the limits of the tool, as far as they are known."""
        if self._tool is None or not chunk.dt_s > 0.0:
            return True
        rows, due_ns = chunk.actions[start:], _due_ns(chunk, stamp_ns)[start:]
        times_ns, knots, velocity, _ = self._knots(rows, due_ns, chunk.dt_s, now_ns)
        return self._tool.verdict(knots, np.diff(times_ns) * 1e-9, velocity).clean

    def _slow_tool(self, rows: Floats, due_ns: Times, dt_s: float, now_ns: int) -> Floats:
        """Return the rows, as far along their path as the tool's limits allow; as they are where no such rows are found."""
        if self._tool is None:
            return rows
        times_ns, knots, velocity, first = self._knots(rows, due_ns, dt_s, now_ns)
        seconds = np.diff(times_ns) * 1e-9
        verdict = self._tool.verdict(knots, seconds, velocity)
        if verdict.clean:
            return rows

        def executed(slower: Doubles) -> Floats:
            whole = rows.copy()
            whole[first:] = np.where(self.rates, rows[first:], slower)
            return whole

        found = self._tool.slowed(knots, seconds, velocity, verdict, executed)
        return rows if found is None else found

    def _knots(
        self, rows: Floats, due_ns: Times, dt_s: float, now_ns: int
    ) -> tuple[Times, Doubles, Doubles, int]:  # fmt: skip
        """Return times and knots of the motion through the rows that begins now, its first velocity, and its first row."""
        closest_ns = _closest_ns(dt_s)
        place, velocity = self.at(now_ns)
        place = rows[0].astype(np.float64) if place is None else place
        unknown = self._unknown(now_ns)
        first = (
            self._first_given(rows, due_ns, now_ns, place)
            if unknown
            else _first_after(due_ns, now_ns + closest_ns)
        )
        # a chunk whose last row is due at once is still to be reached
        due_ns = np.maximum(due_ns[first:], now_ns + closest_ns + np.arange(len(due_ns) - first))
        knots = np.concatenate([place[None], rows[first:].astype(np.float64)])
        return np.concatenate([[now_ns], due_ns]), knots, velocity, first

    def hold(
        self, held: Hold, now_ns: int, added: tuple[Doubles, Doubles] | None = None, late_ns: int = 0
    ) -> Spline:
        """Return the motion by which a robot that is held now comes to rest; only another hold begins with it.

        added: (action_dim,) what is added to the running motion on its way to the robot, and how fast that changes. late_ns: so long
        the running motion goes on before, as a hold that is sent with its time may be late: a controller makes no step then.
        """
        rows = held.rows[held.start :].astype(np.float64)
        dt_s = held.dt_s if held.dt_s > 0.0 else UNKNOWN_DT_S
        due_ns = now_ns + np.arange(held.start + 1, len(held.rows) + 1) * round(dt_s * 1e9)
        running, known = (
            self._running or self._braking,
            not self._unknown(now_ns) or self._braking is not None,
        )
        place, velocity, most = held.origin, np.zeros(rows.shape[1]), self._bounds.velocity_max
        otherwise = self._otherwise
        self.forget()
        anchored = False
        if running is not None and known:
            there, speed = self._inside(running, now_ns)
            if added is not None:
                there, speed = there + added[0], speed + added[1]
            # the guard counts in straight lines, and begins where a joint is that does not follow
            if ((np.abs(there - place) <= most * dt_s) | self.rates).all():
                anchored, place, velocity = True, there, speed
        ways = np.where(self.rates, 0.0, np.abs(rows[0] - place))
        due_s = (due_ns[0] - now_ns) * 1e-9
        longer_s = float((ways / most).max()) - due_s
        if not known and (running is not None or (otherwise is not None and now_ns < otherwise.end_ns)):
            # the controller is still on its own way to the first row
            longer_s = max(longer_s, 0.0) + 2.0 * dt_s
        if otherwise is not None and not known:  # but the joints that do follow must not wait for long
            ways = np.where(self._bounds.smooth, np.abs(rows[0] - otherwise.at(now_ns)[0]), 0.0)
            longer_s = max(longer_s, min(float((ways / most).max()), LEAD_S) - due_s)
        due_ns = due_ns + max(int(np.ceil(longer_s * 1e9)), 0)
        motion = through(
            np.concatenate([[now_ns], due_ns]), np.concatenate([place[None], rows]), velocity, self._bounds,
            anchored=anchored,
        )  # fmt: skip
        if late_ns and anchored and running is not None:
            motion = self._after(running, motion, now_ns, late_ns)
        self._braking, self._left = motion if anchored else None, motion.positions[-1]
        self._held_at = self._measured(now_ns)
        self._otherwise = None if anchored else _joining(otherwise, motion, now_ns)
        return motion

    def _after(self, running: Spline, brake: Spline, now_ns: int, late_ns: int) -> Spline:
        """Return the running motion for `late_ns`, and then what `brake` does, from where the robot is by then."""
        begin_ns = now_ns + late_ns
        there, velocity = self._inside(running, begin_ns)
        rows = np.clip(brake.positions[1:] + there - brake.positions[0], self._bounds.low, self._bounds.high)
        tail = through(
            brake.times_ns + late_ns, np.concatenate([there[None], rows]), velocity, self._bounds, anchored=True
        )  # fmt: skip
        return self._led_into(running, tail, now_ns)

    def _fades_s(self) -> Doubles:
        """Return (action_dim,) how long each column is faded: as its group says, else as the setting does."""
        own_s = self._bounds.fade_s
        return np.where(self._bounds.smooth, np.where(np.isnan(own_s), self._fade_s(), own_s), 0.0)

    def at(self, now_ns: int) -> tuple[Doubles | None, Doubles]:
        """Return (action_dim,) where the robot is commanded to be, None where that is unknown, and how fast it moves."""
        if self._running is not None:
            return self._inside(self._running, now_ns)
        place = self._where(now_ns)
        if place is None:
            return None, np.zeros(len(self._bounds.low))
        return place.astype(np.float64), np.zeros(len(place))

    def _inside(self, motion: Spline, now_ns: int) -> tuple[Doubles, Doubles]:
        """Return where the motion is and how fast, without what rounding leaves outside the range."""
        place, velocity = motion.at(now_ns)
        inside = np.minimum(np.maximum(place, self._bounds.low), self._bounds.high)
        return np.where(np.abs(place - inside) <= OUTSIDE, inside, place), velocity

    def _unknown(self, now_ns: int) -> bool:
        """Return True while a controller may be elsewhere than the running motion: it began from an unknown command."""
        return self._running is None or now_ns < self._known_ns

    def _still_commanded(self, left: Doubles, place: Doubles) -> Doubles:
        """Return where a controller may still be: at `left`, but for joints that were moved since the hold."""
        if self._held_at is None:
            return left
        return np.where(np.abs(place - self._held_at) <= MOVED, left, place)

    def _first_given(self, rows: Floats | Doubles, due_ns: Times, now_ns: int, place: Doubles) -> int:
        """Return the first row that is given to a controller whose command is not known.

        It is reached within the limit of speed also from where the newest motion ended, unless that takes MOST_LEAD_S or longer than
        the chunk.
        """
        if self._running is not None:
            return _first_after(due_ns, self._known_ns)
        first = _first_after(due_ns, now_ns + int(LEAD_S * 1e9))
        if self._left is None:
            return first
        last = max(first, _first_after(due_ns, now_ns + int(MOST_LEAD_S * 1e9)))
        most = np.where(self._bounds.smooth, self._bounds.velocity_max, np.inf)
        ways = np.abs(rows[first:last] - self._still_commanded(self._left, place))
        way_s = FROM_REST * (ways / most).max(axis=1)
        near = np.flatnonzero(way_s <= (due_ns[first:last] - now_ns) * 1e-9)
        return first + int(near[0]) if len(near) else last

    def _on_the_way(
        self, rows: Floats, due_ns: Times, now_ns: int, place: Doubles, velocity: Doubles, first: int
    ) -> Floats:
        """Return the rows, those before `first` on the way there from `place`."""
        way = through(
            np.concatenate([[now_ns], due_ns[first:]]), np.concatenate([place[None], rows[first:]]), velocity, self._bounds
        )  # fmt: skip
        led = rows.copy()
        led[:first] = np.where(self._bounds.smooth, way.sampled(due_ns[:first]), rows[:first])
        return led

    def _slow_enough(
        self, rows: Floats, due_ns: Times, now_ns: int, place: Doubles, setting_out: int = 0
    ) -> Floats:
        """Return the rows, each as near to the given one as every joint gets within its limit of speed.

        setting_out: so many rows are reached from rest, for which a cubic is FROM_REST times as fast as a straight line.
        """
        most = np.where(self._bounds.smooth, self._bounds.velocity_max, np.inf)
        seconds = np.diff(due_ns, prepend=now_ns) * 1e-9
        seconds = np.maximum(seconds, 1e-9)  # a row that was due already is no way back
        seconds[:setting_out] /= FROM_REST
        steps = np.diff(rows.astype(np.float64), axis=0, prepend=place[None])
        reach = most * seconds[:, None]
        if not (np.abs(steps) > reach + np.spacing(np.abs(rows))).any():
            return rows
        slow, at = rows.copy(), place
        for row, within in enumerate(reach):
            at = np.minimum(np.maximum(rows[row], at - within), at + within)
            slow[row] = at
        return slow


def _due_ns(chunk: ActionChunk, stamp_ns: int) -> Times:
    """Return (horizon,) when each row is due."""
    return stamp_ns + np.arange(1, len(chunk.actions) + 1) * round(chunk.dt_s * 1e9)


def _at_rest(place: Doubles, now_ns: int) -> Spline:
    return Spline(np.array([now_ns]), place[None], np.zeros((1, len(place))))


def _joining(otherwise: Spline | None, motion: Spline, now_ns: int) -> Spline | None:
    """Return how a controller gets to the first row of `motion` that does something else until now; None where that is not known."""
    if otherwise is None:
        return None
    place, velocity = otherwise.at(now_ns)
    return Spline(
        motion.times_ns[:2], np.stack([place, motion.positions[1]]), np.stack([velocity, motion.velocities[1]])
    )  # fmt: skip


def _closest_ns(dt_s: float) -> int:
    return int(min(CLOSEST_S, LARGEST_SHARE * dt_s) * 1e9)


def _first_after(due_ns: Times, moment_ns: int) -> int:
    """Return the first row that is due at that moment or later; the last one where none is."""
    return min(int(np.searchsorted(due_ns, moment_ns)), len(due_ns) - 1)
