# SPDX-License-Identifier: Apache-2.0
"""Motion of the robot that a request is for: its last command, its measured position, its hold."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from reflex_core.robot.callers import robot_of
from reflex_core.robot.limits.commands import RobotCommands, stream_of
from reflex_core.robot.limits.history import Commanded, CommandHistory, moment_of
from reflex_core.robot.limits.hold import Hold, hold
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.reachable import Doubles, Motion, motion
from reflex_core.robot.plausibility import StateRange
from reflex_core.values import ActionChunk, Columns, Floats, Request

UNKNOWN = Motion()
NAMED = "\0robot:"  # the histories of robots that name themselves, apart from those of episodes

log = logging.getLogger(__name__)


class CallerMotion:
    """The histories of all robots, of which one has stamped observations and executes what is published. Thread-safe.

    robot: the commands of that one. state_dim: length of a state that holds the robot's position, 0 where none does.
    """

    def __init__(
        self, limits: Limits | None, hold_columns: Columns | None, plausible: StateRange,
        tracking_rad: float | Doubles, monotonic_ns: Callable[[], int],
    ) -> None:  # fmt: skip
        """Take the arguments of the guard, whose part this is."""
        self.robot = RobotCommands(limits, tracking_rad)
        self.state_dim = 1 + int(hold_columns.max()) if hold_columns is not None else 0
        self._limits, self._columns, self._plausible = limits, hold_columns, plausible
        self._rates = None if limits is None else limits.rates
        self._unmeasured = None if limits is None else limits.unmeasured
        self._monotonic_ns = monotonic_ns
        self._history = CommandHistory()

    def motion(self, request: Request, horizon: int, dt_s: float, row: int | None = None) -> Motion:
        """Return where the robot comes from when a chunk of `horizon` rows begins. row: the first one it will execute."""
        if self._limits is None:
            return UNKNOWN
        return self._motion(request, horizon, dt_s, row, self._newest(request))

    def _motion(
        self, request: Request, horizon: int, dt_s: float, row: int | None, newest: Floats | None
    ) -> Motion:
        limits = self._limits
        if limits is None:
            return UNKNOWN
        issued, moment = self._issued(request), moment_of(request)
        same = issued is None or issued.episode_id == request.episode_id
        return motion(
            issued, self.measured(request), moment, self._monotonic_ns(), limits, horizon, dt_s, same_episode=same,
            tracking=self.robot.tracking if moment.stamp_ns else None, row=row, newest=newest,
        )  # fmt: skip

    def measured(self, request: Request) -> Floats | None:
        """Return (action_dim,) the robot's position by the request; None where it holds none, or an implausible one.

        0 for columns that need no measurement (`Limits.unmeasured`).
        """
        return self._joints(request.observation.state)

    def _newest(self, request: Request) -> Floats | None:
        """Return (action_dim,) the stamped robot's newest measured position; None where it is unknown."""
        if request.newest is None or not request.observation.stamp_ns:
            return None
        seen = request.newest()
        return self._joints(seen.state) if seen is not None else None

    def _joints(self, state: Floats | None) -> Floats | None:
        columns, unmeasured = self._columns, self._unmeasured
        if unmeasured is not None and unmeasured.all():
            return np.zeros(len(unmeasured), np.float32)
        if columns is None or state is None or len(state) < self.state_dim:
            return None
        measured: Floats = (
            state[columns] if unmeasured is None else np.where(unmeasured, np.float32(0.0), state[columns])
        )
        return None if self._plausible.problem(state) else measured  # what is not finite is a problem

    def hold(self, request: Request, dt_s: float) -> Hold | None:
        """Return the caller's hold, None where there is no position to hold at. dt_s: of its rows, 0: one row.

        Where velocities alone can be held it is a hold of those.
        """
        issued, measured, moment = self._issued(request), self.measured(request), moment_of(request)
        since_s = moment.seconds_since(issued.moment) if issued is not None else 0.0
        if issued is None or (since_s < 0.0 and measured is not None and not moment.stamp_ns):
            return hold(self._limits, dt_s, None, measured)
        follows = np.ones(issued.rows.shape[1], np.bool_)
        if measured is not None and len(measured) == len(follows):
            try:
                newest = self._newest(request)
                trusted = self._motion(request, len(issued.rows), issued.dt_s, None, newest).trusted
            except Exception:
                log.exception("measured and commanded position cannot be compared: the command is held")
                measured = None
            else:
                same = issued.episode_id == request.episode_id
                follows = trusted if trusted is not None else np.full(len(follows), same)
                measured = measured if newest is None else newest
                # a program that plays its chunk by itself may trail it as it likes: it is led on to where it was commanded
                measured = measured if not follows.all() or moment.stamp_ns else None
        now_s = since_s + (self._monotonic_ns() - moment.zero_ns) * 1e-9
        return hold(self._limits, dt_s, stream_of(issued, now_s, follows), measured)

    def braked(self, request: Request, held: ActionChunk) -> Floats:
        """Return the rows of a hold, (horizon, action_dim), whichever wedge made it, with velocities that brake to 0."""
        unmeasured = self._unmeasured
        if unmeasured is None:
            return held.actions
        stopping = self.hold(request, held.dt_s)
        rows = held.actions.copy()
        rows[:, unmeasured] = 0.0
        if stopping is not None:
            count = min(len(rows), len(stopping.rows))
            rows[:count, unmeasured] = stopping.rows[:count, unmeasured]
        return rows

    def remember(self, request: Request, chunk: ActionChunk, known: Motion) -> None:
        """Store a chunk that is about to be executed. known: what `motion` returned for it."""
        owner = None if request.observation.stamp_ns else _owner(request)
        if owner is None and not request.observation.stamp_ns:
            return  # nothing tells whose command it would be
        rows = np.empty((len(chunk.actions) + 1, chunk.actions.shape[1]), np.float32)
        rows[1:] = chunk.actions
        if known.start is None:
            rows[0] = chunk.actions[0]
        else:
            rows[0] = np.minimum(np.maximum(chunk.actions[0], known.start.low), known.start.high)
        issued = Commanded(rows, chunk.dt_s, moment_of(request), request.episode_id, self._rates)
        if not request.observation.stamp_ns:
            self._history.remember(owner, issued)
            return
        row, now = 0, rows[0].astype(np.float64)
        if known.splice is not None:
            row = known.splice.row
            rows[1 : 1 + row] = known.splice.path()  # commanded meanwhile
            now = known.splice.end if known.splice.commanded is None else known.splice.commanded
        rows[row] = self._began(now, chunk, issued, row)
        before_s = (issued.moment.zero_ns - self._monotonic_ns()) * 1e-9
        if before_s > 0.0 and row == 0 and chunk.dt_s > 0.0:
            issued = issued.led_from(now, before_s)
        self.robot.remember(issued, row, of_person=chunk.of_person)

    def _began(self, now: Doubles, chunk: ActionChunk, issued: Commanded, row: int) -> Doubles:
        """Return (action_dim,) where the line to the row that is joined began: the command is at `now`, in the midst of a period."""
        if not chunk.dt_s > 0.0:
            return now
        share = (self._monotonic_ns() - issued.moment.zero_ns) * 1e-9 / chunk.dt_s - row
        share = min(max(share, 0.0), 0.9)
        began: Doubles = (now - chunk.actions[row] * share) / (1.0 - share)
        return began

    def _issued(self, request: Request) -> Commanded | None:
        stamped = request.observation.stamp_ns
        return self.robot.recall() if stamped else self._history.recall(_owner(request))


def _owner(request: Request) -> str | None:
    """Return whose history it is: that of the robot which names itself, else the episode's."""
    robot = robot_of(request)
    return f"{NAMED}{robot}" if robot else request.episode_id
