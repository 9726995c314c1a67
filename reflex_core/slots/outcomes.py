# SPDX-License-Identifier: Apache-2.0
"""How episodes ended, as people and test benches report it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reflex_core.concurrency.lru import Lru
from reflex_core.errors import ObservationError
from reflex_core.metrics.episodes import ID_CHARACTERS, usable_id
from reflex_core.robot.callers import caller_of
from reflex_core.text.untrusted import shown
from reflex_core.values import Request, Served

EPISODES_KEPT = 10_000
NOTE_LENGTH = 500


class OtherRobotsEpisodeError(ObservationError):
    """The episode is not of the robot that reports its end."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "other-robot")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One report. slot: which one answered the episode, empty when unknown or several. score: the reporter's own scale."""

    episode_id: str
    success: bool
    slot: str = ""
    score: float | None = None
    note: str = ""


class Outcomes:
    """The newest 10,000 episodes that were answered, and how they ended. Thread-safe.

    A second report replaces the first. Listeners are called, in the reporter's thread, with every report and whether it
    is new: a repetition must not count twice.
    """

    def __init__(
        self, listeners: Sequence[Callable[[Outcome, bool], None]] = (), most_episodes: int = EPISODES_KEPT
    ) -> None:
        self._listeners = tuple(listeners)
        self.recorded: Callable[[Outcome], None] = lambda _: None  # set by what records an activation
        self._lock = threading.Lock()
        self._drove: Lru[str, str] = Lru(most_episodes)
        self._first_callers: Lru[str, str] = Lru(most_episodes)  # the caller of an episode's first answer
        self._known: Lru[str, Outcome] = Lru(most_episodes)

    def answered(self, request: Request, served: Served) -> None:
        """Note which slot answers an episode. One that both have answered belongs to neither."""
        episode_id = request.episode_id
        if episode_id is None:
            return
        with self._lock:
            before = self._drove.get(episode_id)
            self._drove.put(episode_id, served.slot if before in (None, served.slot) else "")
            self._first_callers.put(episode_id, self._first_callers.get(episode_id) or caller_of(request))

    def require_own(self, episode_id: str, robot_id: str) -> None:
        """Raise OtherRobotsEpisodeError for an episode whose first answer another caller got; one that is unknown passes."""
        with self._lock:
            caller = self._first_callers.get(episode_id)
        if caller not in (None, robot_id):
            raise OtherRobotsEpisodeError(
                f"this key is for the robot {robot_id!r}, and the episode {shown(episode_id)} is not its own:"
                " its outcome needs that robot's key, or one with the right 'operate'"
            )

    def report(self, episode_id: str, success: bool, score: float | None = None, note: str = "") -> Outcome:
        """Store how an episode ended. Raises ObservationError for an empty report."""
        if not episode_id or not usable_id(episode_id):
            raise ObservationError(
                f"an outcome needs an episode id of 1 to {ID_CHARACTERS} printable characters, not blanks alone, got {len(episode_id)}",
                "bad-episode-id",
            )
        if not isinstance(success, bool):
            raise ObservationError(f"success must be true or false, got {success!r:.40}", "bad-outcome")
        if score is not None and not math.isfinite(score):
            raise ObservationError(f"score must be a finite number, got {score}", "bad-outcome")
        with self._lock:
            outcome = Outcome(
                episode_id, success, self._drove.get(episode_id) or "", score, note[:NOTE_LENGTH]
            )
            before = self._known.get(episode_id)
            self._known.put(episode_id, outcome)
        for listener in self._listeners:
            listener(outcome, before is None or before.success != success)
        self.recorded(outcome)
        return outcome

    def find(self, episode_id: str) -> Outcome | None:
        """Return the last report of an episode; None without one."""
        with self._lock:
            return self._known.get(episode_id)

    def tally(self) -> dict[str, tuple[int, int]]:
        """Return (successes, episodes) by slot, of the episodes in memory."""
        with self._lock:
            known = tuple(self._known.values())
        counts: dict[str, tuple[int, int]] = {}
        for outcome in known:
            successes, episodes = counts.get(outcome.slot, (0, 0))
            counts[outcome.slot] = (successes + outcome.success, episodes + 1)
        return counts
