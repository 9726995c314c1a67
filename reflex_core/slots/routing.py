# SPDX-License-Identifier: Apache-2.0
"""Which slot answers an episode: the same one for every request of it, in every process."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable

from reflex_core.concurrency.lru import Lru
from reflex_core.reports import RoutingReport

A, B = "a", "b"
SLOTS = (A, B)
BUCKETS = 100
EPISODES_KEPT = 10_000
REQUEST_ID_SHOWN = 64

log = logging.getLogger(__name__)


def bucket(key: str) -> int:
    """Return 0..99: the first 8 bytes of SHA-256 over the UTF-8 key, as a big-endian number, modulo 100."""
    data = key.encode(
        "utf-8", "surrogatepass"
    )  # JSON may bring half a surrogate pair; it is a key like any other
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") % BUCKETS


def slot_of(number: int, split: int) -> str:
    """Return the slot of a bucket when `split` percent go to a: 0 sends all to b, 100 all to a."""
    return A if number < split else B


def other(slot: str) -> str:
    """Return the other of the two slots."""
    return B if slot == A else A


class _Once:
    """True at the first call in a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent = False

    def __call__(self) -> bool:
        with self._lock:
            first, self._spent = not self._spent, True
        return first


_first_degraded = _Once()


class Routing:
    """Decides per episode and remembers the newest 10,000. Thread-safe.

    split: percent of episodes for slot a, read with every new episode; episodes under way stay where they are.
    Forgetting an old episode does no harm while the split stays: its hash leads to the same slot again.
    """

    def __init__(self, split: Callable[[], int], most_episodes: int = EPISODES_KEPT) -> None:
        self._split = split
        self._lock = threading.Lock()
        self._slots: Lru[str, tuple[str, bool]] = Lru(most_episodes)  # slot, and whether it was moved there

    def decide(self, episode_id: str | None, request_id: str) -> RoutingReport:
        """Return the slot of a request; without an episode id that of its request id, with one warning per process."""
        split = self._split()
        if not episode_id:
            if _first_degraded():
                name = ascii(request_id[:REQUEST_ID_SHOWN])
                log.warning("policy_router.degraded_mode request_id=%s: no episode_id provided", name)
            number = bucket(request_id)
            return RoutingReport(slot_of(number, split), request_id, True, False, number, split)
        number = bucket(episode_id)
        with self._lock:
            known = self._slots.get(episode_id)
            if known is None:
                slot = slot_of(number, split)
                self._keep(episode_id, slot, moved=False)
                return RoutingReport(slot, episode_id, False, False, number, split)
            self._slots.touch(episode_id)
            return RoutingReport(known[0], episode_id, False, not known[1], number, split)

    def expected(self, episode_id: str | None, request_id: str) -> RoutingReport:
        """Return what `decide` would return, without remembering it."""
        split, key = self._split(), episode_id or request_id
        number = bucket(key)
        known = self.slot(episode_id) if episode_id else None
        return RoutingReport(
            known or slot_of(number, split), key, not episode_id, known is not None, number, split
        )

    def move(self, episode_id: str, slot: str) -> None:
        """Keep the episode in this slot, even if its own comes back: one change of policy is enough for a robot."""
        with self._lock:
            self._keep(episode_id, slot, moved=True)

    def slot(self, episode_id: str) -> str | None:
        """Return the slot of an episode that is remembered."""
        with self._lock:
            known = self._slots.get(episode_id)
            return None if known is None else known[0]

    def forget(self) -> None:
        """Let every episode be decided anew with its next request."""
        with self._lock:
            self._slots.clear()

    def __len__(self) -> int:
        """Count the remembered episodes."""
        return len(self._slots)

    def _keep(self, episode_id: str, slot: str, *, moved: bool) -> None:
        self._slots.put(episode_id, (slot, moved))
