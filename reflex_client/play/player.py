# SPDX-License-Identifier: Apache-2.0
"""Play an episode's chunks row by row: observe and ask in a thread while the robot executes."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Callable, Iterator, Mapping, Protocol

from reflex_client.errors import ReflexClientError
from reflex_client.play.pacing import Pace, require_rate
from reflex_client.play.playback import Playback, Row
from reflex_client.reply import Reply

Observe = Callable[[], Mapping[str, Any]]

MARGIN_S = 0.05
STOP_S = 2.0
AGAIN_S = 0.1  # after a chunk that did not come


class ChunkSource(Protocol):
    """What chunks come from: an Episode."""

    def act(self, **observation: Any) -> Reply:
        """Return the next chunk."""
        ...

    def abort(self) -> None:
        """End the request under way."""
        ...


class ChunkPlayer:
    """Hands out one row per `dt_s` and asks for the next chunk in time.

        with episode.player(observe) as player:
            for row in player:
                if row is None:
                    robot.hold()
                else:
                    robot.command(row.action)

    observe: returns the arguments of `Episode.act` as they are now: {"images": ..., "state": ...}; called in a thread. Each
    request states how many rows of which chunk were executed at its observation, and rows that are over when a chunk
    comes are skipped. None in place of a row: there is none, the robot is to hold; `problem` says why. A refusal that
    asking again does not help is raised to the caller.
    """

    def __init__(
        self,
        episode: ChunkSource,
        observe: Observe,
        *,
        execution_horizon: int | None = None,
        margin_s: float = MARGIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """execution_horizon: rows of a chunk after which the next is asked for (None: half). margin_s: beside the latency."""
        self.problem: ReflexClientError | None = None
        self.chunks = 0
        self._episode, self._observe = episode, observe
        self._execution_horizon, self._margin_s = execution_horizon, margin_s
        self._clock = clock
        self._playback, self._pace = Playback(), Pace()
        self._changed = threading.Condition()
        self._stopped = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._ask_on, name="reflex-chunks", daemon=True)

    def __enter__(self) -> ChunkPlayer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Row | None]:
        while not self._stopped:
            yield self.next_row()

    @property
    def playback(self) -> Playback:
        """The chunk that is executed, and how far."""
        return self._playback

    def stop(self) -> None:
        """End asking; a request under way is given up."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._episode.abort()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(STOP_S)  # `observe` may hang

    def next_row(self) -> Row | None:
        """Wait until the next row is due and return it; None where there is none for now. Raises what `observe` or a refusal raised.

        Before the first chunk, and where all rows are used up, it waits for the next chunk, a row's time at most.
        """
        with self._changed:
            self._sleep_until_due()
            if self._has_to_wait():
                self._changed.wait_for(lambda: not self._has_to_wait(), self._waiting_s())
            if self._failure is not None:
                raise self._failure
            row = None if self._stopped else self._playback.next()
            if row is not None:
                self._pace.handed(self._clock(), row.dt_s)
            self._changed.notify_all()
            return row

    def _sleep_until_due(self) -> None:
        while not self._stopped and self._failure is None:
            wait_s = self._pace.wait_s(self._clock())
            if wait_s <= 0.0:
                return
            self._changed.wait(wait_s)

    def _has_to_wait(self) -> bool:
        return not self._stopped and self._failure is None and self._playback.rows_left == 0

    def _waiting_s(self) -> float:
        reply = self._playback.reply
        return reply.dt_s if reply is not None and reply.dt_s > 0 else AGAIN_S

    def _due(self) -> bool:
        return self._stopped or self._playback.due(
            self._execution_horizon, self._pace.latency_s, self._margin_s
        )

    def _ask_on(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(self._due)
                    if self._stopped:
                        return
                self._ask()
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _ask(self) -> None:
        with self._changed:
            began_s = self._clock()
            mark = self._playback.mark(self._pace.share(began_s))
        observation = self._observe()
        try:
            reply = self._episode.act(
                **observation, elapsed_rows=mark.elapsed_rows, previous_request_id=mark.previous_request_id
            )
            require_rate(reply)
        except ReflexClientError as error:
            self._note(error)
            return
        with self._changed:
            self.problem = None
            self.chunks += 1
            self._pace.learn(self._clock() - began_s)
            self._playback.join(reply, mark)
            self._changed.notify_all()

    def _note(self, error: ReflexClientError) -> None:
        """Keep why no chunk came; the rows that are left go on meanwhile. Raises what asking again does not help."""
        if self._stopped:
            return
        if not error.temporary and error.slug != "out-of-time":
            raise error
        with self._changed:
            self.problem = error
            self._changed.wait_for(lambda: self._stopped, AGAIN_S)
