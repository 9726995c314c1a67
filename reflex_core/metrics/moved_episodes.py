# SPDX-License-Identifier: Apache-2.0
"""Notice episodes that began on another server: their caller goes on from an answer that this one did not give."""

from __future__ import annotations

import threading
from collections import deque

from reflex_core.concurrency.lru import Lru

MOVED = "moved"
EPISODES_KEPT = 1024
ANSWERS_KEPT = 16  # of an episode; a caller executes one of the newest


class MovedEpisodes:
    """The newest answers of each episode. Bounded, thread-safe.

    An episode that nothing was heard of for 1024 others counts as moved when its caller goes on with it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Lru[str, deque[str]] = Lru(EPISODES_KEPT)

    def answered(self, episode_id: str | None, previous_request_id: str, elapsed_rows: float | None, request_id: str) -> bool:  # fmt: skip
        """Note an answer; return True where the caller goes on from one that was not given here.

        Args:
            episode_id: Of the request; without one nothing is noted and the result is False.
            previous_request_id: The answer that the caller executes, "" where it does not say.
            elapsed_rows: How many of its rows are over, None where the caller does not say.
            request_id: Of the answer that leaves now.
        """
        if not episode_id:
            return False
        with self._lock:
            known = self._answers.get(episode_id)
            if known is None:
                self._answers.put(episode_id, deque((request_id,), ANSWERS_KEPT))
                return bool(previous_request_id or elapsed_rows)
            moved = bool(previous_request_id) and previous_request_id not in known
            known.append(request_id)
            return moved
