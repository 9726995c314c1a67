# SPDX-License-Identifier: Apache-2.0
"""Episodes of a trace or a bag: instruction, outcome, length, clamps, holds and latency of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from reflex_core.files.json_fields import is_number
from reflex_core.metrics.latency_window import percentile_of
from reflex_core.records.trace.fields import timestamp_ns
from reflex_core.records.trace.notes import OUTCOME
from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.schema import REQUEST
from reflex_core.records.trace.verdicts import Verdict, verdict_of

SUCCESS, FAILED, UNKNOWN = "success", "failed", "unknown"
OUTCOMES = (SUCCESS, FAILED, UNKNOWN)
WITHOUT_ID = "-"  # requests that belong to no episode are listed together
INSTRUCTIONS_KEPT = 8
EPISODES_KEPT = 100_000  # a trace where every request names another one must not fill the memory
TEXT_KEPT = 500

Document = Mapping[str, Any]


class Notes(Protocol):
    """A trace or a bag, read as documents. Raises TraceError."""

    @property
    def header(self) -> Document: ...

    @property
    def warnings(self) -> Sequence[str]: ...

    def notes(self, *kinds: str) -> Iterable[tuple[str, Document]]: ...


@dataclass(slots=True)
class Episode:
    """What one episode was. Filled while its records are read.

    success: None where no outcome was reported. began_ns, ended_ns: since 1970, of its first and last record; 0 where unknown.
    clamped, held, errors: numbers of records. seqs: its first and last record. reason: of the first record that was not plain.
    """

    episode_id: str
    instructions: list[str] = field(default_factory=list)
    success: bool | None = None
    score: float | None = None
    note: str = ""
    records: int = 0
    began_ns: int = 0
    ended_ns: int = 0
    clamped: int = 0
    held: int = 0
    errors: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    reason: str = ""
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """Return success, failed or unknown."""
        return UNKNOWN if self.success is None else SUCCESS if self.success else FAILED

    @property
    def length_s(self) -> float:
        """Return the seconds from its first to its last record."""
        return max(self.ended_ns - self.began_ns, 0) * 1e-9

    @property
    def p99_ms(self) -> float | None:
        """Return the 99th percentile of the latency of its answers; None without an answer."""
        return percentile_of(sorted(self.latencies_ms), 99) if self.latencies_ms else None

    def add(self, document: Document) -> None:
        """Take one of its requests."""
        request, found = _block(document, "request"), verdict_of(document)
        instruction = str(request.get("instruction") or "")[:TEXT_KEPT]
        if instruction not in self.instructions and len(self.instructions) < INSTRUCTIONS_KEPT:
            self.instructions.append(instruction)
        self.records += 1
        self._count(found)
        seq, at_ns = document.get("seq"), timestamp_ns(str(document.get("timestamp") or ""))
        if isinstance(seq, int):
            self.first_seq = seq if self.first_seq is None else self.first_seq
            self.last_seq = seq
        if at_ns is not None:
            self.began_ns = self.began_ns or at_ns
            self.ended_ns = max(self.ended_ns, at_ns)
        total_ms = _block(document, "latency").get("total_ms")
        if is_number(total_ms) and not found.error:
            self.latencies_ms.append(float(total_ms))

    def close(self, document: Document) -> None:
        """Take how it ended; of several reports the last counts."""
        success, score = document.get("success"), document.get("score")
        self.success = success if isinstance(success, bool) else None
        self.score = float(score) if is_number(score) else None
        self.note = str(document.get("note") or "")[:TEXT_KEPT]

    def _count(self, found: Verdict) -> None:
        self.clamped += found.clamped
        self.held += found.held
        self.errors += found.error
        if not self.reason and not found.plain:
            self.reason = found.sentence

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        p99_ms = self.p99_ms
        return {
            "episode_id": self.episode_id,
            "instruction": self.instructions[0] if self.instructions else "",
            "instructions": self.instructions,
            "outcome": self.outcome,
            "score": self.score,
            "note": self.note,
            "records": self.records,
            "began_ns": self.began_ns or None,
            "length_s": round(self.length_s, 3),
            "clamped": self.clamped,
            "held": self.held,
            "errors": self.errors,
            "p99_ms": None if p99_ms is None else round(p99_ms, 3),
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Surveyed:
    """The episodes of one recording in the order in which they began. left_out: sentences about what could not be read."""

    header: Document
    episodes: tuple[Episode, ...]
    left_out: tuple[str, ...]


def survey(source: Notes) -> Surveyed:
    """Read a recording to its end, or to where it is damaged. What could not be read is in `left_out`, nothing is raised."""
    found: dict[str, Episode] = {}
    left_out: list[str] = []
    seen, crowded = 0, 0
    first, last = -1, -1
    try:
        for _, document in source.notes(REQUEST, OUTCOME):
            name = episode_of(document)
            if name not in found and len(found) >= EPISODES_KEPT:
                crowded += 1
                continue
            episode = found.setdefault(name, Episode(name))
            if document.get("kind") == OUTCOME:
                episode.close(document)
                continue
            episode.add(document)
            seq = document.get("seq")
            if isinstance(seq, int):
                first = seq if seen == 0 else min(first, seq)
                last, seen = max(last, seq), seen + 1
    except TraceError as error:
        left_out.append(f"{error}; what follows is left out")
    left_out = [*source.warnings, *left_out]
    if seen and last - first + 1 > seen:
        left_out.append(f"{last - first + 1 - seen} requests between {first} and {last} were not recorded")
    if crowded:
        left_out.append(f"{crowded} records are of more than {EPISODES_KEPT} episodes and are left out")
    return Surveyed(source.header, tuple(found.values()), tuple(left_out))


def episode_of(document: Document) -> str:
    """Return the episode id of a request or an outcome; WITHOUT_ID for a request that has none."""
    name = (
        _block(document, "request").get("episode_id")
        if document.get("kind") == REQUEST
        else document.get("episode_id")
    )
    return WITHOUT_ID if name is None or name == "" else str(name)[:TEXT_KEPT]


def _block(document: Document, name: str) -> Document:
    found = document.get(name)
    return found if isinstance(found, dict) else {}
