# SPDX-License-Identifier: Apache-2.0
"""How an answer was made, block by block: each is a part of values.Served, with the document that leaves this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NOT_CACHED = "n/a"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class GuardReport:
    """What the guard changed: `violations` name the joint, the bound, the value and the limit."""

    clamped: bool = False
    clamp_count: int = 0
    violations: tuple[str, ...] = ()

    def document(self) -> Document:
        """Return the block of replies, records and spans."""
        return {"violations": self.violations, "clamped": self.clamped, "clamp_count": self.clamp_count}


@dataclass(frozen=True, slots=True)
class Fallback:
    """What was sent in place of a chunk that was not there in time.

    age_ms: age of the fallback chunk, 0.0 for a fresh one. request_id: of the answer it was.
    """

    deadline_exceeded: bool = False
    age_ms: float = 0.0
    request_id: str = ""

    def document(self) -> Document:
        """Return the block of replies, records, spans and messages."""
        return {"deadline_exceeded": self.deadline_exceeded, "fallback_age_ms": self.age_ms}


@dataclass(frozen=True, slots=True)
class CacheReport:
    """Use of the episode's cached prefix. status: hit, miss, or n/a where none is cached.

    age_ms: how much older than the observation the prefix was.
    """

    status: str = NOT_CACHED
    age_ms: float = 0.0

    @property
    def present(self) -> bool:
        """True where prefixes are cached."""
        return self.status != NOT_CACHED

    def document(self) -> Document:
        """Return the block of replies, records and spans."""
        return {"status": self.status, "age_ms": self.age_ms}


@dataclass(frozen=True, slots=True)
class RtcReport:
    """How the previous chunk guided this one. mode: empty when it did not.

    delay: rows taken over from it. previous: its request_id. elapsed_rows: how many of its rows were over at this
    observation. executed: its rows as they were corrected on their way (`a2c2_every_step`), which guided; else none.
    reason: why nothing guided it, empty where something did or nothing could; a reply has it.
    """

    mode: str = ""
    delay: int = 0
    previous: str = ""
    elapsed_rows: float = 0.0
    executed: tuple[tuple[float, ...], ...] = ()
    reason: str = ""

    @property
    def present(self) -> bool:
        """True where the chunk was guided."""
        return self.mode != ""

    def document(self) -> Document:
        """Return the block of replies, records and spans."""
        return {"mode": self.mode, "delay": self.delay, "previous": self.previous}

    def replay_document(self) -> Document:
        """Return what a trace adds, because a replay needs it."""
        return {"elapsed_rows": self.elapsed_rows, **({"executed": self.executed} if self.executed else {})}


@dataclass(frozen=True, slots=True)
class EnsembleReport:
    """How temporal ensembling averaged the chunk. chunks: how many its first row is the mean of, 0 where none is averaged.

    previous: request_id of the chunk whose mean goes on, empty where it begins. elapsed_rows: how many of its rows were over.
    coefficient: of the weights.
    """

    chunks: int = 0
    previous: str = ""
    elapsed_rows: float = 0.0
    coefficient: float = 0.0

    @property
    def present(self) -> bool:
        """True where chunks of the episode are averaged."""
        return self.chunks > 0

    def document(self) -> Document:
        """Return the block of replies, records and spans."""
        return {"chunks": self.chunks, "previous": self.previous}

    def replay_document(self) -> Document:
        """Return what a trace adds, because a replay needs it."""
        return {"elapsed_rows": self.elapsed_rows, "coefficient": self.coefficient}


@dataclass(frozen=True, slots=True)
class A2C2Report:
    """What the correction head did. reason: applied, why it was skipped, or `error:` and an exception's name; empty without a head.

    magnitude: L2 norm of the correction that was made or, at magnitude_safety_skip, refused; 0.0 where there was none.
    """

    applied: bool = False
    reason: str = ""
    magnitude: float = 0.0

    @property
    def present(self) -> bool:
        """True where there is a correction head."""
        return self.reason != ""

    def document(self) -> Document:
        """Return the block of replies, records and spans."""
        return {
            "applied": self.applied,
            "reason": self.reason,
            "correction_magnitude": round(self.magnitude, 6),
        }


@dataclass(frozen=True, slots=True)
class RoutingReport:
    """Where a request went of two policies; slot empty with one policy.

    routing_key: the episode, else the request. degraded: there was no episode id, so that the next request of the same
    robot may go elsewhere. cached: the episode was on this slot before. bucket: 0 to 99, of the key. split: percent of
    episodes for slot a. crash_verdict: how the two slots stood.
    """

    slot: str = ""
    routing_key: str = ""
    degraded: bool = False
    cached: bool = False
    bucket: int = 0
    split: int = 0
    crash_verdict: str = ""

    @property
    def present(self) -> bool:
        """True where there are two policies."""
        return self.slot != ""

    def document(self) -> Document:
        """Return the block of replies, records and spans."""
        return {
            "slot": self.slot,
            "routing_key": self.routing_key,
            "degraded": self.degraded,
            "cached": self.cached,
            "bucket": self.bucket,
            "split": self.split,
            "crash_verdict": self.crash_verdict,
        }


NOT_CHECKED, NO_FALLBACK, NO_CACHE = GuardReport(), Fallback(), CacheReport()
NOT_GUIDED, NOT_AVERAGED, NOT_CORRECTED, NOT_ROUTED = (
    RtcReport(),
    EnsembleReport(),
    A2C2Report(),
    RoutingReport(),
)
