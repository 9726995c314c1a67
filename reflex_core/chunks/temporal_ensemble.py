# SPDX-License-Identifier: Apache-2.0
"""Temporal ensembling: each moment's action is the mean of what all chunks of the episode that cover it say.

Zhao et al., Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware, 2304.13705, section IV.A: weights
w_i = exp(-c * i), i = 0 for the oldest prediction of that moment, divided by their sum. Rows are physical here: for an affine
un-normalisation that is the same mean.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reflex_core.chunks.alignment import Continued, elapsed_rows, request_key, zero_ns
from reflex_core.chunks.guidance import shifted
from reflex_core.concurrency.lru import Lru
from reflex_core.export.binding import Binding
from reflex_core.reports import NOT_AVERAGED, EnsembleReport
from reflex_core.robot.callers import episode_key, is_episode
from reflex_core.robot.gripper import at_the_ends
from reflex_core.values import LAST_KNOWN_GOOD, POLICY, Floats, Request, Served

FLAG = "temporal ensembling"
EPISODES_KEPT = 256
PENDING_KEPT = 64  # answers that are made but not delivered yet
CHUNKS_KEPT = 512  # of a recording, of all episodes together
_LARGEST_EXPONENT = 700.0  # of what float64 holds; a share beyond it is 0

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Average:
    """rows: (n, action_dim) float32, physical units. counts: (n,) how many chunks each row is the mean of."""

    rows: Floats
    counts: NDArray[np.int64]


def averaged(rows: Floats, earlier: Average | None, elapsed: float, coefficient: float) -> Average:
    """Return the mean of a new chunk, (n, action_dim), and of the chunks before it.

    The mean goes on row by row: with W(k) the sum of the first k weights, it moves by w_k / W(k + 1) of the difference.

    Args:
        rows: The new chunk.
        earlier: The mean of those before it, None for the first.
        elapsed: How many of its rows are over; between two rows it is linear.
        coefficient: c; above 0 old predictions count more, 0 all alike.
    """
    counts = np.ones(len(rows), np.int64)
    if earlier is None:
        return Average(rows, counts)
    before = shifted(earlier.rows, elapsed)[: len(rows)]
    covered, first = len(before), int(np.floor(elapsed + 1e-6))
    known = earlier.counts[first : first + covered]
    if elapsed - first >= 1e-6:  # between two rows the later one, which fewer chunks cover
        known = earlier.counts[first + 1 : first + 1 + covered]
    share = new_share(known, coefficient)[:, None]
    mean = rows.copy()
    mean[:covered] = before + share * (rows[:covered].astype(np.float64) - before)
    counts[:covered] += known
    return Average(mean, counts)


def new_share(counts: NDArray[np.int64], coefficient: float) -> NDArray[np.float64]:
    """Return w_k / (w_0 + ... + w_k) for k = `counts` chunks before: (e^c - 1) / (e^(c (k + 1)) - 1)."""
    following = counts + 1.0
    if coefficient == 0:
        return np.asarray(1.0 / following)
    exponents = np.minimum(coefficient * following, _LARGEST_EXPONENT)
    return np.asarray(np.expm1(coefficient) / np.expm1(exponents))


def served_rows(positions: Floats, binding: Binding, state: Floats | None) -> Floats:
    """Return (horizon, action_dim) row by row, with the gripper at its ends. state: of the observation they answer."""
    return np.ascontiguousarray(at_the_ends(positions, binding.ends, state))


@dataclass(frozen=True, slots=True)
class _Kept:
    average: Average
    request_id: str
    instruction: str
    zero_ns: int
    stamp_ns: int
    continued: Continued | None = None

    def is_executed(self, request: Request) -> bool:
        own = (self.request_id,) if self.continued is None else (self.request_id, self.continued.request_id)
        return request.previous_request_id in ("", *own)


class TemporalEnsemble:
    """The running mean of every episode of one policy slot. Bounded, thread-safe.

    Order of calls per request: `combine`, then `delivered` when the answer leaves. Only what was delivered is part of a
    mean: a replay knows nothing of other chunks.
    """

    def __init__(self, coefficient: float, binding: Binding) -> None:
        self.coefficient = coefficient
        self._binding = binding
        self._lock = threading.Lock()
        self._episodes: Lru[str, _Kept] = Lru(EPISODES_KEPT, "ensemble")
        self._pending: Lru[tuple[str, str, int], _Kept] = Lru(PENDING_KEPT)
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """Chunks that went on with a mean (`averaged`), and those that began one, by reason."""
        with self._lock:
            return dict(self._counts)

    def combine(self, request: Request, positions: Floats) -> tuple[Floats, EnsembleReport]:
        """Return the chunk to serve, (horizon, action_dim), and how it was averaged.

        positions: the network's own chunk, physical units, before the gripper is moved to its ends.
        """
        if request.episode_id is None or not np.isfinite(positions).all():
            return served_rows(positions, self._binding, request.observation.state), NOT_AVERAGED
        with self._lock:
            kept = self._episodes.get(episode_key(request) or "")
            elapsed, why = self._elapsed(request, kept)
            self._counts[why or "averaged"] += 1
            earlier = None if kept is None or why else kept
        average = averaged(positions, None if earlier is None else earlier.average, elapsed, self.coefficient)
        observation = request.observation
        following = _Kept(
            average, request.request_id, observation.instruction, zero_ns(request), observation.stamp_ns
        )
        with self._lock:
            self._pending.put(request_key(request), following)
        report = EnsembleReport(
            int(average.counts[0]), earlier.request_id if earlier else "", elapsed, self.coefficient
        )
        return served_rows(average.rows, self._binding, observation.state), report

    def _elapsed(self, request: Request, kept: _Kept | None) -> tuple[float, str]:
        """Return how many rows of the mean are over, and why it does not go on; '' where it does."""
        if kept is None:
            return 0.0, "first"
        if kept.instruction != request.observation.instruction:
            return 0.0, "instruction"
        if not kept.is_executed(request):
            return 0.0, "other_chunk"  # the caller executes one that was not answered last
        elapsed = elapsed_rows(request, kept.stamp_ns, self._binding.dt_s, kept.request_id, kept.continued)
        if elapsed is None:
            return 0.0, "unknown_rows"
        stale = elapsed < 0 or not len(shifted(kept.average.rows, elapsed))
        return (0.0, "stale") if stale else (elapsed, "")

    def delivered(self, request: Request, served: Served) -> None:
        """Note that the answer leaves now. A policy's chunk goes on; after a hold or another policy's the mean begins anew."""
        if request.episode_id is None:
            return
        source, executed = served.chunk.source, served.fallback.request_id
        with self._lock:
            following = self._pending.pop(request_key(request))
            kept = self._episodes.get(episode_key(request) or "")
            if source == POLICY and following is not None and not served.hold_reason:
                # the answer to an older observation may come late
                if kept is None or kept.zero_ns <= following.zero_ns:
                    self._episodes.put(episode_key(request) or "", following)
            elif source != LAST_KNOWN_GOOD or served.hold_reason or (kept and kept.request_id != executed):
                self._episodes.pop(episode_key(request) or "")
            elif kept is not None:
                begins = len(kept.average.rows) - len(served.chunk.actions)
                continued = Continued(request.request_id, begins)
                self._episodes.put(episode_key(request) or "", replace(kept, continued=continued))

    def forget(self, episode_id: str | None, robot: str = "") -> None:
        """Drop the mean of an episode that begins anew, or whose newest chunk is not executed; robot: whose, "" for any."""
        with self._lock:
            for key in [key for key in self._episodes if is_episode(key, episode_id, robot)]:
                self._episodes.pop(key)


class RecordedEnsemble:
    """The same means again, for a replay and for a shadow: of its own chunks, joined as the recorded ones were."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._averages: Lru[Key, Average] = Lru(CHUNKS_KEPT)

    def combine(
        self, key: Key, report: EnsembleReport, positions: Floats, state: Floats | None
    ) -> tuple[Floats, bool]:
        """Return the chunk, (horizon, action_dim), and whether the one before it was found where there was one.

        key: its episode and request id. report: of the recorded answer. positions: as for TemporalEnsemble. state: of the observation.
        """
        if not report.present or not np.isfinite(positions).all():
            return served_rows(positions, self._binding, state), True
        earlier = self._averages.get((key[0], report.previous)) if report.previous else None
        average = averaged(positions, earlier, report.elapsed_rows, report.coefficient)
        self._averages.put(key, average)
        return served_rows(average.rows, self._binding, state), earlier is not None or not report.previous
