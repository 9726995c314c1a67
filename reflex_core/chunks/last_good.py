# SPDX-License-Identifier: Apache-2.0
"""The last good chunk of each robot's episode, and how quick inferences were of late: what a missed deadline is judged by."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np

from reflex_core.chunks.alignment import Continued, elapsed_rows
from reflex_core.concurrency.lru import Lru
from reflex_core.metrics.latency_window import LatencyWindow
from reflex_core.robot.callers import robot_of
from reflex_core.values import CLOUD, POLICY, Request, Served

EPISODES_KEPT = 256
DURATIONS_KEPT = 8  # so many inferences in a row must have been too slow before one is not waited for
CUT_OFF = 1.25
STEPS_KEPT = 16  # numbers of denoise steps whose durations are kept apart


@dataclass(frozen=True, slots=True)
class Good:
    """An answer that may be a fallback later, and when its request was made on both clocks (stamp 0: unknown).

    continued: the newest answer for which it stood in.
    """

    served: Served
    received_ns: int
    stamp_ns: int
    instruction: str
    continued: Continued | None = None

    def elapsed_rows(self, request: Request) -> int:
        """Return how many of its rows are over when the request's own chunk begins; below 0 for a newer chunk.

        As the request states of this chunk, or of an answer that went on with it; else by both stamps, or by the times of receipt.
        """
        own = (self.served.request_id, "" if self.continued is None else self.continued.request_id)
        if request.previous_request_id and request.previous_request_id in own:
            counted = elapsed_rows(request, self.stamp_ns, self.served.chunk.dt_s, own[0], self.continued)
            if request.elapsed_rows is not None and counted is not None:
                return int(counted)
        stamp_ns = request.observation.stamp_ns
        between_ns = request.received_ns - self.received_ns
        if self.stamp_ns > 0 and stamp_ns > 0:
            # chunks count from their observation's stamp, which may run on a simulator's clock
            between_ns = stamp_ns - self.stamp_ns
        if self.served.chunk.dt_s <= 0:
            return 0  # a chunk of unknown rate is played from its first row, whenever that is
        return int(between_ns * 1e-9 / self.served.chunk.dt_s)


@dataclass(frozen=True, slots=True)
class Key:
    """Owner of a chunk: the robot's own id and episode, and whether the observation is stamped.

    A program that calls over HTTP is not the robot. anonymous: neither is known, only the address or session: the caller
    before it may be another robot, so that its chunk is the last resort.
    """

    robot: str
    episode_id: str
    stamped: bool
    anonymous: bool = False


def key_of(request: Request) -> Key | None:
    """Return the key of a caller's last good chunk; None for a request whose caller cannot be identified."""
    robot, stamped = robot_of(request), request.observation.stamp_ns > 0
    if robot or request.episode_id is not None:
        return Key(robot, request.episode_id or "", stamped)
    return Key(request.caller, "", stamped, anonymous=True) if request.caller else None


class LastGood:
    """The newest good answer of each robot's episode. Bounded, thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._good: Lru[Key, Good] = Lru(EPISODES_KEPT, "last_good")

    def remember(self, request: Request, served: Served) -> bool:
        """Store an answer that was inferred and is finite, unless a newer one is stored. True when it was stored."""
        key, chunk = key_of(request), served.chunk
        if key is None or chunk.source not in (POLICY, CLOUD):
            return False
        if served.unreached or not np.isfinite(chunk.actions).all():
            return False
        with self._lock:
            known = self._good.get(key)
            if known is not None and known.received_ns > request.received_ns:
                return False
            seen = request.observation
            self._good.put(key, Good(served, request.received_ns, seen.stamp_ns, seen.instruction))
        return True

    def find(self, request: Request) -> Good | None:
        """Return the newest good answer to the same robot, episode and instruction; None before the first."""
        key = key_of(request)
        with self._lock:
            good = None if key is None else self._good.get(key)
        return good if good is not None and good.instruction == request.observation.instruction else None

    def continues(self, good: Good, request: Request, row: int) -> None:
        """Note that an answer stood in for that to the request, from this row on."""
        key = key_of(request)
        with self._lock:
            if key is not None and self._good.get(key) is good:
                self._good.put(key, replace(good, continued=Continued(request.request_id, row)))

    def begins(self, episode_id: str, robot: str = "") -> None:
        """Drop the answers of an earlier episode of the same name; robot: whose, "" for any."""
        with self._lock:
            for key in [key for key in self._good if key.episode_id == episode_id and not key.anonymous]:
                if robot in ("", key.robot):
                    self._good.pop(key)

    def forget(self, episode_id: str) -> None:
        """Drop the answers of an episode of this process's robot, which did not execute the last one."""
        with self._lock:
            self._good.pop(Key("", episode_id, stamped=True))


class RecentDurations:
    """Duration of the newest inferences, by the number of denoise steps they were allowed. Bounded, thread-safe.

    An inference that was cut off at its deadline would have taken longer than it did, by an unknown amount.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._durations: Lru[int | None, LatencyWindow] = Lru(STEPS_KEPT)

    def add(self, max_steps: int | None, duration_s: float) -> None:
        """Keep the duration of one inference. max_steps: the steps it was allowed; None: the policy's own number."""
        with self._lock:
            durations = self._durations.get(max_steps) or LatencyWindow(DURATIONS_KEPT)
            durations.add(duration_s)
            self._durations.put(max_steps, durations)

    def add_cut_off(self, max_steps: int | None, duration_s: float) -> None:
        """Keep the duration of an inference that was cancelled at its deadline: it counts as CUT_OFF times as long.

        Without a margin the next one, which may begin a little sooner after its receipt, would look as if it had a chance.
        """
        self.add(max_steps, CUT_OFF * duration_s)

    def clear(self) -> None:
        """Drop all durations: after a failed inference the next one is not predictable."""
        with self._lock:
            self._durations.clear()

    def fastest_s(self, max_steps: int | None) -> float:
        """Return the shortest of the newest DURATIONS_KEPT durations in seconds; 0 while there are fewer."""
        with self._lock:
            durations = self._durations.get(max_steps)
            enough = durations is not None and len(durations) == DURATIONS_KEPT
            return durations.percentile(0) if durations is not None and enough else 0.0
