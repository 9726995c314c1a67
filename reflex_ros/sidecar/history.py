# SPDX-License-Identifier: Apache-2.0
"""Request history: the newest answers of the engine, for the page. It costs each answer one short lock."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from reflex_core.values import POLICY, Request, Served

LATENCIES = 1024
SECONDS = 180  # of the latency over time
EVENTS = 30
LINES = 5  # of one event


@dataclass(frozen=True, slots=True)
class Event:
    """An action of the guard, `times` in a row. first_s, last_s: seconds since 1970."""

    first_s: float
    last_s: float
    times: int
    slot: str
    episode_id: str
    hold_reason: str
    violations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The newest answer. at_ns: when it was finished, on the monotonic clock."""

    request: Request
    served: Served
    at_ns: int


@dataclass(frozen=True, slots=True)
class Second:
    """The answers that were finished in one second, `at_s` on the monotonic clock."""

    at_s: int
    count: int = 0
    sum_ms: float = 0.0
    max_ms: float = 0.0
    holds: int = 0


@dataclass(frozen=True, slots=True)
class HistorySnapshot:
    """A copy of the history. latencies_ms, finished_ns: of the newest answers, oldest first. seconds: of the last SECONDS."""

    answer: Answer | None
    latencies_ms: tuple[float, ...]
    finished_ns: tuple[int, ...]
    events: tuple[Event, ...]
    counts: Mapping[str, int]
    seconds: tuple[Second, ...] = ()


class RequestHistory:
    """A listener of the engine. Called from several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answer: Answer | None = None
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES)
        self._finished_ns: deque[int] = deque(maxlen=LATENCIES)
        self._events: deque[Event] = deque(maxlen=EVENTS)
        self._counts: Counter[str] = Counter()
        self._seconds: deque[tuple[int, int, float, float, int]] = deque(maxlen=SECONDS)  # as in Second

    def __call__(self, request: Request, served: Served) -> None:
        """Remember an answer."""
        answer = Answer(request, served, time.monotonic_ns())
        with self._lock:
            self._answer = answer
            self._latencies_ms.append(served.latency_ms)
            self._finished_ns.append(answer.at_ns)
            self._count(served)
            self._in_second(served, answer.at_ns // 1_000_000_000)
            if served.guard.clamped or served.hold_reason:
                self._note(served)

    def snapshot(self) -> HistorySnapshot:
        """Return a consistent copy of the history."""
        with self._lock:
            return HistorySnapshot(
                self._answer,
                tuple(self._latencies_ms),
                tuple(self._finished_ns),
                tuple(self._events),
                dict(self._counts),
                tuple(Second(*second) for second in self._seconds),
            )

    def _in_second(self, served: Served, at_s: int) -> None:
        if not self._seconds or self._seconds[-1][0] < at_s:
            self._seconds.append((at_s, 0, 0.0, 0.0, 0))
        begun_s, count, sum_ms, max_ms, holds = self._seconds[-1]
        latency_ms = served.latency_ms
        self._seconds[-1] = (
            begun_s, count + 1, sum_ms + latency_ms, max(max_ms, latency_ms), holds + bool(served.hold_reason)
        )  # fmt: skip

    def _count(self, served: Served) -> None:
        counts = self._counts
        counts["answers"] += 1
        counts["clamped"] += served.guard.clamped
        counts["holds"] += bool(served.hold_reason)
        counts["fallbacks"] += served.chunk.source != POLICY
        counts["cache_hits"] += served.cache.status == "hit"
        counts["cache_misses"] += served.cache.status == "miss"
        counts["guided"] += bool(served.rtc.mode)
        counts["corrected"] += bool(served.a2c2.applied)

    def _note(self, served: Served) -> None:
        """Record the guard's action; the same action many times a second is one event."""
        now_s = time.time()
        event = Event(
            now_s,
            now_s,
            1,
            served.slot,
            served.episode_id or "",
            served.hold_reason,
            served.guard.violations[:LINES],
        )
        last = self._events[-1] if self._events else None
        if last is not None and _kind(last) == _kind(event):
            self._events[-1] = replace(
                last, last_s=now_s, times=last.times + 1, violations=event.violations or last.violations
            )
            return
        self._events.append(event)


def _kind(event: Event) -> tuple[str, ...]:
    """Return the key by which events count as the same: all but the numbers."""
    return (
        event.slot,
        event.episode_id,
        event.hold_reason,
        *(line.partition(":")[0] for line in event.violations),
    )
