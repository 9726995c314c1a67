# SPDX-License-Identifier: Apache-2.0
"""What a LeRobot client has sent and got: its episode, the observation that waits, and where the rows that it has are.

Belongs to the event loop. A client says of an observation how many actions it has executed: from that come the rows'
numbers, and how much of the previous chunk is over.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.sidecar.wires.lerobot import NO_SETUP, ClientSetup, Labels, RowsCall, TimedRequest
from reflex_ros.sidecar.wires.request_fields import MOST_ROWS

FEW_ROWS = 3  # an observation so close to the one that was answered was sent before its client had the rows
CLOSE_S = 1.0  # but an answer may be lost
RATE_ROWS, RATE_SHARE = 20, 0.2  # a loop in Python that sleeps is up to 10 % slow

log = logging.getLogger(__name__)
_line = RateLimitedLog(log)


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Waiting:
    """The newest observation. release: frees the memory of its images. received_ns: when it was whole, monotonic."""

    timed: TimedRequest
    release: Callable[[], None] = _nothing
    received_ns: int = 0


@dataclass(frozen=True, slots=True)
class Delivered:
    """The newest rows. timestep: of their observation. first: of the first row; count: of all. at_s: when they were made."""

    timestep: int
    first: int
    count: int
    request_id: str
    at_s: float
    fps: float


@dataclass(slots=True)
class Session:
    """One client."""

    name: str = field(default_factory=lambda: f"lerobot-{secrets.token_hex(8)}")
    setup: ClientSetup = NO_SETUP
    robot_id: str = ""  # that its key is for
    seen_s: float = 0.0
    busy: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    _episode: int = 0
    _waiting: Waiting | None = None
    _delivered: Delivered | None = None
    _counted_from: tuple[float, int] | None = None

    @property
    def episode_id(self) -> str:
        """The name of its running episode: a client says when another one begins, and has no name for it."""
        return f"{self.name}-{self._episode}"

    def begin_episode(self) -> None:
        """Forget what was sent and got, as Ready asks for."""
        self._episode += 1
        self._delivered = self._counted_from = None
        self.drop()

    def drop(self) -> None:
        """Forget the observation that waits."""
        waiting, self._waiting = self._waiting, None
        self.news.clear()
        if waiting is not None:
            waiting.release()

    def offer(self, waiting: Waiting, now_s: float) -> bool:
        """Take an observation in place of the one that waits; return False for one that is too close to the last answer."""
        timed, last = waiting.timed, self._delivered
        if last is not None and timed.timestep < last.timestep:  # its counter began again, without a word
            self.begin_episode()
            last = None
        if last is not None and not timed.must_go and now_s - last.at_s < CLOSE_S:
            few = min(FEW_ROWS, max(last.count // 4, 1))
            if timed.timestep - last.timestep < few:
                waiting.release()
                return False
        if self._waiting is not None and self._waiting.timed.must_go:
            waiting = replace(waiting, timed=replace(timed, must_go=True))
        self.drop()
        self._waiting = waiting
        self.news.set()
        return True

    def take(self, fps: float, dt_s: float) -> tuple[Waiting, Labels] | None:
        """Return the observation that waits, as a request of its episode, and the numbers of its rows.

        fps: the client's rate where rows are made for it, 0 where it gets the policy's, which are dt_s apart.
        """
        waiting, self._waiting = self._waiting, None
        self.news.clear()
        if waiting is None:
            return None
        timed, last = waiting.timed, self._delivered
        decoded = replace(timed.decoded, episode_id=self.episode_id)
        if last is not None:
            rows = max(timed.timestep + 1 - last.first, 0)
            per_row = 1.0 / (last.fps * dt_s) if last.fps > 0 and dt_s > 0 else 1.0
            elapsed = min(rows * per_row, MOST_ROWS)
            decoded = replace(decoded, elapsed_rows=elapsed, previous_request_id=last.request_id)
        # the first row follows the observation by a period; a client that has executed none takes it as number 0
        first = timed.timestep if last is None and timed.timestep == 0 else timed.timestep + 1
        labels = Labels(first, self.setup.rows, fps)
        return replace(waiting, timed=replace(timed, decoded=decoded)), labels

    def delivered(self, timed: TimedRequest, labels: Labels, call: RowsCall, now_s: float) -> bool:
        """Note that rows leave now. Return False where their episode has ended meanwhile: they must not.

        What waits was sent before they arrive, so it is dropped unless it must go.
        """
        if timed.decoded.episode_id != self.episode_id:
            return False
        self._delivered = Delivered(
            timed.timestep, labels.first, call.sent, call.request_id, now_s, labels.fps
        )
        if self._waiting is not None and not self._waiting.timed.must_go:
            self.drop()
        return True

    def judge_rate(self, timed: TimedRequest, rate: float) -> None:
        """Log that the client executes rows faster or slower than they are meant. rate: of the rows, per second.

        Counted between observations in whose time it never ran out of rows; the rate itself is not on the wire.
        """
        begun, now = self._counted_from, (timed.timestamp, timed.timestep)
        if begun is None or timed.must_go or now[1] < begun[1] or now[0] <= begun[0]:
            self._counted_from = now
            return
        if now[1] - begun[1] < RATE_ROWS or rate <= 0:
            return
        self._counted_from = now
        found = (now[1] - begun[1]) / (now[0] - begun[0])
        if abs(found / rate - 1.0) > RATE_SHARE:
            text = (
                "a LeRobot client executes %.3g rows per second and they are meant for %.3g: the robot moves %.2g times as fast as the"
                " policy means; start the client with --fps=%.3g, or this server with --lerobot-fps %.3g"
            )
            _line(logging.WARNING, "rate", text, found, rate, found / rate, rate, found)
