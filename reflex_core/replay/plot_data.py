# SPDX-License-Identifier: Apache-2.0
"""What a replay keeps to be drawn: the first record, the worst ones, a line per episode. Bounded, however long the trace."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reflex_core.records.trace.parse import Recorded
from reflex_core.records.trace.verdicts import verdict_of
from reflex_core.replay.comparison import Replayed, Target, Tolerances
from reflex_core.replay.diffs import actions_diff, latency_diff
from reflex_core.replay.summary import Sample
from reflex_core.values import Floats

WORST_KEPT = 20
EPISODES_KEPT = 12
POINTS_KEPT = 512


@dataclass(frozen=True, slots=True)
class Drawn:
    """One replayed record.

    recorded, replayed: (horizon, action_dim) float32 raw actions in the recorded columns, NaN where the replay has none.
    allowed: (action_dim,) what each joint may differ. badness: the largest difference as a share of what is allowed.
    reason: what became of the recorded answer.
    """

    seq: int
    slot: str
    episode_id: str
    dt_s: float | None
    names: tuple[str, ...]
    recorded: Floats
    replayed: Floats
    allowed: Floats
    badness: float
    passed: bool
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """One record on the line of an episode: (action_dim,) first actions, largest differences, and those allowed."""

    seq: int
    recorded: Floats
    replayed: Floats
    apart: Floats
    allowed: Floats
    badness: float


class Track:
    """The records of one episode in their order; of neighbours that no longer fit, the one that differs more stays."""

    def __init__(self, episode_id: str, names: tuple[str, ...]) -> None:
        self.episode_id, self.names = episode_id, names
        self.points: list[Point] = []
        self.records = 0
        self.badness = 0.0
        self.fails = 0
        self._stride = 1
        self._in_last = 0

    @property
    def stride(self) -> int:
        """How many records one point stands for."""
        return self._stride

    def add(self, drawn: Drawn) -> None:
        """Take one record, unless its columns are not those of the episode."""
        if drawn.names != self.names or not len(drawn.recorded):
            return
        self.records += 1
        self.fails += not drawn.passed
        self.badness = max(self.badness, drawn.badness)
        self._place(_point(drawn))
        if len(self.points) > POINTS_KEPT:
            # POINTS_KEPT is even, so the newest point stays alone
            self.points = [_worse(self.points[at : at + 2]) for at in range(0, len(self.points), 2)]
            self._stride *= 2

    def _place(self, point: Point) -> None:
        if self.points and self._in_last < self._stride:
            self.points[-1] = _worse([self.points[-1], point])
            self._in_last += 1
            return
        self.points.append(point)
        self._in_last = 1


class Kept:
    """Everything that will be drawn. Memory: WORST_KEPT chunks, EPISODES_KEPT lines, a sample of the latencies."""

    def __init__(self, tolerances: Tolerances) -> None:
        self._tolerances = tolerances
        self._first: Drawn | None = None
        self._worst: list[tuple[float, int, Drawn]] = []
        self._tracks: dict[tuple[str, str], Track] = {}
        self._episodes_dropped = 0
        self.latencies = Sample()
        self.records = 0

    def add(self, record: Recorded, replayed: Replayed) -> None:
        """Take one replayed record."""
        drawn = drawn_of(record, replayed, self._tolerances)
        self.records += 1
        if self._first is None:
            self._first = drawn
        if drawn.badness > 0:
            heapq.heappush(self._worst, (drawn.badness, -self.records, drawn))
            if len(self._worst) > WORST_KEPT:
                heapq.heappop(self._worst)
        self._track(drawn).add(drawn)
        latency = latency_diff(record, replayed, self._tolerances)
        if latency.pct is not None:
            self.latencies.add(latency.recorded_ms, latency.replayed_ms, latency.pct)

    def chosen(self) -> list[Drawn]:
        """Return the first record and those that differ most, in the order of the trace."""
        found = {} if self._first is None else {self._first.seq: self._first}
        return [drawn for _, drawn in sorted((found | {d.seq: d for _, _, d in self._worst}).items())]

    def tracks(self) -> list[Track]:
        """Return the lines of the episodes that were kept, in the order in which they began."""
        return [track for track in self._tracks.values() if track.points]

    @property
    def episodes(self) -> int:
        """How many episodes were seen; one that was dropped and went on counts again."""
        return len(self._tracks) + self._episodes_dropped

    def _track(self, drawn: Drawn) -> Track:
        key = (drawn.episode_id, drawn.slot)
        if key not in self._tracks:
            if len(self._tracks) >= EPISODES_KEPT:
                # the first stays to be compared with; the newest may still be going on
                old = list(self._tracks)[1:-1]
                del self._tracks[min(old, key=lambda each: self._tracks[each].badness)]
                self._episodes_dropped += 1
            self._tracks[key] = Track(drawn.episode_id, drawn.names)
        return self._tracks[key]


@dataclass(frozen=True, slots=True)
class Watched:
    """A target whose answers are kept to be drawn."""

    target: Target
    kept: Kept

    def replay(self, record: Recorded) -> Replayed:
        """Run the record on the target, and store its answer for the plots."""
        replayed = self.target.replay(record)
        self.kept.add(record, replayed)
        return replayed


def watched(targets: Mapping[str, Target], kept: Kept | None) -> Mapping[str, Target]:
    """Return the targets, each watched where something is to be kept."""
    return targets if kept is None else {slot: Watched(target, kept) for slot, target in targets.items()}


def drawn_of(record: Recorded, replayed: Replayed, tolerances: Tolerances) -> Drawn:
    """Return a record and its replay laid side by side, whatever their shapes."""
    recorded = record.raw_actions
    count = recorded.shape[1]
    names = _labels(record.names or replayed.names, count)
    made = actions_diff(recorded, replayed.actions, names, tolerances)
    allowed = [joint.allowed for joint in made.joints] or [math.nan] * count
    badness = max((_share(joint.max_abs, joint.allowed) for joint in made.joints), default=math.inf)
    return Drawn(
        record.seq, record.slot, record.episode_id or "", record.dt_s, names, recorded,
        _in_columns(replayed.actions, _labels(replayed.names, replayed.actions.shape[1]), names),
        np.array(allowed, np.float32), badness, made.passed, (recorded.shape, replayed.actions.shape),
        verdict_of(record.document).sentence,
    )  # fmt: skip


def apart(drawn: Drawn) -> Floats:
    """Return (horizon, action_dim) absolute differences; NaN where there is nothing to compare, 0 for the same NaN twice."""
    rows = min(len(drawn.recorded), len(drawn.replayed))
    before, after = drawn.recorded[:rows], drawn.replayed[:rows]
    with np.errstate(invalid="ignore"):
        made: Floats = np.abs(before - after)
    made[(before == after) | (np.isnan(before) & np.isnan(after) & (drawn.shapes[0] == drawn.shapes[1]))] = 0
    return made


def _point(drawn: Drawn) -> Point:
    differences = apart(drawn)
    furthest = np.where(np.isnan(differences), -np.inf, differences).max(axis=0, initial=-np.inf)
    furthest[np.isneginf(furthest)] = np.nan
    replayed = drawn.replayed[0] if len(drawn.replayed) else np.full_like(drawn.recorded[0], np.nan)
    return Point(drawn.seq, drawn.recorded[0], replayed, furthest, drawn.allowed, drawn.badness)


def _worse(points: Sequence[Point]) -> Point:
    return max(points, key=lambda point: point.badness)


def _share(difference: float, allowed: float) -> float:
    """Return the difference as a share of the allowed one; infinite where none is allowed, or where it is no number."""
    if difference == 0:
        return 0.0
    return difference / allowed if allowed > 0 and math.isfinite(difference) else math.inf


def _labels(names: Sequence[str], count: int) -> tuple[str, ...]:
    unique = len(names) == count and len(set(names)) == count
    return tuple(names) if unique else tuple(f"action {number}" for number in range(count))


def _in_columns(actions: Floats, names: Sequence[str], wanted: Sequence[str]) -> Floats:
    """Return (rows, len(wanted)): the columns by name, by place where no name is shared."""
    made: Floats = np.full((len(actions), len(wanted)), np.nan, np.float32)
    shared = set(names) & set(wanted)
    for place, name in enumerate(wanted):
        source = names.index(name) if name in shared else place
        if name in shared or (not shared and place < len(names)):
            made[:, place] = actions[:, source]
    return made
