# SPDX-License-Identifier: Apache-2.0
"""Check episode ids, and count active episodes: those with a request in the last minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from reflex_core.concurrency.lru import Lru

WINDOW_S = 60.0
EPISODES_KEPT = 10_000
ID_CHARACTERS = 256
ID_RULE = f"at most {ID_CHARACTERS} printable characters, not blanks alone"


def usable_id(text: str) -> bool:
    """Return whether a text may be the id of an episode or a request, from any interface: printable, bounded and seen."""
    return len(text) <= ID_CHARACTERS and text.isprintable() and not text.isspace()


class Episodes:
    """When each episode was last heard of. Bounded, thread-safe."""

    def __init__(self, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s, self._clock = window_s, clock
        self._lock = threading.Lock()
        self._last: Lru[str, float] = Lru(EPISODES_KEPT)

    def seen(self, episode_id: str | None) -> None:
        """Count a request of this episode."""
        if episode_id is None:
            return
        with self._lock:
            self._last.put(episode_id, self._clock())

    def active(self) -> int:
        """Count the episodes with a request within the window; drop the others."""
        oldest = self._clock() - self._window_s
        with self._lock:
            while (last := self._last.oldest()) is not None and last < oldest:
                self._last.pop_oldest()
            return len(self._last)
