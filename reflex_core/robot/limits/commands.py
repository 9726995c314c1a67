# SPDX-License-Identifier: Apache-2.0
"""Commands of the one robot that this process moves, and the hold that follows from them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.limits.history import Commanded, Moment
from reflex_core.robot.limits.hold import Hold, Mask, Stream, hold
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.reachable import TRACKING_S, following
from reflex_core.values import Floats


class RobotCommands:
    """The commands of the robot whose observations are stamped. Thread-safe.

    A chunk that was judged is the newest; it becomes what the robot executes when it is published, and is dropped when
    it is not. Where the caller reports neither (a program that uses the guard alone), the newest counts.
    partial: only a part of the policy's motion is let through just now, so that the robot is not where the policy leads it.
    tracking: (action_dim,) how far from its command a joint may be measured and still follow it; None without limits.
    """

    def __init__(self, limits: Limits | None, tracking_rad: float | NDArray[np.float64]) -> None:
        """Start without a command. tracking_rad: of every joint, or (action_dim,); rad or m."""
        self.tracking: NDArray[np.float64] | None = None
        self._limits = limits
        if limits is not None:
            self.tracking = np.full(limits.dim, tracking_rad)
        self._lock = threading.Lock()
        self._newest: Commanded | None = None
        self._executed: Commanded | None = None
        self.joined, self._of_person, self.partial = 0, False, False

    @property
    def of_person(self) -> bool:
        """True while a person commands the robot: what the policy answers meanwhile is no command."""
        return self._of_person

    def take_for_person(self, *, taken: bool) -> None:
        """Let a person command from now on, or the policy again. What was judged and not published is dropped."""
        with self._lock:
            self._of_person, self._newest = taken, self._executed

    def remember(self, issued: Commanded, joined: int, *, of_person: bool = False) -> None:
        """Store a judged chunk; nothing where it is the other's than who commands.

        joined: its first row still to come then; those before tell where the robot is led meanwhile.
        """
        with self._lock:
            if of_person == self._of_person:
                self._newest, self.joined = issued, joined

    def executed(self) -> None:
        """Note that the newest chunk was published."""
        with self._lock:
            self._executed = self._newest

    def forget(self) -> None:
        """Drop the newest chunk, which was not published: the one before it goes on."""
        with self._lock:
            self._newest = self._executed

    def end(self) -> None:
        """Drop everything that was commanded: after a stop, a takeover, a deactivation, another clock."""
        with self._lock:
            self._newest = self._executed = None

    def count_on_monotonic_clock(self) -> None:
        """Ignore the stamps of past commands, as the robot's clock was set; the commands themselves go on."""
        with self._lock:
            self._newest, self._executed = _without_stamp(self._newest), _without_stamp(self._executed)

    def place(self, now: Moment) -> NDArray[np.float64] | None:
        """Return (action_dim,) what the published chunk or hold commands now; None where nothing is commanded."""
        with self._lock:
            issued = self._executed
        return None if issued is None else issued.at(np.array([now.seconds_since(issued.moment)]))[0]

    def recall(self) -> Commanded | None:
        """Return the newest chunk; None before there was one, and after `end`."""
        with self._lock:
            return self._newest

    def hold(
        self, measured: Floats | None, believed: tuple[Sequence[float], int] | None, now: Moment, dt_s: float
    ) -> Hold | None:
        """Return the hold that begins now and counts as published; None where the robot cannot be held.

        measured: (action_dim,) rad or m, fresh and plausible, else None. believed: the last position that was plausible, and
        when (monotonic ns); it says whether the commands were followed. Both hold any number for what is unmeasured.
        Where only velocities are held, what the joints were commanded goes on. Source: the rules of `hold`.
        """
        issued, stream, since_s = self.recall(), None, 0.0
        if issued is not None:
            since_s = now.seconds_since(issued.moment)
            follows = self._follows(issued, since_s, measured, believed, now)
            stream = replace(stream_of(issued, since_s, follows), continuous=True)
        age_s = 0.0 if believed is None else (now.zero_ns - believed[1]) * 1e-9
        held = hold(self._limits, dt_s, stream, measured, age_s)
        if held is None or (held.held is not None and issued is None):
            return held
        with self._lock:
            if held.held is None:
                self._newest, self.joined = _issued(held, now, self._limits), held.start
            elif issued is not None:
                self._newest, self.joined = _stopped(issued, since_s, held, now), 0
            self._executed = self._newest
        return held

    def _follows(
        self,
        issued: Commanded,
        since_s: float,
        measured: Floats | None,
        believed: tuple[Sequence[float], int] | None,
        now: Moment,
    ) -> Mask:
        """Return (action_dim,) the joints that follow their commands, as far as was measured."""
        where, at_s, doubt_s = measured, since_s, 0.0
        if believed is not None:
            at_s = since_s - (now.zero_ns - believed[1]) * 1e-9
        if where is None and believed is not None:
            doubt_s = TRACKING_S  # a ramp takes the estimate along until it is seen through
            where = np.array(believed[0], np.float32)
        if where is None or self._limits is None or self.tracking is None:
            return np.ones(issued.rows.shape[1], np.bool_)
        recent = issued.at(at_s - np.array([0.0, TRACKING_S / 2, TRACKING_S]))
        step = self._limits.velocity_max * issued.dt_s
        margin = np.fmax(np.where(np.isfinite(step), step, 0.0), self.tracking)
        margin = margin + np.where(np.isfinite(step), self._limits.velocity_max, 0.0) * doubt_s
        return following(recent, where.astype(np.float64), margin, self._limits)


def stream_of(issued: Commanded, seconds: float, follows: Mask) -> Stream:
    """Return the issued command at `seconds` after its time zero. follows: the joints that follow it."""
    at = issued.at(np.array([seconds]))[0]
    return Stream(at, issued.target(seconds).astype(np.float64), issued.step(seconds), follows)


def _without_stamp(issued: Commanded | None) -> Commanded | None:
    return None if issued is None else replace(issued, moment=replace(issued.moment, stamp_ns=0))


def _issued(held: Hold, now: Moment, limits: Limits | None) -> Commanded:
    """Return a hold as commands: until its first row in a straight line from where it begins, but for velocities."""
    rows = np.concatenate([held.origin[None].astype(np.float32), held.rows])
    first, unmeasured = held.start + 1, None if limits is None else limits.unmeasured
    joints = slice(None) if unmeasured is None else ~unmeasured
    for before in range(1, first):
        rows[before, joints] = (rows[0] + (rows[first] - rows[0]) * np.float32(before / first))[joints]
    return Commanded(rows, held.dt_s, now, rates=None if limits is None else limits.rates)


def _stopped(issued: Commanded, since_s: float, held: Hold, now: Moment) -> Commanded:
    """Return what is commanded where only velocities are held: those of the hold, and for the joints what was issued."""
    dt_s = held.dt_s
    assert held.held is not None
    left = 0 if not dt_s > 0.0 else int(np.ceil((len(issued.rows) - 1) * issued.dt_s / dt_s - since_s / dt_s))
    count = max(left, len(held.rows), 1)
    rows = issued.at(since_s + np.arange(count + 1.0) * dt_s).astype(np.float32)
    stopping = np.concatenate([held.origin[None].astype(np.float32), held.rows])
    lasting = np.concatenate([stopping, np.tile(stopping[-1], (count + 1 - len(stopping), 1))])
    return replace(issued, rows=np.where(held.held, lasting, rows), dt_s=dt_s, moment=now)
