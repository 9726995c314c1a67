# SPDX-License-Identifier: Apache-2.0
"""What a load makes: the policies in their slots, and the wedges around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reflex_core.chunks.rtc import Rtc
from reflex_core.chunks.smoothness import Smoothness
from reflex_core.chunks.temporal_ensemble import TemporalEnsemble
from reflex_core.concurrency.circuit_breaker import CLOSED
from reflex_core.engine.episode_listener import EpisodeListener
from reflex_core.engine.load_remote import ConnectRemote
from reflex_core.errors import InferenceError
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.base import Policy, reads_state
from reflex_core.policy.cloud_server import CloudServer
from reflex_core.policy.prefix_cache import PrefixCache
from reflex_core.records.recorder import ConnectTracing, Recorder
from reflex_core.records.trace.schema import Session
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.intake import Intake
from reflex_core.settings.table import Settings
from reflex_core.slots.health import DEGRADED, HEALTHY, is_out, verdict
from reflex_core.slots.outcomes import Outcomes
from reflex_core.slots.pair import Pair
from reflex_core.slots.routing import A, B
from reflex_core.slots.shadow import Shadow
from reflex_core.values import Floats
from reflex_core.wedges.a2c2 import A2C2
from reflex_core.wedges.admission import Admission
from reflex_core.wedges.breaker import Breaker
from reflex_core.wedges.cloud import Cloud
from reflex_core.wedges.deadline import Deadline
from reflex_core.wedges.guard import Guard
from reflex_core.wedges.observation_history import ObservationHistory
from reflex_core.wedges.telemetry import Listener, Telemetry
from reflex_core.wedges.wedge import Proceed, Wedge


@dataclass(frozen=True, slots=True)
class PolicySlot:
    """One policy and what is about it alone. act: its breaker, its correction, its network.

    settings: those it really runs with, after calibration.
    """

    name: str
    policy: Policy
    settings: Settings
    act: Proceed
    wedges: Mapping[str, Wedge]
    breaker: Breaker | None
    cache: PrefixCache | None
    rtc: Rtc | None
    a2c2: A2C2 | None
    first_latency_s: float
    ensemble: TemporalEnsemble | None = None

    def warm_up(self) -> tuple[str, ...]:
        """Run the network twice with its real shapes; return notes for the log. Raises InferenceError."""
        notes = self.policy.capture_graphs()
        for seed in (0, 1):
            actions = self.policy.predict(self.policy.canary(), seed).actions
            if not np.isfinite(actions).all():
                raise InferenceError("warm-up: the model gave NaN or Inf for a plain grey image")
        return (*notes, *self.policy.verify_batches())

    def document(self) -> dict[str, Any]:
        """Return the slot's state for display."""
        breaker = self.breaker
        return {
            "model_id": self.policy.export.model_id,
            "model_version": self.policy.export.model_version,
            "model_hash": self.policy.export.model_hash,
            "inference_mode": self.policy.inference_mode,
            "kind": self.policy.kind,
            "cannot": self.policy.capabilities.lacking(),
            "breaker": CLOSED if breaker is None else breaker.state,
            "consecutive_failures": 0 if breaker is None else breaker.consecutive_failures,
        }


def why_not_fewer_steps(slots: Iterable[PolicySlot]) -> str:
    """Return which export cannot take fewer denoise steps, and why; empty where all can."""
    lacking = ((slot.policy.export.where, slot.policy.capabilities.fewer_steps) for slot in slots)
    return next((f"{path}: {why}" for path, why in lacking if why), "")


@dataclass(frozen=True, slots=True)
class ServingState:
    """What one `load` made; replaced as a whole, so that a request sees all of it or none.

    slots: `prod` alone, or `a` and `b`; policy: that of the first of them. pair: shared by two policies, None with one.
    session: fields of the records' headers.
    close: ends threads, records and the connection to the cloud; requests still inside get their answers.
    """

    slots: Mapping[str, PolicySlot]
    embodiment: Embodiment | None
    telemetry: Telemetry
    guard: Guard
    intake: Intake
    admission: Admission
    deadline: Deadline
    cloud: Cloud | None
    recorders: tuple[Recorder, ...]
    motion: Smoothness
    outcomes: Outcomes
    wedges: Mapping[str, Wedge]
    act: Proceed
    session: Session
    episode_listeners: tuple[EpisodeListener, ...] = ()
    history: ObservationHistory | None = None
    pair: Pair | None = None
    shadow: Shadow | None = None
    shadow_policy: Policy | None = None
    close: Callable[[], None] = lambda: None

    @property
    def first(self) -> PolicySlot:
        """Slot `prod`, or `a`."""
        return next(iter(self.slots.values()))

    @property
    def policy(self) -> Policy:
        """The policy of the first slot: robot, cameras and rate are the same in both."""
        return self.first.policy

    @property
    def first_latency_s(self) -> float:
        """How long a chunk will take, before there was one."""
        return max(slot.first_latency_s for slot in self.slots.values())

    @property
    def execution_horizon(self) -> int:
        """Rows to execute before the next chunk: as the robot says, and no more than a policy was made for.

        One where the chunks of an episode are averaged: the mean is of one prediction per control step.
        """
        if any(slot.ensemble is not None for slot in self.slots.values()):
            return 1
        own = self.embodiment.execution_horizon if self.embodiment else None
        made_for = (slot.policy.contract.n_action_steps for slot in self.slots.values())
        return min((rows for rows in (own, *made_for) if rows), default=self.policy.binding.horizon)

    @property
    def needs_state(self) -> bool:
        """True when a policy reads the robot's state."""
        return any(reads_state(slot.policy) for slot in self.slots.values())

    @property
    def needs_instruction(self) -> bool:
        """True when a policy reads the instruction."""
        return any(slot.policy.contract.language is not None for slot in self.slots.values())

    @property
    def why_not_fewer_steps(self) -> str:
        """Why a policy cannot take fewer denoise steps; empty where all can."""
        return why_not_fewer_steps(self.slots.values())

    @property
    def observation_steps(self) -> int:
        """How many observations the policies and the shadow see, the newest one included."""
        return 1 if self.history is None else self.history.steps

    @property
    def observation_period_s(self) -> float:
        """The time between observations that a policy sees; 0.0 where it sees one."""
        return 0.0 if self.history is None else self.history.period_s

    @property
    def verdict(self) -> str:
        """healthy, drain-a, drain-b, or degraded: no slot answers."""
        if self.pair is None:
            return DEGRADED if is_out(self.first.breaker) else HEALTHY
        return verdict(is_out(self.slots[A].breaker), is_out(self.slots[B].breaker))

    @property
    def breakers(self) -> tuple[Breaker, ...]:
        """Those of all slots; none where they are switched off."""
        return tuple(slot.breaker for slot in self.slots.values() if slot.breaker is not None)

    @property
    def consecutive_failures(self) -> int:
        """Of the slot that is worst off."""
        return max((breaker.consecutive_failures for breaker in self.breakers), default=0)

    def executed(self, episode_id: str | None, first_row: int) -> None:
        """Note that the robot received the newest chunk and goes on at `first_row`."""
        for listener in self.episode_listeners:
            listener.executed(episode_id, first_row)

    def corrected(self, episode_id: str | None, request_id: str, executed: Floats) -> None:
        """Note by which rows, (horizon, action_dim), the robot executes the chunk that answered `request_id`."""
        for listener in self.episode_listeners:
            listener.corrected(episode_id, request_id, executed)

    def not_executed(self, episode_id: str | None) -> None:
        """Note that the robot does not follow the newest chunk: it was stopped, or the chunk came too late."""
        for listener in self.episode_listeners:
            listener.not_executed(episode_id)

    def begins(self, episode_id: str | None, robot: str = "") -> None:
        """Begin an episode, perhaps under the name of an earlier one, of which nothing is carried over.

        robot: the outside robot whose episode it is; "": episodes of that name begin anew whosever they are.
        """
        for listener in self.episode_listeners:
            listener.begins(episode_id, robot)


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What an engine keeps over reloads. `live()` gives the settings as they are now."""

    live: Callable[[], Settings]
    metrics: Metrics
    listeners: list[Listener]
    next_seed: Callable[[], int]
    connect_cloud: Callable[[Settings], CloudServer] | None
    connect_tracing: ConnectTracing | None = None
    connect_remote: ConnectRemote | None = None
