# SPDX-License-Identifier: Apache-2.0
"""When the next row is due, and how long chunks take to come: what both players know of time."""

from __future__ import annotations

from collections import deque

from reflex_client.errors import ReflexClientError
from reflex_client.reply import Reply

LATENCIES_KEPT = 20


def require_rate(reply: Reply) -> None:
    """Raise ReflexClientError for a chunk that does not say how long a row lasts."""
    if reply.dt_s <= 0.0:
        raise ReflexClientError(
            f"the server does not know how long a row lasts (dt_s is {reply.dt_s:g}), so that rows cannot be timed",
            "no-action-rate",
        )


class Pace:
    """The times of rows on one clock. A caller that is late gets the next row at once, and none are skipped for it."""

    def __init__(self) -> None:
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._handed_s = 0.0
        self._dt_s = 0.0

    @property
    def latency_s(self) -> float:
        """The slowest of the newest chunks; 0.0 before the first."""
        return max(self._latencies_s, default=0.0)

    def learn(self, latency_s: float) -> None:
        """Count how long a chunk took from its observation."""
        self._latencies_s.append(latency_s)

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until the next row is due."""
        return max(self._handed_s + self._dt_s - now_s, 0.0)

    def handed(self, now_s: float, dt_s: float) -> None:
        """Begin the time of a row that lasts dt_s: where it was due, unless the caller is late by more than a row."""
        due_s = self._handed_s + self._dt_s
        late = now_s - due_s > self._dt_s
        self._handed_s, self._dt_s = (now_s if late or self._dt_s == 0.0 else due_s), dt_s

    def share(self, now_s: float) -> float:
        """Return the share of the newest row's time that is over, 0 to 1."""
        return min(max((now_s - self._handed_s) / self._dt_s, 0.0), 1.0) if self._dt_s > 0 else 1.0
