# SPDX-License-Identifier: Apache-2.0
"""Compute when the next chunk must be requested, and how much of the executing one has elapsed. Pure time arithmetic."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LATENCIES_KEPT = 20  # a windowed maximum: one slow inference is remembered for 20 chunks, not for ever


@dataclass(frozen=True, slots=True)
class ExecutingChunk:
    """The chunk that the robot executes: row i runs from stamp_ns + i * dt_s until the next row."""

    stamp_ns: int
    dt_s: float
    horizon: int

    @property
    def end_ns(self) -> int:
        """When the last row is reached."""
        return self.stamp_ns + int(self.horizon * self.dt_s * 1e9)

    def elapsed(self, now_ns: int) -> int:
        """Return the number of rows whose time is over, 0..horizon."""
        return min(max(int((now_ns - self.stamp_ns) * 1e-9 / self.dt_s), 0), self.horizon)

    def remaining_s(self, now_ns: int) -> float:
        """Return the seconds until the last row is reached; 0.0 when spent."""
        return max(self.stamp_ns * 1e-9 + self.horizon * self.dt_s - now_ns * 1e-9, 0.0)


class ChunkScheduler:
    """Schedules the next request after `execution_horizon` rows, or earlier where latency and margin need it."""

    def __init__(self, first_latency_s: float = 0.0) -> None:
        """Start without a chunk. first_latency_s: expected latency of the first answer."""
        self._first_latency_s = first_latency_s
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self.running: ExecutingChunk | None = None

    def reset(self) -> None:
        """Forget the running chunk: the next one is due at once."""
        self.running = None

    def started(self, running: ExecutingChunk, latency_s: float) -> None:
        """Start a chunk that was published `latency_s` after its observation was taken."""
        self.running = running
        self.learn(latency_s)

    def learn(self, latency_s: float) -> None:
        """Count the latency of an answer, whether it was published or not."""
        self._latencies_s.append(latency_s)

    @property
    def latency_s(self) -> float:
        """The slowest of the newest answers; what was expected before the first."""
        return max(self._latencies_s, default=self._first_latency_s)

    def due_ns(self, execution_horizon: int, margin_s: float) -> int | None:
        """Return when to take the next observation (robot clock, ns); None without an executing chunk: at once.

        The next chunk must arrive before the executing one ends: not later than its end - latency - margin.
        """
        running = self.running
        if running is None:
            return None
        rows_s = min(execution_horizon, running.horizon) * running.dt_s
        spare_s = running.horizon * running.dt_s - self.latency_s - margin_s
        return running.stamp_ns + int(max(min(rows_s, spare_s), 0.0) * 1e9)

    def keeps_up(self, margin_s: float) -> bool:
        """Return False when inference takes so long that the robot must pause between chunks."""
        running = self.running
        return running is None or self.latency_s + margin_s < running.horizon * running.dt_s
