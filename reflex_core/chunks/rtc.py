# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking over requests: what each episode's robot executes now, and how it guides the next chunk.

A chunk guides only once it was delivered: what the deadline threw away or the guard replaced was never executed.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from reflex_core.chunks.alignment import Continued, elapsed_rows, request_key, zero_ns
from reflex_core.chunks.guidance import Guidance, shifted, soft_mask
from reflex_core.concurrency.lru import Lru
from reflex_core.export.binding import Binding
from reflex_core.export.config_schema import GUIDED, OFF, PREFIX
from reflex_core.export.contract import Contract
from reflex_core.robot.callers import episode_key, is_episode
from reflex_core.values import CLOUD, HOLD, LAST_KNOWN_GOOD, POLICY, Floats, Request, Served

FLAG = "real-time chunking"
EPISODES_KEPT = 256
PENDING_KEPT = 64  # answers that are made but not delivered yet; more are never under way at once
MOST_DELAY_SHARE = 0.5  # of the horizon; beyond it a chunk is made from what is seen alone
DELAYS_KEPT = 10  # a windowed maximum: one slow answer is remembered for ten chunks, not for ever


@dataclass(frozen=True, slots=True)
class Previous:
    """A chunk as the network made it, (horizon, width) float32, and time zero of its rows on both clocks.

    base: what its rows start from, as `base_of` gives it; None where they are positions.
    continued: the newest answer that went on with it in place of a chunk of its own, which began at its row.
    own, raw: its rows in the network's and in physical units, (horizon, action_dim), without what changed them later; None before it
    was delivered. executed: its rows as they were corrected after it was delivered, (horizon, action_dim), None where they were not.
    """

    rows: Floats
    request_id: str
    instruction: str
    zero_ns: int
    stamp_ns: int
    base: Floats | None = None
    continued: Continued | None = None
    own: Floats | None = None
    raw: Floats | None = None
    executed: Floats | None = None

    def elapsed_rows(self, request: Request, dt_s: float) -> float | None:
        """Return how many of its rows are over when the request's own chunk begins (alignment.py)."""
        return elapsed_rows(request, self.stamp_ns, dt_s, self.request_id, self.continued)

    def is_executed(self, request: Request) -> bool:
        """Return False for a caller who executes another chunk than the one that was answered last."""
        own = (self.request_id,) if self.continued is None else (self.request_id, self.continued.request_id)
        return request.previous_request_id in ("", *own)


class EpisodeGuidance(NamedTuple):
    """What an episode's previous chunk does to its next one; guidance None: nothing, and `why`.

    executed: the previous chunk as its rows were corrected on their way, None where they were not.
    """

    guidance: Guidance | None = None
    previous: str = ""
    elapsed_rows: float = 0.0
    why: str = ""
    executed: Floats | None = None


@dataclass(slots=True)
class _Episode:
    previous: Previous | None = None
    delays: deque[int] = field(default_factory=lambda: deque(maxlen=DELAYS_KEPT))


def effective_mode(contract: Contract, dt_s: float, unable: str = "") -> tuple[str, str]:
    """Return (mode, why it is off or '') of real-time chunking on this export. unable: why nothing can guide its network."""
    if unable:
        return OFF, f"{FLAG} has no effect: {unable}"
    if dt_s <= 0:
        return OFF, f"{FLAG} has no effect: the rate of the actions is not known, so rows cannot be aligned"
    if contract.rtc.mode == OFF:
        return OFF, f"{FLAG} has no effect: the export's own 'rtc' block switches it off"
    return contract.rtc.mode, ""


class Rtc:
    """The state of every episode of one policy slot. Bounded, thread-safe.

    Order of calls per request: `guidance_for`, `produced`, then `delivered` when the answer leaves, whatever it became.
    """

    def __init__(
        self,
        contract: Contract,
        binding: Binding,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        unable: str = "",
    ) -> None:
        self._clock_ns = clock_ns
        self.mode, self.note = effective_mode(contract, binding.dt_s, unable)
        self._block, self._steps = contract.rtc, contract.flow.steps
        self._shape = (1, contract.horizon, contract.width)
        self._horizon, self._dt_s = binding.horizon, binding.dt_s
        self._columns, self._binding = guided_columns(binding, contract.width), binding
        self._lock = threading.Lock()
        self._episodes: Lru[str, _Episode] = Lru(EPISODES_KEPT, "guidance")
        self._pending: Lru[tuple[str, str, int], Previous] = Lru(PENDING_KEPT)
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """Chunks that were `guided` and delivered, and requests that nothing could guide, by reason."""
        with self._lock:
            return dict(self._counts)

    def guidance_for(self, request: Request) -> EpisodeGuidance:
        """Return how the previous chunk of the request's episode guides the requested one."""
        if self.mode == OFF or request.episode_id is None:
            return EpisodeGuidance()
        with self._lock:
            episode = self._episodes.get(episode_key(request) or "")
            previous = None if episode is None else episode.previous
            delay = max(episode.delays, default=1) if episode is not None else 0
            found = self._guiding(request, previous, delay)
            if found.why:
                self._counts[found.why] += 1
        return found

    def _guiding(self, request: Request, previous: Previous | None, delay: int) -> EpisodeGuidance:
        if previous is None:
            return EpisodeGuidance(why="first")
        if request.max_steps is not None:
            return EpisodeGuidance(why="degraded")
        if previous.instruction != request.observation.instruction:
            return EpisodeGuidance(why="instruction")  # the tail leads to where the robot is no longer wanted
        elapsed = previous.elapsed_rows(request, self._dt_s)
        if elapsed is None:
            return EpisodeGuidance(why="unknown_rows")
        tail = shifted(previous.rows[: self._horizon], elapsed) if elapsed >= 0 else previous.rows[:0]
        if not len(tail):
            return EpisodeGuidance(why="stale")
        if not previous.is_executed(request):
            return EpisodeGuidance(why="other_chunk")  # the caller executes one that was not answered last
        delay = min(delay, len(tail))
        if delay > MOST_DELAY_SHARE * self._horizon or (
            self.mode == PREFIX and delay > self._block.max_delay
        ):
            return EpisodeGuidance(
                why="delay"
            )  # nearly all rows would be the old ones, whatever the robot sees
        now = base_of(request.observation.state, self._binding)
        tail = rebased(tail, previous.rows[: self._horizon], elapsed, previous.base, now, self._binding)
        guidance = self._guidance(tail, delay)
        return EpisodeGuidance(guidance, previous.request_id, elapsed, executed=previous.executed)

    def again(
        self, normalised: Floats, elapsed_rows: float, delay: int,
        before: Floats | None = None, now: Floats | None = None,
    ) -> Guidance:  # fmt: skip
        """Return the guidance of a recorded answer.

        Args:
            normalised: (1, horizon, width), the chunk before it.
            elapsed_rows: Of its record.
            delay: Of its record.
            before: What the chunk's actions start from, as `base_of` gives it; None where they are positions.
            now: What those of the answer start from.
        """
        own = normalised[0, : self._horizon]
        tail = rebased(shifted(own, elapsed_rows), own, elapsed_rows, before, now, self._binding)
        return self._guidance(tail, delay)

    def _guidance(self, tail: Floats, delay: int) -> Guidance:
        target = np.zeros(self._shape, np.float32)
        target[0, : len(tail)] = tail
        end = min(len(tail), delay + self._block.blend_rows)
        weights = soft_mask(delay, end, self._shape[1])[:, None] * self._columns
        beta = self._block.max_guidance_weight or float(self._steps)
        return Guidance(target, weights[None], delay, beta, self.mode, self._block.clean_time)

    def produced(self, request: Request, normalised: Floats) -> None:
        """Store the network's own chunk, (1, horizon, width): it guides the next one if it is delivered."""
        if self.mode == OFF or request.episode_id is None or not np.isfinite(normalised).all():
            return
        observation = request.observation
        previous = Previous(
            normalised[0],
            request.request_id,
            observation.instruction,
            zero_ns(request),
            observation.stamp_ns,
            base_of(observation.state, self._binding),
        )
        with self._lock:
            self._pending.put(request_key(request), previous)

    def delivered(self, request: Request, served: Served) -> None:
        """Note that the answer leaves now. A policy's chunk becomes the executing one; a hold or another policy's ends it.

        A fallback chunk is the tail of the executing one, which stays as it is; unless it is from a late answer that was never
        delivered itself.
        """
        if self.mode == OFF or request.episode_id is None:
            return
        delay_s = (self._clock_ns() - zero_ns(request)) * 1e-9
        with self._lock:
            previous = self._pending.pop(request_key(request))
            if served.chunk.source in (HOLD, CLOUD) or served.hold_reason:
                self._forget(episode_key(request) or "")
            elif served.chunk.source == LAST_KNOWN_GOOD:
                self._continued(request, served)
            elif previous is None:  # another policy made it
                self._forget(episode_key(request) or "")
            elif served.chunk.source == POLICY:
                self._counts["guided"] += bool(served.rtc.mode)
                rows = executed_rows(
                    previous.rows, served.chunk.actions, served.raw_actions, self._binding, previous.base
                )
                previous = replace(previous, rows=rows, own=previous.rows, raw=served.raw_actions)
                self._begin(episode_key(request) or "", previous, math.ceil(delay_s / self._dt_s))

    def _begin(self, episode_id: str, previous: Previous, delay: int) -> None:
        episode = self._episodes.get(episode_id) or _Episode()
        self._episodes.put(episode_id, episode)
        episode.delays.append(min(max(delay, 1), self._horizon))
        if episode.previous is None or episode.previous.zero_ns <= previous.zero_ns:
            episode.previous = previous  # the answer to an older observation may come late

    def consumed(self, episode_id: str | None, rows: int) -> None:
        """Set how many rows of the newest chunk had begun when the robot received it, where the caller knows."""
        with self._lock:
            episode = self._episodes.get(episode_id or "")
            if episode is not None and episode.delays:
                # by the robot's clock; a simulator's need not run as fast as ours
                episode.delays[-1] = min(max(rows, 1), self._horizon)

    def corrected(self, episode_id: str | None, request_id: str, executed: Floats) -> None:
        """Note that an episode's newest chunk is executed otherwise than it was answered: it guides as it is executed.

        executed: (horizon, action_dim), as corrected until now. Nothing for another chunk than the newest.
        """
        with self._lock:
            episode = self._episodes.get(episode_id or "")
            previous = None if episode is None else episode.previous
            if episode is None or previous is None or previous.request_id != request_id:
                return
            if previous.own is not None and previous.raw is not None:
                rows = executed_rows(previous.own, executed, previous.raw, self._binding, previous.base)
                episode.previous = replace(previous, rows=rows, executed=executed)

    def forget(self, episode_id: str | None, robot: str = "") -> None:
        """Drop the newest chunk of an episode, of this robot or any: it is not executed, guides none, nor does its delay count."""
        with self._lock:
            for key, episode in self._episodes.items():
                if is_episode(key, episode_id, robot) and episode.previous is not None:
                    episode.previous = None
                    episode.delays.pop()

    def _continued(self, request: Request, served: Served) -> None:
        """Note that a fallback goes on with the executing chunk; one of another chunk ends it."""
        episode = self._episodes.get(episode_key(request) or "")
        if episode is None or episode.previous is None:
            return
        if episode.previous.request_id != served.fallback.request_id:
            episode.previous = None
            return
        begins = len(episode.previous.rows[: self._horizon]) - len(served.chunk.actions)
        episode.previous = replace(episode.previous, continued=Continued(request.request_id, begins))

    def _forget(self, episode_id: str) -> None:
        episode = self._episodes.get(episode_id)
        if episode is not None:
            episode.previous = None


def executed_rows(
    rows: Floats, executed: Floats, raw: Floats, binding: Binding, base: Floats | None = None
) -> Floats:
    """Return (horizon, width) of the network with the changes of correction head and guard: what the robot executes.

    The same rows where nothing was changed.

    Args:
        rows: (horizon, width), the network's own.
        executed: (horizon, action_dim), after correction and guard.
        raw: (horizon, action_dim), before them.
        binding: Maps actions to the network's columns.
        base: Of the chunk, as `base_of` gives it.
    """
    if executed.shape != raw.shape or executed is raw or executed.tobytes() == raw.tobytes():
        return rows
    changed = rows.copy()
    if binding.tool is not None and base is not None:
        count = min(len(rows), len(raw))
        own = rows[:count, binding.columns]
        changed[:count, binding.columns] += binding.tool.changes(own, executed[:count], raw[:count], base)
        return changed
    added: Floats = (executed - raw)[: len(rows)]
    if binding.relative is not None:
        added = binding.relative.changes(added)
    if binding.action_statistics is not None:
        added = binding.action_statistics.difference(added)
    changed[: len(added), binding.columns] += added
    return changed


def rows_of(executed: Floats | None) -> tuple[tuple[float, ...], ...]:
    """Return the rows as a report and a trace hold them; none for None."""
    return () if executed is None else tuple(map(tuple, executed.tolist()))


def rows_from(recorded: object) -> Floats | None:
    """Return the rows that a trace holds, None where it holds none."""
    if not isinstance(recorded, list) or not recorded:
        return None
    try:
        rows = np.array(recorded, np.float32)
    except (ValueError, TypeError):
        return None
    return rows if rows.ndim == 2 and np.isfinite(rows).all() else None


def base_of(state: Floats | None, binding: Binding) -> Floats | None:
    """Return what the actions made of this state start from, None where they are positions.

    (action_dim,) what offsets are from; of a tool's poses (state_dim,) the measured joints.
    """
    if binding.tool is not None:
        return state
    if binding.relative is None or state is None:
        return None
    return binding.relative.base(state)


def rebased(
    tail: Floats, rows: Floats, elapsed_rows: float, before: Floats | None, now: Floats | None, binding: Binding
) -> Floats:  # fmt: skip
    """Return a chunk's left-over, (n, width) of the network, as one from `now` that leads to the same positions.

    The robot has moved since: without this the old chunk would pull the new one to where it would be if it had not.

    Args:
        tail: (n, width), the rows from `elapsed_rows` on.
        rows: (horizon, width), the whole chunk.
        elapsed_rows: How many of its rows are over.
        before: What the chunk starts from, as `base_of` gives it; None where its rows are positions.
        now: What the next one starts from.
        binding: Maps actions to the network's columns.
    """
    if before is None or now is None:
        return tail
    own = rows[:, binding.columns]
    if binding.tool is not None:
        changed = tail.copy()
        changed[:, binding.columns] = binding.tool.rebased(
            tail[:, binding.columns], own, elapsed_rows, before, now
        )
        return changed
    if binding.relative is None:
        return tail
    statistics = binding.action_statistics
    actions = own if statistics is None else statistics.denormalise(own)
    added = binding.relative.corrected(actions, elapsed_rows, before, now)[: len(tail)]
    changed = tail.copy()
    changed[:, binding.columns] += added if statistics is None else statistics.difference(added)
    return changed


def guided_columns(binding: Binding, width: int) -> Floats:
    """Return (width,) 1 for the network's columns that are the robot's, 0 for padding and two-state grippers.

    A gripper that is half way between two chunks is in neither of the states that they meant.
    """
    columns = np.zeros(width, np.float32)
    columns[binding.columns] = 1.0
    robot, tool = binding.embodiment, binding.tool
    at = dict(enumerate(binding.columns.tolist()))
    if tool is not None:
        at = {other.joint: other.column for other in tool.others}
    for part in () if robot is None else robot.two_ended:
        if part.component_idx in at:
            columns[at[part.component_idx]] = 0.0
    return columns


__all__ = [
    "GUIDED", "OFF", "PREFIX", "EpisodeGuidance", "Previous", "Rtc", "base_of", "effective_mode", "executed_rows", "guided_columns",
    "rebased", "rows_from", "rows_of",
]  # fmt: skip
