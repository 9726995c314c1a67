# SPDX-License-Identifier: Apache-2.0
"""How episodes ended, as people and test benches report it."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reflex_core.errors import ObservationError

EPISODES_KEPT = 10_000
ID_LENGTH, NOTE_LENGTH = 256, 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """One report. slot: who drove the episode, empty when it is not known here. score: the reporter's own scale."""

    episode_id: str
    success: bool
    slot: str = ""
    score: float | None = None
    note: str = ""


class Outcomes:
    """The newest 10,000 episodes that were reported. A second report replaces the first. Thread-safe.

    slot_of: the slot that an episode ran in. Listeners hear of every report, in the reporter's thread.
    """

    def __init__(
        self,
        slot_of: Callable[[str], str | None],
        listeners: Sequence[Callable[[Outcome], None]] = (),
        most_episodes: int = EPISODES_KEPT,
    ) -> None:
        self._slot_of, self._listeners, self._most = slot_of, tuple(listeners), most_episodes
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Outcome] = OrderedDict()

    def report(self, episode_id: str, success: bool, score: float | None = None, note: str = "") -> Outcome:
        """Keep how an episode ended. Raises ObservationError for a report that says nothing."""
        if not episode_id or len(episode_id) > ID_LENGTH:
            raise ObservationError(
                f"an outcome needs an episode id of 1 to {ID_LENGTH} characters, got {len(episode_id)}",
                "bad-episode-id",
            )
        if not isinstance(success, bool):
            raise ObservationError(f"success must be true or false, got {success!r:.40}", "bad-outcome")
        if score is not None and not math.isfinite(score):
            raise ObservationError(f"score must be a finite number, got {score}", "bad-outcome")
        outcome = Outcome(episode_id, success, self._slot_of(episode_id) or "", score, note[:NOTE_LENGTH])
        with self._lock:
            self._known[episode_id] = outcome
            self._known.move_to_end(episode_id)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        for listener in self._listeners:
            listener(outcome)
        return outcome

    def find(self, episode_id: str) -> Outcome | None:
        """The last report of an episode; None without one."""
        with self._lock:
            return self._known.get(episode_id)

    def tally(self) -> dict[str, tuple[int, int]]:
        """(successes, episodes) by slot, of the episodes that are kept."""
        with self._lock:
            known = tuple(self._known.values())
        counts: dict[str, tuple[int, int]] = {}
        for outcome in known:
            successes, episodes = counts.get(outcome.slot, (0, 0))
            counts[outcome.slot] = (successes + outcome.success, episodes + 1)
        return counts
