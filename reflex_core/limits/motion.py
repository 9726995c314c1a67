# SPDX-License-Identifier: Apache-2.0
"""Where the robot comes from: what a chunk's first rows are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.limits.history import Moment, Told
from reflex_core.limits.values import Limits
from reflex_core.values import Floats

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

# How far behind its command an arm may trail: position controllers lag by tens of milliseconds. A robot that is
# nowhere its command has been for this long was stopped, moved by hand, or follows somebody else.
TRACKING_S = 0.2
_RECENTLY: Doubles = np.array([-TRACKING_S, -TRACKING_S / 2], np.float64)


@dataclass(frozen=True, slots=True)
class Start:
    """One period before row 0 the robot is between `low` and `high`, and was told to move by `step` per period.

    All (action_dim,), rad or m; `step` None: nobody knows.
    """

    low: Doubles
    high: Doubles
    step: Doubles | None = None


@dataclass(frozen=True, slots=True)
class Splice:
    """Rows before `row` have elapsed: the robot spends them at `path` (row, action_dim), moving by `step` at its end."""

    row: int
    path: Doubles
    step: Doubles


@dataclass(frozen=True, slots=True)
class Motion:
    """What is known before a chunk is judged; None: unknown.

    trusted: (action_dim,) the joints that are where they were told to be.
    """

    start: Start | None = None
    splice: Splice | None = None
    trusted: Mask | None = None


def motion(
    told: Told | None, measured: Floats | None, moment: Moment, now_ns: int, limits: Limits, horizon: int,
    dt_s: float,
) -> Motion:  # fmt: skip
    """Put together what was commanded and what was measured at time zero of a chunk.

    told: the newest chunk of the same robot. measured: (action_dim,) at `moment`. now_ns: monotonic.
    A stamped chunk is executed against the clock, so that it is joined at the row which is due next; without a stamp
    the caller plays it from row 0.
    """
    since = moment.seconds_since(told.moment) if told is not None else 0.0
    if since < 0.0:
        told = None  # the clock jumped back, or this observation is older: that chunk says nothing about it
    where = measured.astype(np.float64) if measured is not None else None
    if told is None and where is None:
        return Motion()
    live = 0
    if moment.stamp_ns and dt_s > 0.0:
        live = min(max(int((now_ns - moment.zero_ns) * 1e-9 / dt_s), 0), horizon - 1)
    if told is None:
        assert where is not None
        return _at_rest(where, live, known=moment.stamp_ns != 0)
    # one period before time zero, time zero, and when each elapsed row was due
    path = told.at(np.arange(-1.0, live + 1.0) * dt_s + since)
    if where is None:
        return _following(path, path[1], path[1], None)
    recent = told.at(_RECENTLY + since)
    margin = limits.velocity_max * dt_s if dt_s > 0.0 else np.inf
    low, high = np.minimum(recent.min(axis=0), path[1]), np.maximum(recent.max(axis=0), path[1])
    trusted = ((where >= low - margin) & (where <= high + margin)) | limits.gripper
    if not trusted.all():
        # such a joint starts from where it is, and nobody knows that it moves
        path = np.where(trusted, path, where)
    return _following(path, np.minimum(path[1], where), np.maximum(path[1], where), trusted)


def _following(path: Doubles, low: Doubles, high: Doubles, trusted: Mask | None) -> Motion:
    start = Start(low, high, path[1] - path[0])
    if len(path) == 2:
        return Motion(start, None, trusted)
    return Motion(start, Splice(len(path) - 2, path[2:], path[-1] - path[-2]), trusted)


def _at_rest(where: Doubles, live: int, *, known: bool) -> Motion:
    """Nobody commands this robot as far as anyone knows; `known`: and this is the only one who would."""
    still = np.zeros(len(where))
    if not known:
        return Motion(Start(where, where))
    return Motion(
        Start(where, where, still), Splice(live, np.tile(where, (live, 1)), still) if live else None
    )
