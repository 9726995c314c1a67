# SPDX-License-Identifier: Apache-2.0
"""The engine: one call, `act(request) -> Served`, and the states around it."""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from reflex_core.concurrency.circuit_breaker import CLOSED
from reflex_core.concurrency.progress import report
from reflex_core.engine import describe
from reflex_core.engine.build import assemble
from reflex_core.engine.load_remote import ConnectRemote
from reflex_core.engine.serving_state import EngineContext, ServingState
from reflex_core.engine.validation import require_sound
from reflex_core.errors import InferenceError, NotReadyError, ObservationError, ReflexError
from reflex_core.images.opencv import opencv
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.cloud_server import CloudServer
from reflex_core.records.audit.log import AuditLog
from reflex_core.records.recorder import ConnectTracing
from reflex_core.settings.table import Settings
from reflex_core.slots.changing import Swap, SwapError
from reflex_core.slots.health import DEGRADED as NO_SLOT
from reflex_core.slots.outcomes import Outcome
from reflex_core.slots.pair import Pair
from reflex_core.values import ROS, Observation, Request, Served
from reflex_core.wedges.telemetry import Listener

INITIALIZING, LOADING, INACTIVE, WARMING, READY = "initializing", "loading", "inactive", "warming", "ready"
FAILED, DEGRADED = "failed", "degraded"

log = logging.getLogger(__name__)


class Engine:
    """Loads, warms and serves one policy. `act` may be called from any thread at any time."""

    def __init__(
        self,
        settings: Settings,
        connect_cloud: Callable[[Settings], CloudServer] | None = None,
        connect_tracing: ConnectTracing | None = None,
        check: Callable[[Settings], None] = require_sound,
        connect_remote: ConnectRemote | None = None,
    ) -> None:
        """Make an engine that has loaded nothing.

        Args:
            settings: Of every load, until `load` replaces them.
            connect_cloud: Connects to the server of `cloud_fallback`; the core itself has no HTTP.
            connect_tracing: Opens the recorder that sends spans to `otel_endpoint`, at every load.
            check: Raises ConfigurationError for settings that are wrong whatever the model is, before one is loaded.
            connect_remote: Connects to the server that runs a policy in place of an export.
        """
        self._check = check
        self.settings = settings
        self.metrics = Metrics()
        self._lock, self._settings_lock = threading.Lock(), threading.Lock()
        self._state = INITIALIZING
        self._loaded: ServingState | None = None
        self._reason = ""
        # why the node around it commands no robot with what is loaded; empty where it may, and without a node
        self.undrivable = ""
        # where the node around it sends the commands of each group, by the group's name; empty without a node
        self.addresses: Mapping[str, str] = {}
        # who commands the robot of the node around it, one of CONTROLS; empty without one, and while it is not active
        self.commander: Callable[[], str] = lambda: ""
        self._listeners: list[Listener] = []
        base = settings.seed if settings.seed >= 0 else secrets.randbits(48)
        self._base_seed = base
        seeds = itertools.count(base)
        self._around = EngineContext(
            lambda: self.settings,
            self.metrics,
            self._listeners,
            lambda: next(seeds),
            connect_cloud,
            connect_tracing,
            connect_remote,
        )
        self._session_id = secrets.token_hex(4)
        self._request_numbers = itertools.count()

    @property
    def state(self) -> str:
        """initializing, loading, inactive, warming, ready, failed, or degraded: ready but for the breaker of every slot."""
        loaded, state = self._loaded, self._state
        if state == READY and loaded is not None and loaded.verdict == NO_SLOT:
            return DEGRADED
        return state

    @property
    def reason(self) -> str:
        """Why the state is `failed`; empty otherwise."""
        return self._reason

    @property
    def loaded(self) -> ServingState | None:
        """The policy and its wedges, or None before `load` and after `unload`."""
        return self._loaded

    def listen(self, listener: Listener) -> None:
        """Hand every finished answer to `listener(request, served)`; it survives a reload."""
        self._listeners.append(listener)

    def load(self, settings: Settings | None = None) -> None:
        """Read export and embodiment and build the middleware chain; ends `inactive`. Raises ConfigurationError, ends `failed`.

        `settings` replaces those of the engine; what an interface was started with (address, port) stays as it is.
        """
        with self._lock:
            self.settings = settings or self.settings
            self._enter(LOADING)
            self._drop()  # a load that fails must not leave the policy before it within reach
            try:
                self._check(self.settings)
                self._loaded = loaded = assemble(self.settings, self._around)
            except ReflexError as error:
                self._enter(FAILED, str(error))
                raise
            except Exception as error:
                self._enter(FAILED, f"{type(error).__name__}: {error}")
                raise
            if loaded.pair is not None:
                loaded.pair.operating.listen(self._swapped)
            self._enter(INACTIVE)

    def warm_up(self) -> None:
        """Run the network twice with its real shapes; ends `ready`. Raises InferenceError, ends `failed`.

        OpenCV is imported where a robot may be waiting for the first answer; else the first picture that needs it does so.
        """
        with self._lock:
            loaded = self._require(INACTIVE, READY)
            self._enter(WARMING)
            try:
                if _may_be_in_a_hurry(self.settings):
                    opencv()
                for done, slot in enumerate(loaded.slots.values()):
                    report(done / len(loaded.slots), "warming up", slot.policy.export.model_version)
                    for note in slot.warm_up():
                        log.warning("%s", note)
                report(1.0, "warming up")
            except Exception as error:
                self._enter(FAILED, f"warm-up failed: {error}")
                raise
            self._enter(READY)

    def pause(self) -> None:
        """Stop serving but keep the policy loaded; ends `inactive`, or stays `failed`."""
        with self._lock:
            if self._loaded is not None and self._state != FAILED:
                self._enter(INACTIVE)

    def adjust(self, settings: Settings) -> None:
        """Apply new values of settings that may change while serving; the others wait for the next load.

        The split is not among them: `pair().operating` changes it.
        """
        with self._settings_lock:
            self.settings = replace(settings, split=self.settings.split)

    def reset_guard(self, caller: str | None = None) -> bool:
        """Take a caller whose guard is tripped back into service; True when it was tripped.

        caller: None means the only one that is tripped, which must not be the ROS robot. Raises NotReadyError before
        `load`, CallerError for a caller that never sent a request, or where it is not clear who is meant.
        """
        loaded = self._loaded
        if loaded is None:
            raise NotReadyError(self._state, "no policy is loaded, so there is no guard to reset")
        trips = loaded.guard.trips
        named = trips.only() if caller is None else trips.named(caller)
        was_tripped = loaded.guard.reset(named) if named else False
        for recorder in loaded.recorders:
            if isinstance(recorder, AuditLog):
                recorder.event("guard-reset", was_tripped=was_tripped, caller=named)
        return was_tripped

    def reset_breaker(self) -> bool:
        """Close the circuit breakers; True when one was not closed. Raises NotReadyError where there is none."""
        loaded = self._loaded
        if loaded is None or not loaded.breakers:
            raise NotReadyError(self._state, "there is no circuit breaker to reset")
        was_open = any(breaker.state != CLOSED for breaker in loaded.breakers)
        for breaker in loaded.breakers:
            breaker.reset()
        return was_open

    def pair(self) -> Pair:
        """Return what two policies share. Raises SwapError where one policy is served, NotReadyError before `load`."""
        loaded = self._loaded
        if loaded is None:
            raise NotReadyError(self._state, "no policy is loaded")
        if loaded.pair is None:
            raise SwapError(
                "one policy is served: start with --policy-a and --policy-b to share episodes",
                "single-policy",
            )
        return loaded.pair

    def report_outcome(
        self, episode_id: str, success: bool, score: float | None = None, note: str = "", robot_id: str = ""
    ) -> Outcome:
        """Store how an episode ended. robot_id: that may report its own episodes alone; "": all may be reported.

        Raises NotReadyError before `load`, ObservationError for an empty report, OtherRobotsEpisodeError.
        """
        loaded = self._loaded
        if loaded is None:
            raise NotReadyError(self._state, "no policy is loaded")
        if robot_id:
            loaded.outcomes.require_own(episode_id, robot_id)
        return loaded.outcomes.report(episode_id, success, score, note)

    def unload(self) -> None:
        """Drop the policy and its memory; ends `initializing`. A request in flight still gets its answer."""
        with self._lock:
            self._drop()
            self._enter(INITIALIZING)

    def act(self, request: Request) -> Served:
        """Answer one request. Raises NotReadyError, ObservationError or InferenceError; never an unchecked chunk."""
        loaded = self._serving()
        try:
            return loaded.act(request)
        except (Exception, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # extensions written in Rust panic with what is no Exception
            raise InferenceError(
                f"the policy panicked: {type(error).__name__}: {str(error)[:200]}"
            ) from error

    def observe(self, request: Request) -> int:
        """Keep an observation for the next ones of its episode, without an inference; return how many are kept.

        0 where the policy sees one observation. Raises NotReadyError, ObservationError.
        """
        loaded = self._serving()
        try:
            loaded.intake.check_sensors(request.observation)
            if loaded.history is None:
                return 0
            alone = replace(request.observation, history=())
            for slot in loaded.slots.values():
                slot.policy.arrays(
                    alone
                )  # what an inference would refuse would be refused in a later request
            return loaded.history.observe(request)
        except ObservationError as error:
            self.metrics.errors.labels(error.slug).inc()
            raise

    def _serving(self) -> ServingState:
        """Return what is served. Raises NotReadyError, counted."""
        loaded = self._loaded
        if self._state != READY or loaded is None:
            reason = self._reason
            self.metrics.errors.labels(NotReadyError.slug).inc()
            raise NotReadyError(self._state, f"the policy is not serving: {reason}" if reason else None)
        return loaded

    def request(
        self,
        observation: Observation,
        *,
        received_ns: int | None = None,
        episode_id: str | None = None,
        request_id: str | None = None,
        seed: int | None = None,
        forwarded: bool = False,
        elapsed_rows: float | None = None,
        previous_request_id: str = "",
        traceparent: str = "",
        tracestate: str = "",
        caller: str = "",
        wire: str = ROS,
        useful_until_ns: int | None = None,
    ) -> Request:
        """Make a Request, with a new id where the caller gave none. `received_ns` is on the monotonic clock."""
        return Request(
            observation=observation,
            received_ns=time.monotonic_ns() if received_ns is None else received_ns,
            request_id=request_id or f"{self._session_id}-{next(self._request_numbers)}",
            episode_id=episode_id,
            seed=seed,
            forwarded=forwarded,
            elapsed_rows=elapsed_rows,
            previous_request_id=previous_request_id,
            traceparent=traceparent,
            tracestate=tracestate,
            caller=caller,
            wire=wire,
            useful_until_ns=useful_until_ns,
        )

    def description(self) -> dict[str, Any]:
        """Return what is effectively served: for /config and the diagnostics."""
        effective: dict[str, Any] = {
            "robot_id": self.settings.robot_id,
            "state": self._state,
            "base_seed": self._base_seed,
            "undrivable": self.undrivable,
            "control": self.commander(),
        }
        loaded = self._loaded
        if loaded is None:
            return effective
        groups = describe.groups(loaded, self.settings.output, self.addresses)
        return effective | describe.effective(loaded) | {"groups": groups, "policies": self.policies()}

    def policies(self) -> dict[str, Any]:
        """Describe every slot, and where there are two the split, its history and the monitor."""
        loaded = self._loaded
        if loaded is None:
            return {"mode": "none", "verdict": self._state, "slots": {}}
        return describe.policies(loaded)

    def _swapped(self, swap: Swap) -> None:
        """Write a change of the split to the settings, from any caller."""
        with self._settings_lock:
            self.settings = replace(self.settings, split=swap.to_split)

    def _drop(self) -> None:
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.close()

    def _require(self, *states: str) -> ServingState:
        if self._loaded is None or self._state not in states:
            raise NotReadyError(
                self._state, f"cannot warm up: state is '{self._state}', load the policy first"
            )
        return self._loaded

    def _enter(self, state: str, reason: str = "") -> None:
        self._state, self._reason = state, reason
        self.metrics.server_up.set(1 if state == READY else 0)


def _may_be_in_a_hurry(settings: Settings) -> bool:
    """Return whether a robot is named, or answers have a time limit, or every one of them scales its pictures."""
    named = settings.embodiment or settings.custom_embodiment_config
    ports = settings.lerobot_port >= 0 or settings.groot_port >= 0
    scales = settings.prefix_cache or settings.a2c2_checkpoint
    return bool(named or ports or settings.deadline_ms or scales)
