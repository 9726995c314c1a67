# SPDX-License-Identifier: Apache-2.0
"""Which row of which chunk the robot gets next: counted in rows that were handed out, without a clock.

A row is executed from when it is handed out until the next one is. Row 0 of a chunk is due one row after its observation,
so a chunk that was made while the robot went on begins at the row that it has got to since; a robot that stood still
while it waited begins at row 0, however long that took.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reflex_client.reply import Reply


@dataclass(frozen=True)
class Row:
    """One row to command now, for dt_s. index: in its chunk; action: (columns,) float32 in the order of reply.names."""

    action: Any
    index: int
    reply: Reply

    @property
    def dt_s(self) -> float:
        """How long it is commanded."""
        return self.reply.dt_s


@dataclass(frozen=True)
class Mark:
    """Where the robot was at an observation.

    executed: rows of the whole episode; elapsed_rows and previous_request_id: rows of which chunk, as a request states it.
    """

    executed: float
    elapsed_rows: float | None = None
    previous_request_id: str | None = None


class Playback:
    """The rows of an episode's chunks in the order in which the robot gets them. Not thread-safe."""

    def __init__(self) -> None:
        self.reply: Reply | None = None
        self.skipped_rows = 0  # of the newest chunk: over when it came
        self._next = 0
        self._handed = 0
        self._since_joined = 0

    @property
    def rows_left(self) -> int:
        """Rows that can still be handed out."""
        return 0 if self.reply is None else self.reply.rows - self._next

    @property
    def rows_since_joined(self) -> int:
        """Rows of the newest chunk that were handed out."""
        return self._since_joined

    def mark(self, share: float = 1.0) -> Mark:
        """Return where the robot is at an observation now. share: of the newest row's time that is over, 0 to 1."""
        if self.reply is None:
            return Mark(self._handed)
        unfinished = min(max(1.0 - share, 0.0), 1.0) if self._since_joined else 0.0
        elapsed = max(self._next - unfinished, 0.0)
        return Mark(self._handed - unfinished, elapsed, self.reply.request_id)

    def join(self, reply: Reply, mark: Mark) -> bool:
        """Go on with a chunk that was made from the observation at `mark`; False: all its rows are over, and nothing changes."""
        over = max(int(self._handed - mark.executed + 0.5), 0)
        if reply.start_index + over >= reply.rows:
            return False
        self.reply, self._next, self.skipped_rows = reply, reply.start_index + over, over
        self._since_joined = 0
        return True

    def next(self) -> Row | None:
        """Return the row that is due now; None where none is left: the robot is to hold."""
        if self.reply is None or self.rows_left == 0:
            return None
        index = self._next
        self._next += 1
        self._handed += 1
        self._since_joined += 1
        return Row(self.reply.actions[index], index, self.reply)

    def due(self, execution_horizon: int | None, latency_s: float, margin_s: float) -> bool:
        """Return whether to ask for the next chunk now.

        That is after `execution_horizon` rows (None: half of the chunk's), or earlier where `latency_s` and `margin_s`
        need the rows that are left.
        """
        reply = self.reply
        if reply is None or self.rows_left == 0:
            return True
        horizon = max(reply.rows // 2, 1) if execution_horizon is None else execution_horizon
        needed = (latency_s + margin_s) / reply.dt_s if reply.dt_s > 0 else 0.0
        return self._since_joined + self.skipped_rows >= horizon or self.rows_left <= needed
