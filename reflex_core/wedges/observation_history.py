# SPDX-License-Identifier: Apache-2.0
"""Observation history: complete each observation by those before it, for policies that see several."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from reflex_core.concurrency.lru import Lru
from reflex_core.errors import ObservationError
from reflex_core.metrics.counters import Counts
from reflex_core.robot.callers import robot_of
from reflex_core.robot.recent import Moment, Recent
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.values import ROS, HistoryReport, Observation, Request, Served
from reflex_core.wedges.wedge import Proceed

EPISODES_KEPT = 64
MOST_BYTES = 512 << 20  # of pictures and states, all episodes together
START, GAP, NO_EPISODE = "start", "gap", "no_episode"
REASONS = (START, GAP, NO_EPISODE)

log = logging.getLogger(__name__)

Key = tuple[str, str]  # robot, episode


@dataclass(slots=True)
class _Episode:
    """began_ns: when its first observation was made. recent: those that came without a history of their own."""

    began_ns: int
    recent: Recent[Observation]

    @property
    def size_bytes(self) -> int:
        return sum(observation.size_bytes for observation in self.recent.values)


class ObservationHistory:
    """Give every request the `steps` - 1 observations before its own, one control period apart.

    What a request brings itself (the node's observation buffer, a client's `history`) is taken as it is. Otherwise the
    episode's earlier observations are, those nearest to one period apart. Where too few are known the oldest stands for
    those before it, as LeRobot begins an episode; where there should be more, because the caller asks less often than the
    policy looks back, that is logged. Requests without an episode share nothing. Outermost, so that records, the other
    server and the shadow get what the policy got. Thread-safe, bounded in episodes and bytes.
    """

    def __init__(
        self, steps: int, period_s: float, filled: Callable[[str], Counts], most_bytes: int = MOST_BYTES
    ) -> None:
        """Keep nothing yet.

        Args:
            steps: How many observations the policies see, 2 or more.
            period_s: Of control.
            filled: Counts requests whose history was filled, by one of REASONS.
            most_bytes: Of kept observations.
        """
        self.steps, self.period_s = steps, period_s
        self._period_ns, self._most_bytes = round(period_s * 1e9), most_bytes
        self._filled = {reason: filled(reason) for reason in REASONS}
        self._lock = threading.Lock()
        self._episodes: Lru[Key, _Episode] = Lru(EPISODES_KEPT, "observations")
        self._log = RateLimitedLog(log)

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        completed = self._completed(request)
        try:
            return proceed(completed)
        except ObservationError:  # nothing that a policy refuses is looked back at
            self._take_back(request)
            raise

    def observe(self, request: Request) -> int:
        """Keep an observation without an inference; return how many its episode has now. Raises ObservationError."""
        if request.episode_id is None:
            raise ObservationError(
                "an observation is kept for the next ones of its episode: 'observe_only' needs an 'episode_id'",
                "missing-episode-id",
            )
        with self._lock:
            episode = self._episode(request)
            self._keep(episode, request)
            return len(episode.recent.values)

    def forget(self, episode_id: str | None, robot: str = "") -> None:
        """Drop what is kept of an episode that begins anew; robot: whose, "" for any."""
        with self._lock:
            for key in [key for key in self._episodes if key[1] == episode_id and robot in ("", key[0])]:
                self._episodes.pop(key)

    @property
    def size_bytes(self) -> int:
        """Memory of the kept observations."""
        with self._lock:
            return sum(episode.size_bytes for episode in self._episodes.values())

    def _completed(self, request: Request) -> Request:
        observation, at_ns = request.observation, _at_ns(request)
        given = observation.history[1 - self.steps :]
        kept: tuple[Moment[Observation], ...] = ()
        expected = self.steps - 1
        if request.episode_id is not None:
            with self._lock:
                episode = self._episode(request)
                periods = (at_ns - episode.began_ns) / self._period_ns
                expected = min(expected, round(periods))
                if (
                    not given and request.caller != ROS
                ):  # the node's buffer has looked back as far as it could
                    kept = episode.recent.before(at_ns)
                    self._keep(episode, request)
        known = given or tuple(moment.value for moment in kept)
        report = HistoryReport(
            self.steps, len(given), len(kept), self.steps - 1 - len(known),
            self._ages_ms(observation, at_ns, [moment.at_ns for moment in kept]),
        )  # fmt: skip
        self._note(request, report, expected)
        whole = replace(observation, history=known)
        return replace(request, observation=replace(whole, history=whole.earlier(self.steps)), history=report)

    def _ages_ms(self, observation: Observation, at_ns: int, kept_ns: list[int]) -> tuple[float | None, ...]:
        """Return the age of every earlier observation, those that are filled included."""
        known: list[float | None] = [(at_ns - one_ns) * 1e-6 for one_ns in kept_ns]
        for one in observation.history[1 - self.steps :]:
            stamped = one.stamp_ns and observation.stamp_ns
            known.append((observation.stamp_ns - one.stamp_ns) * 1e-6 if stamped else None)
        oldest = known[0] if known else 0.0
        return (oldest,) * (self.steps - 1 - len(known)) + tuple(known)

    def _note(self, request: Request, report: HistoryReport, expected: int) -> None:
        """Count, and where it is not an episode's beginning log, that the history was filled."""
        if not report.filled:
            return
        known = report.given + report.kept
        if request.episode_id is None and not known:
            self._filled[NO_EPISODE].inc()
        elif known >= expected or request.episode_id is None:
            self._filled[START].inc()
        else:
            self._filled[GAP].inc()
            text = (
                "request %.80r of episode %.80r: the policy looks back %d observations of %.0f ms each, and of the episode %d"
                " were there: the oldest stands for the others; ask or send observations (observe_only) at that rate, or"
                " send 'history'"
            )
            period_ms = self._period_ns * 1e-6
            self._log(
                logging.WARNING, GAP, text, request.request_id, request.episode_id, self.steps - 1, period_ms, known
            )  # fmt: skip

    def _episode(self, request: Request) -> _Episode:
        """Return the episode of a request, which begins where it is not known or its clock was set back. Needs the lock."""
        key, at_ns = _key(request), _at_ns(request)
        episode = self._episodes.get(key)
        if episode is None or at_ns < episode.began_ns - self.steps * self._period_ns:
            episode = _Episode(at_ns, Recent(self._period_ns, self.steps))
        self._episodes.put(key, episode)
        return episode

    def _keep(self, episode: _Episode, request: Request) -> None:
        """Keep the observation of a request. Needs the lock."""
        episode.recent.add(_at_ns(request), replace(request.observation, history=()))
        total = sum(one.size_bytes for one in self._episodes.values())
        while total > self._most_bytes and len(self._episodes) > 1:
            total -= self._episodes.pop_oldest()[1].size_bytes

    def _take_back(self, request: Request) -> None:
        if request.episode_id is None:
            return
        with self._lock:
            episode = self._episodes.get(_key(request))
            if episode is not None:
                episode.recent.remove_at(_at_ns(request))


def _key(request: Request) -> Key:
    return robot_of(request), request.episode_id or ""


def _at_ns(request: Request) -> int:
    """Return when the observation was made: its stamp, or for one without when it came."""
    return request.observation.stamp_ns or request.received_ns
