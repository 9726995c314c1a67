# SPDX-License-Identifier: Apache-2.0
"""What each episode's robot was last told to do, so that a hold can stay there."""

from __future__ import annotations

import threading
from collections import OrderedDict

from reflex_core.values import ActionChunk, Floats

EPISODES_KEPT = 256


class Commanded:
    """The newest served chunk per episode and when its observation was received. Bounded, thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunks: OrderedDict[str, tuple[ActionChunk, int]] = OrderedDict()

    def remember(self, episode_id: str | None, chunk: ActionChunk, received_ns: int) -> None:
        """Keep a chunk that is about to be executed. Requests without an episode are nobody's history."""
        if episode_id is None:
            return
        with self._lock:
            known = self._chunks.get(episode_id)
            if known is not None and known[1] > received_ns:
                return  # the answer to an older observation came late
            self._chunks[episode_id] = (chunk, received_ns)
            self._chunks.move_to_end(episode_id)
            while len(self._chunks) > EPISODES_KEPT:
                self._chunks.popitem(last=False)

    def at(self, episode_id: str | None, now_ns: int) -> Floats | None:
        """(action_dim,) the action being executed now, the last one when the chunk is spent, None if unknown."""
        with self._lock:
            found = self._chunks.get(episode_id) if episode_id is not None else None
        if found is None:
            return None
        chunk, received_ns = found
        elapsed = int((now_ns - received_ns) * 1e-9 / chunk.dt_s) if chunk.dt_s else len(chunk.actions) - 1
        action: Floats = chunk.actions[min(max(elapsed, 0), len(chunk.actions) - 1)]
        return action
