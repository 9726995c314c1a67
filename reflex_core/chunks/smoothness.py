# SPDX-License-Identifier: Apache-2.0
"""How well the chunks of an episode fit together, measured on what is served. Pure functions and one bounded listener.

Row i of a chunk is for stamp + (i + 1) * dt. `shift` is by how many rows a chunk's stamp is later than the one before it.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from reflex_core.concurrency.lru import Lru
from reflex_core.metrics.smoothness_figures import SmoothnessFigures
from reflex_core.values import ActionChunk, Floats, Request, Served

EPISODES_KEPT = 256
WINDOW = 200


def border_jump(old: Floats, new: Floats, shift: int, first: int) -> float:
    """Return the largest difference, over the joints, between both chunks' commands at the moment of the change.

    Args:
        old: (horizon, action_dim), the chunk executed until then.
        new: (horizon, action_dim).
        shift: Rows between the stamps of both.
        first: The new chunk's first row that is executed.

    Returns:
        In the unit of the action; NaN where the old chunk has ended.
    """
    row = first + shift
    if not (0 <= row < len(old) and 0 <= first < len(new)):
        return math.nan
    return float(np.abs(new[first] - old[row]).max())


def overlap_disagreement(old: Floats, new: Floats, shift: int, first: int = 0) -> float:
    """Mean absolute difference of both chunks on the moments that both have, from the new one's row `first` on.

    NaN without such a moment. It grows when a policy changes its mind, and is a cheap sign of failure.
    """
    begin = max(first, -shift, 0)
    end = min(len(new), len(old) - shift)
    if begin >= end:
        return math.nan
    return float(np.abs(new[begin:end] - old[begin + shift : end + shift]).mean())


def jerk_rms(actions: Floats, dt_s: float) -> float:
    """Return the root mean square of the third difference divided by dt^3: rad/s^3 for joints in rad.

    Over all rows and joints; NaN for fewer than 4 rows.
    """
    if len(actions) < 4 or dt_s <= 0:
        return math.nan
    jerk = np.diff(actions.astype(np.float64), n=3, axis=0) / dt_s**3
    return float(np.sqrt(np.mean(jerk**2)))


def is_late(old_horizon: int, shift: int, arrival_rows: float) -> bool:
    """Return True when the executing chunk was spent before the new one arrived, `arrival_rows` after its own stamp."""
    return shift + arrival_rows > old_horizon


@dataclass(frozen=True, slots=True)
class Border:
    """One chunk after another of the same episode. NaN where unknown.

    jump: units of the action. disagreement: the same. jerk_rms: units/s^3, of the rows of the old chunk that were
    executed, with the border they began with.
    """

    jump: float
    disagreement: float
    jerk_rms: float
    late: bool


@dataclass(frozen=True, slots=True)
class _Running:
    """The chunk that an episode's robot follows, from row `first` on. tail: the last 3 rows executed before it."""

    actions: Floats
    dt_s: float
    stamp_ns: int
    first: int
    tail: Floats


@dataclass(slots=True)
class _Noted:
    """What a border is computed from, once: most are never asked for."""

    old: _Running
    new: Floats
    shift: int
    first: int
    arrival_rows: float
    excluded: tuple[int, ...]
    computed: Border | None = None

    @property
    def late(self) -> bool:
        """Whether the old chunk was spent before the new one arrived."""
        return is_late(len(self.old.actions), self.shift, self.arrival_rows)

    def tail(self) -> Floats:
        """Return the last 3 rows that were executed before the border; a copy, so that no chunk is kept for them."""
        rows = self._of_old()
        return rows[-3:].copy() if len(rows) >= 3 else np.concatenate([self.old.tail, rows])[-3:]

    def border(self) -> Border:
        """Return the border."""
        if self.computed is None:
            old, new = self._chosen(self.old.actions), self._chosen(self.new)
            executed = self._chosen(np.concatenate([self.old.tail, self._of_old()]))
            self.computed = Border(
                jump=border_jump(old, new, self.shift, self.first),
                disagreement=overlap_disagreement(old, new, self.shift, self.first),
                jerk_rms=jerk_rms(executed, self.old.dt_s),
                late=self.late,
            )
        return self.computed

    def _of_old(self) -> Floats:
        return self.old.actions[self.old.first : max(self.first + self.shift, self.old.first)]

    def _chosen(self, rows: Floats) -> Floats:
        return np.delete(rows, self.excluded, axis=1) if self.excluded else rows


class Smoothness:
    """A listener of the engine. Bounded and thread-safe; the numbers are those of the guarded, served chunks.

    Holds and fallback chunks are executed too and count as chunks; requests without an episode are left out, as it
    is unknown which robot they move. Times are those of the observations: a simulator's clock that does not run at
    the speed of the wall clock makes the share of late chunks meaningless.
    """

    def __init__(
        self, excluded: Sequence[int] = (), on_border: Callable[[Border], None] | None = None
    ) -> None:
        """Start empty. excluded: action columns that jump by design, as grippers do. on_border: for histograms.

        A request only notes its border; it is computed for `on_border`, or when figures are asked for.
        """
        self._excluded = tuple(sorted(set(excluded)))
        self._on_border = on_border
        self._lock = threading.Lock()
        self._running: Lru[str, _Running] = Lru(EPISODES_KEPT)
        self._borders: deque[_Noted] = deque(maxlen=WINDOW)
        self._chunks = self._late = 0

    def __call__(self, request: Request, served: Served) -> None:
        """Compare the chunk with the one before it in its episode."""
        chunk, episode = served.chunk, request.episode_id
        if episode is None or len(chunk.actions) == 0 or chunk.dt_s <= 0:
            return
        arrival_rows = _arrival_rows(request, served)
        with self._lock:
            noted = self._follow(episode, request, chunk, arrival_rows)
        if noted is not None and self._on_border is not None:
            self._on_border(noted.border())

    def figures(self) -> SmoothnessFigures:
        """Return the current figures."""
        with self._lock:
            all_noted, chunks, late = list(self._borders), self._chunks, self._late
        borders = [noted.border() for noted in all_noted]
        jumps = _known([border.jump for border in borders])
        jerks = _known([border.jerk_rms for border in borders])
        return SmoothnessFigures(
            chunks=chunks,
            late_chunks=late,
            borders=len(borders),
            late_share=_mean([float(border.late) for border in borders]),
            border_jump_mean=_mean(jumps),
            border_jump_p95=float(np.percentile(jumps, 95)) if jumps else math.nan,
            overlap_disagreement_mean=_mean(_known([border.disagreement for border in borders])),
            jerk_rms=math.sqrt(_mean([jerk**2 for jerk in jerks])) if jerks else math.nan,
        )

    def _follow(
        self, episode: str, request: Request, chunk: ActionChunk, arrival_rows: float
    ) -> _Noted | None:
        """Return the border between the episode's executing chunk and this one, None for its first."""
        kept = chunk.actions
        stamp_ns = request.observation.stamp_ns or request.received_ns
        first = min(max(math.ceil(arrival_rows) - 1, chunk.start_index, 0), len(kept) - 1)
        old = self._running.get(episode)
        if old is not None and stamp_ns < old.stamp_ns:
            return None  # the answer to an older observation came late and is not followed
        self._chunks += 1
        noted, tail = None, kept[:0]
        if old is not None and old.actions.shape[1] == kept.shape[1] and old.dt_s == chunk.dt_s:
            shift = round((stamp_ns - old.stamp_ns) * 1e-9 / chunk.dt_s)
            noted = _Noted(old, kept, shift, first, arrival_rows, self._excluded)
            tail = noted.tail()
            self._borders.append(noted)
            self._late += noted.late
        self._running.put(episode, _Running(kept, chunk.dt_s, stamp_ns, first, tail))
        return noted


def _arrival_rows(request: Request, served: Served) -> float:
    """Return how many rows of the chunk are over when it is delivered."""
    observation = request.observation
    age_ms = observation.age_ms if observation.stamp_ns else 0.0
    return (age_ms + served.latency_ms) * 1e-3 / served.chunk.dt_s


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan
