# SPDX-License-Identifier: Apache-2.0
"""Commands of each episode's robot and their times, so that the next chunk can be checked against them."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reflex_core.concurrency.lru import Lru
from reflex_core.values import Floats, Request

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

EPISODES_KEPT = 256


@dataclass(frozen=True, slots=True)
class Moment:
    """Time zero of a chunk: `zero_ns` on the monotonic clock, `stamp_ns` on the robot's (0: unknown)."""

    zero_ns: int
    stamp_ns: int

    def seconds_since(self, earlier: Moment) -> float:
        """Return the seconds on the robot's clock where both have it: simulated time need not run as fast as ours."""
        if self.stamp_ns and earlier.stamp_ns:
            return (self.stamp_ns - earlier.stamp_ns) * 1e-9
        return (self.zero_ns - earlier.zero_ns) * 1e-9


def moment_of(request: Request) -> Moment:
    """Return time zero of the chunk that answers `request`: when its observation was stamped, not when it arrived."""
    observation = request.observation
    return Moment(request.received_ns - int(observation.age_ms * 1e6), observation.stamp_ns)


@dataclass(frozen=True, slots=True)
class Commanded:
    """One served chunk. rows: (horizon + 1, action_dim), first where it started; row i + 1 is due at (i + 1) * dt_s.

    rates: the columns that command a velocity, None where none does: a period after the last row they command 0, as the
    robot interfaces of velocities do.
    """

    rows: Floats
    dt_s: float
    moment: Moment
    episode_id: str | None = None
    rates: Mask | None = None

    def at(self, seconds: Doubles) -> Doubles:
        """Return (n, action_dim) commanded at `seconds` (n,) after time zero; linear between rows.

        Before the first and after the last row it is constant, but for a velocity, which is 0 a period after the last one.
        """
        last = len(self.rows) - 1
        place = (
            np.minimum(np.maximum(seconds / self.dt_s, 0.0), last) if self.dt_s > 0 else last + 0 * seconds
        )
        index = np.minimum(place.astype(np.intp), last - 1)
        before = self.rows.take(index, axis=0).astype(np.float64)
        between: Doubles = before + (self.rows.take(index + 1, axis=0) - before) * (place - index)[:, None]
        if self.rates is not None:
            between[self.over(seconds)[:, None] & self.rates] = 0.0
        return between

    def over(self, seconds: Doubles) -> Mask:
        """Return (n,) whether the last row has lasted its period at `seconds` (n,) after time zero."""
        over: Mask = seconds > len(self.rows) * self.dt_s
        return over

    def led_from(self, at: Doubles, before_s: float) -> Commanded:
        """Return it with the way to its first row from `at` (action_dim,), where the robot is `before_s` before time zero.

        The stamp of a sensor whose clock is ahead lies in the future, and a controller leaves for the first row at once.
        """
        count = math.ceil(before_s / self.dt_s)
        earlier_ns = int(count * self.dt_s * 1e9)
        shares = (np.arange(-count, 1) * self.dt_s + before_s) / (self.dt_s + before_s)
        way = (at + (self.rows[1] - at) * shares[:, None]).astype(np.float32)
        moment = Moment(self.moment.zero_ns - earlier_ns, self.moment.stamp_ns - earlier_ns)
        return replace(self, rows=np.concatenate([way, self.rows[1:]]), moment=moment)

    def target(self, seconds: float) -> Floats:
        """Return (action_dim,) the row that is being approached at `seconds`; the last one when all are reached."""
        index = int(seconds / self.dt_s) if self.dt_s > 0 else len(self.rows)
        row: Floats = self.rows[1 + min(max(index, 0), len(self.rows) - 2)]
        return row

    def step(self, seconds: float) -> Doubles:
        """Return (action_dim,) the move of the period under way at `seconds`; zeros before it began and once it is over."""
        index = int(seconds / self.dt_s) if self.dt_s > 0 and seconds >= 0.0 else -1
        if not 0 <= index < len(self.rows) - 1:
            return np.zeros(self.rows.shape[1])
        move: Doubles = self.rows[index + 1].astype(np.float64) - self.rows[index]
        return move


class CommandHistory:
    """The newest served chunk per episode. Bounded, thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._issued: Lru[str, Commanded] = Lru(EPISODES_KEPT, "commands")

    def remember(self, episode_id: str | None, issued: Commanded) -> None:
        """Store a chunk that is about to be executed. Requests without an episode have no history."""
        if episode_id is None:
            return
        with self._lock:
            known = self._issued.get(episode_id)
            if known is not None and known.moment.zero_ns > issued.moment.zero_ns:
                return  # the answer to an older observation came late
            self._issued.put(episode_id, issued)

    def forget(self, episode_id: str) -> None:
        """Drop the newest chunk, which the robot does not execute."""
        with self._lock:
            self._issued.pop(episode_id)

    def recall(self, episode_id: str | None) -> Commanded | None:
        """Return the newest chunk of this episode, None if there is none."""
        with self._lock:
            return self._issued.get(episode_id) if episode_id is not None else None
