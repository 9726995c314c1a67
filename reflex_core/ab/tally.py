# SPDX-License-Identifier: Apache-2.0
"""Counts the records of traces, per slot and per episode. Memory is bounded, however long the traces are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reflex_core.ab.sequential import ALPHA, Rate, SequentialTest
from reflex_core.concurrency.lru import Lru
from reflex_core.records.trace.notes import OUTCOME, SHADOW
from reflex_core.slots.routing import SLOTS, A
from reflex_core.values import POLICY

REQUEST = "request"
ALONE = "prod"
EPISODES_KEPT = 100_000
RATIO = 1.01  # of neighbouring latencies that count as equal

Document = Mapping[str, Any]


class Latencies:
    """A histogram so fine that its percentiles are within 0.5 %."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._total = 0

    def add(self, value_ms: float) -> None:
        """Count one latency; what is no positive number is left out."""
        if not value_ms > 0 or math.isinf(value_ms):
            return
        self._counts[round(math.log(value_ms, RATIO))] += 1
        self._total += 1

    def percentile(self, percentile: float) -> float | None:
        """Return the latency that `percentile` per cent of the answers do not exceed; None without answers."""
        needed = max(1, math.ceil(self._total * percentile / 100))
        for place in sorted(self._counts):
            needed -= self._counts[place]
            if needed <= 0:
                return float(RATIO**place)
        return None


@dataclass(slots=True)
class SlotTally:
    """Requests of one slot. violations: by what the guard calls them, up to the first colon or number."""

    requests: int = 0
    clamped: int = 0
    violations: int = 0
    late: int = 0
    errors: int = 0
    episodes: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    models: set[str] = field(default_factory=set)
    latency: Latencies = field(default_factory=Latencies)
    outcomes: Rate = field(default_factory=Rate)
    shadows: int = 0
    divergence: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Episode:
    """slot: where it began, empty when no trace here holds it. mixed: both policies answered it. order: of its outcome."""

    slot: str
    mixed: bool = False
    success: bool | None = None
    order: int = 0


class Tally:
    """Add every record of every trace in the order in which they were written, then `finish`.

    split: percent of episodes for slot a where the records do not hold it. An episode that is older than 100,000
    newer ones is closed: records of it that come even later count as another one.
    """

    def __init__(
        self, split: int | None = None, alpha: float = ALPHA, most_episodes: int = EPISODES_KEPT
    ) -> None:
        self._split = split
        self._episodes: Lru[str, Episode] = Lru(most_episodes)
        self._reports = 0
        self.slots: dict[str, SlotTally] = {}
        self.test = SequentialTest(alpha)
        self.mixed = self.without_episode = self.without_slot = self.without_outcome = self.corrected = 0
        self.errors = 0
        self.routed_to_a = 0
        self.expected_in_a = self.variance = 0.0
        self.routed = self.routed_unknown = 0

    def add(self, record: Document, header: Document) -> None:
        """Count one record; header: of the trace that it is from."""
        kind = record.get("kind")
        if kind == REQUEST:
            self._request(record, header)
        elif kind == OUTCOME:
            self._outcome(record)
        elif kind == SHADOW:
            self._shadow(record)

    def finish(self) -> None:
        """Close the episodes, in the order in which their outcomes were recorded."""
        for episode in sorted(self._episodes.values(), key=lambda episode: episode.order):
            self._close(episode)
        self._episodes.clear()

    def _slot(self, name: str) -> SlotTally:
        return self.slots.setdefault(name, SlotTally())

    def _request(self, record: Document, header: Document) -> None:
        routing = _block(record, "routing")
        name = routing.get("slot") or record.get("slot")
        if record.get("error"):
            self.errors += 1
            if name:
                self._slot(str(name)).errors += 1
            return
        slot = self._slot(str(name or ALONE))
        source = str(_block(record, "response").get("source") or POLICY)
        guard, latency = _block(record, "guard"), _block(record, "latency").get("total_ms")
        slot.requests += 1
        slot.sources[source] += 1
        slot.clamped += bool(guard.get("clamped"))
        slot.violations += len(guard.get("violations") or ())
        slot.late += bool(_block(record, "deadline").get("exceeded"))
        slot.models.add(str(record.get("model_version") or ""))
        if isinstance(latency, (int, float)):
            slot.latency.add(latency - float(record.get("injected_latency_ms") or 0))
        if source == POLICY:  # a fallback may come from a slot that the episode has left
            self._driven(_block(record, "request").get("episode_id"), str(name or ALONE), routing, header)

    def _driven(self, episode_id: Any, slot: str, routing: Document, header: Document) -> None:
        if not episode_id or routing.get("degraded"):
            self.without_episode += 1
            return
        known = self._episodes.get(str(episode_id))
        if known is not None:
            self._episodes.touch(str(episode_id))
            if known.slot:
                known.mixed |= known.slot != slot
                return
            known.slot = slot
        else:
            self._keep(str(episode_id), Episode(slot))
        self._slot(slot).episodes += 1
        self._ratio(slot, routing.get("split", _block(header, "settings").get("split", self._split)))

    def _ratio(self, slot: str, split: Any) -> None:
        if slot not in SLOTS:
            return
        if not isinstance(split, int) or not 0 <= split <= 100:
            self.routed_unknown += 1
            return
        share = split / 100
        self.routed += 1
        self.routed_to_a += slot == A
        self.expected_in_a += share
        self.variance += share * (1 - share)

    def _outcome(self, record: Document) -> None:
        episode_id, success = record.get("episode_id"), record.get("success")
        if not episode_id or not isinstance(success, bool):
            return
        episode = self._episodes.get(str(episode_id))
        if episode is None:
            episode = Episode(str(record.get("slot") or ""))
            self._keep(str(episode_id), episode)
        self.corrected += episode.success is not None
        self._reports += 1
        episode.success = success
        episode.order = episode.order or self._reports

    def _keep(self, episode_id: str, episode: Episode) -> None:
        if forgotten := self._episodes.put(episode_id, episode):
            self._close(forgotten[1])

    def _close(self, episode: Episode) -> None:
        if episode.mixed:
            self.mixed += 1
        elif episode.success is None:
            self.without_outcome += 1
        elif not episode.slot:
            self.without_slot += 1
        else:
            slot = self._slot(episode.slot)
            slot.outcomes = slot.outcomes.plus(episode.success)
            if episode.slot in SLOTS:
                self.test.add(episode.slot, episode.success)

    def _shadow(self, record: Document) -> None:
        slot = self._slot(str(_block(record, "routing").get("slot") or ALONE))
        found = _block(record, "divergence")
        slot.shadows += 1
        for name, value in zip(found.get("names") or (), found.get("max_abs") or (), strict=False):
            if isinstance(value, (int, float)):
                slot.divergence[str(name)] = max(float(value), slot.divergence.get(str(name), 0.0))


def _block(record: Document, name: str) -> Document:
    value = record.get(name)
    return value if isinstance(value, dict) else {}
