# SPDX-License-Identifier: Apache-2.0
"""Where the robot comes from: the reference for a chunk's first rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.limits.history import Commanded, Moment
from reflex_core.robot.limits.limits import Limits
from reflex_core.values import Floats

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

# How far behind its command an arm may trail: position controllers lag by tens of milliseconds. A robot that is
# nowhere its command has been for this long was stopped, moved by hand, or follows another program.
TRACKING_S = 0.2


@dataclass(frozen=True, slots=True)
class Start:
    """One period before row 0 the robot is between `low` and `high`, and was commanded to move by `step` per period.

    All (action_dim,), rad or m; `step` None: unknown.
    """

    low: Doubles
    high: Doubles
    step: Doubles | None = None


@dataclass(frozen=True, slots=True)
class Splice:
    """Rows before `row` have elapsed: meanwhile the robot is led to `end` (action_dim,), the last time by `step`.

    path: makes (row, action_dim), where it is when each of them would have been due; needed only for a repair.
    commanded: (action_dim,) its present command, whether it follows it or not; None: nothing.
    """

    row: int
    end: Doubles
    step: Doubles
    path: Callable[[], Doubles]
    commanded: Doubles | None = None


@dataclass(frozen=True, slots=True)
class Motion:
    """What is known before a chunk is judged; None: unknown.

    trusted: (action_dim,) the joints that are where they were commanded to be.
    """

    start: Start | None = None
    splice: Splice | None = None
    trusted: Mask | None = None


def motion(
    issued: Commanded | None, measured: Floats | None, moment: Moment, now_ns: int, limits: Limits, horizon: int,
    dt_s: float, *, same_episode: bool = True, tracking: Doubles | None = None, row: int | None = None,
    newest: Floats | None = None,
) -> Motion:  # fmt: skip
    """Put together what was commanded and what was measured at time zero of a chunk.

    issued: the newest chunk of the same robot. measured: (action_dim,) at `moment`. now_ns: monotonic.
    What is unmeasured (`Limits.unmeasured`) is where it was commanded to be, 0 where nothing was. `measured` and
    `newest` hold any number for it.
    same_episode: `issued` is of it; in another one, a joint without a speed limit counts from where it is measured,
    as nothing says how far it may be from its command.
    tracking: (action_dim,) rad or m, given for the robot whose commands are known to be those published: so far from
    its command a joint may be measured and is still taken to follow it, and the chunk is joined to the command; infinite
    for one whose path tolerance is judged elsewhere, so that there is one verdict.
    row: the first row that will be executed, None where unknown. newest: (action_dim,) measured at `now_ns`, where a
    chunk is joined to the command: it has no stamp that another clock could have made.
    A stamped chunk is executed against the clock, so that it is joined at the row which is due next; without a stamp
    the caller plays it from row 0.
    """
    since = moment.seconds_since(issued.moment) if issued is not None else 0.0
    if since < 0.0 and tracking is None:
        issued = None  # the clock jumped back, or this observation is older: that chunk says nothing about it
    seen = measured if newest is None or tracking is None else newest
    where = seen.astype(np.float64) if seen is not None else None
    if issued is None and where is None and limits.unmeasured is None:
        return Motion()
    live = 0
    if row is not None:
        live = min(max(row, 0), horizon - 1)
    elif moment.stamp_ns and dt_s > 0.0:
        live = min(max(int((now_ns - moment.zero_ns) * 1e-9 / dt_s), 0), horizon - 1)
    if issued is None and limits.unmeasured is not None:
        return _stopped(where, limits.unmeasured, live, known=moment.stamp_ns != 0)
    if issued is None:
        assert where is not None
        return _at_rest(where, live, known=moment.stamp_ns != 0)
    # one period before time zero, the last two elapsed rows, time zero, and where a trailing arm may still be
    joined = present = live * dt_s
    if tracking is not None:  # its first row is no further from the command of this very moment than one step
        elapsed = (now_ns - moment.zero_ns) * 1e-9
        joined = present = min(max(elapsed, joined), joined + dt_s)
        if live == 0:  # the clock of the sensor may be ahead of the robot's
            present = min(elapsed, joined)
    seconds = [since - dt_s, since + joined - dt_s, since + joined, since]
    near = [-TRACKING_S, -TRACKING_S / 2]
    if tracking is not None:  # the sensor's clock may be behind as well
        near += [TRACKING_S / 2, TRACKING_S]
    seconds += [since + each for each in near]
    found = issued.at(
        np.array([*seconds, since + present])
    )  # all at once: each call costs a dozen of numpy's
    places, commanded_now, trusted = found[: len(seconds)], found[-1], None
    if present < joined:
        places[2] = _in_reach(places[2], commanded_now, joined - present, limits)
    if where is not None:
        margin = limits.velocity_max * dt_s if dt_s > 0.0 else np.full(limits.dim, np.inf)
        if tracking is not None:
            margin = np.fmax(np.where(np.isfinite(margin), margin, 0.0), tracking)
        elif not same_episode:
            margin = np.where(np.isfinite(margin), margin, 0.0)
        recent = places[3:]
        if seen is newest:
            recent = issued.at(since + present - TRACKING_S * np.array([0.0, 0.5, 1.0]))
        trusted = following(recent, where, margin, limits)
        # any other joint starts from where it is, and it may not move
        places = np.where(trusted, places[:4], where)
    before, previous, end, command = places[:4]
    start = Start(command, command, command - before)
    if where is not None:
        start = Start(np.minimum(command, where), np.maximum(command, where), command - before)
    if limits.unmeasured is not None:
        start = _unmeasured_known(start, command, issued, since, limits.unmeasured)
    if live == 0 and tracking is None:
        return Motion(start, None, trusted)

    def path() -> Doubles:
        commanded = issued.at(np.arange(1.0, live + 1.0) * dt_s + since)
        return commanded if trusted is None or where is None else np.where(trusted, commanded, where)

    return Motion(start, Splice(live, end, end - previous, path, commanded_now), trusted)


def following(recent: Doubles, where: Doubles, margin: Doubles, limits: Limits) -> Mask:
    """Return (action_dim,) the joints measured at `where` that are no further than `margin` from their `recent` commands (n, action_dim).

    What is unmeasured is taken to be followed.
    """
    least, most = np.minimum.reduce(recent), np.maximum.reduce(recent)
    near: Mask = (where >= least - margin) & (where <= most + margin)
    near = near | limits.gripper
    return near if limits.unmeasured is None else near | limits.unmeasured


def _in_reach(end: Doubles, at: Doubles, within_s: float, limits: Limits) -> Doubles:
    """Return (action_dim,) `end`, or how far towards it every joint gets from `at` within `within_s`.

    A chunk that was joined in the midst of a period does that step in what was left of it, which may be faster than the
    limit. A controller sets out at once for the next chunk's first row, due later, and must not keep that speed.
    """
    most = limits.velocity_max * within_s
    near: Doubles = np.minimum(np.maximum(end, at - most), at + most)
    return near


def _unmeasured_known(
    start: Start, command: Doubles, issued: Commanded, since: float, unmeasured: Mask
) -> Start:
    """Return the start with what is unmeasured as it was commanded.

    Who played rows that are over has stopped, or goes on at the last of them.
    """
    other = issued.rows[-1].astype(np.float64) if issued.over(np.array([since]))[0] else command
    low = np.where(unmeasured, np.minimum(command, other), start.low)
    high = np.where(unmeasured, np.maximum(command, other), start.high)
    return Start(low, high, start.step)


def _stopped(where: Doubles | None, unmeasured: Mask, live: int, *, known: bool) -> Motion:
    """Return the motion of a robot that has no commands as far as is known, some of whose columns are unmeasured.

    known: no other caller could command it, so that these are 0. Where nothing is known of a column its start is
    anywhere. where: (action_dim,) measured, None where it is not.
    """
    if known and where is not None:
        return _at_rest(np.where(unmeasured, 0.0, where), live, known=True)
    if known:
        return Motion(Start(np.where(unmeasured, 0.0, -np.inf), np.where(unmeasured, 0.0, np.inf)))
    if where is None:
        return Motion()
    return Motion(Start(np.where(unmeasured, -np.inf, where), np.where(unmeasured, np.inf, where)))


def _at_rest(where: Doubles, live: int, *, known: bool) -> Motion:
    """Return the motion of a robot that has no commands as far as is known; `known`: no other caller could command it."""
    if not known:
        return Motion(Start(where, where))
    still = np.zeros(len(where))
    splice = Splice(live, where, still, lambda: np.tile(where, (live, 1))) if live else None
    return Motion(Start(where, where, still), splice)
