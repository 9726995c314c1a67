# SPDX-License-Identifier: Apache-2.0
"""Deduplicate instruction and episode messages, which come from latched and from volatile publishers."""

from __future__ import annotations

from reflex_core.concurrency.lru import Lru

KEPT = 256  # messages that are remembered
SETTLE_NS = 5_000_000_000  # so long after a message what a latched publisher had published before it may still come in


class Deduplicator:
    """Decide which messages of a topic with two subscriptions are new.

    A volatile subscription (`live`) receives from every publisher from now on; a transient-local one receives what latched
    publishers have published before, and from then on the same again.
    """

    def __init__(self) -> None:
        self._seen: Lru[tuple[int, int | None, bytes], None] = Lru(KEPT)
        self._newest_ns = self._received_at_ns = 0
        self._any = False

    def is_new(self, stamp_ns: int, number: int | None, raw: bytes, received_ns: int, *, live: bool) -> bool:
        """Return whether a message is to be handled.

        stamp_ns: of its publisher; 0 where the middleware has none. number: as its publisher counts, if it does.
        received_ns: here, on any clock that does not jump.
        """
        if (
            stamp_ns == 0
        ):  # nothing tells a message from its repetition, and the live one is never a repetition
            new = live or not self._any
        else:
            key = (stamp_ns, number, raw)
            new = key not in self._seen and not (not live and self._is_history(stamp_ns, received_ns))
            self._seen.put(key, None)
        if new:
            self._any = True
            self._newest_ns, self._received_at_ns = max(self._newest_ns, stamp_ns), received_ns
        return new

    def _is_history(self, stamp_ns: int, received_ns: int) -> bool:
        """Return whether it was published before the newest one. After SETTLE_NS an older stamp is another machine's clock."""
        return stamp_ns < self._newest_ns and received_ns - self._received_at_ns < SETTLE_NS
