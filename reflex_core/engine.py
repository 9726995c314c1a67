# SPDX-License-Identifier: Apache-2.0
"""The engine: one call, `act(request) -> Served`, through the onion. The only place that knows the order."""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reflex_core.embodiment import Embodiment, load_embodiment, load_preset
from reflex_core.errors import InferenceError, NotReadyError, ReflexError
from reflex_core.export import open_export
from reflex_core.locations import embedded_policy
from reflex_core.metrics import Metrics
from reflex_core.policy.policy import Policy, load_policy
from reflex_core.settings import Settings
from reflex_core.values import Observation, Request, Served
from reflex_core.wedges.guard import Guard
from reflex_core.wedges.predict import Predict
from reflex_core.wedges.telemetry import Listener, Telemetry
from reflex_core.wedges.wedge import Proceed, Wedge

# outermost first; a wedge that is not built (yet, or for these settings) is simply absent
ORDER = (
    "telemetry", "admission", "latency", "guard", "deadline", "cloud", "router", "breaker", "a2c2", "policy",
)  # fmt: skip

INITIALIZING, LOADING, INACTIVE, WARMING, READY = "initializing", "loading", "inactive", "warming", "ready"
FAILED = "failed"

log = logging.getLogger(__name__)


def onion(wedges: Mapping[str, Wedge]) -> Proceed:
    """The wedges as one call, in ORDER. Raises ValueError for a wedge that has no place."""
    unplaced = set(wedges) - set(ORDER)
    if unplaced:
        raise ValueError(f"no place in the onion for {', '.join(sorted(unplaced))}")
    call: Proceed = _nobody
    for name in reversed(ORDER):
        if name in wedges:
            call = partial(wedges[name], proceed=call)
    return call


def _nobody(_: Request) -> Served:
    raise InferenceError("the onion has no policy")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one `load` made; replaced as a whole, so that a request sees all of it or none."""

    policy: Policy
    embodiment: Embodiment | None
    telemetry: Telemetry
    guard: Guard
    act: Proceed


class Engine:
    """Loads, warms and serves one policy. `act` may be called from any thread at any time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._lock = threading.Lock()
        self._state = INITIALIZING
        self._loaded: Loaded | None = None
        self._reason = ""
        self._listeners: list[Listener] = []
        base = settings.seed if settings.seed >= 0 else secrets.randbits(48)
        self._base_seed = base
        self._seeds = itertools.count(base)
        self._session_id = secrets.token_hex(4)
        self._request_numbers = itertools.count()

    @property
    def state(self) -> str:
        """initializing, loading, inactive, warming, ready or failed."""
        return self._state

    @property
    def reason(self) -> str:
        """Why the state is `failed`; empty otherwise."""
        return self._reason

    @property
    def loaded(self) -> Loaded | None:
        """The policy and its wedges, or None before `load` and after `unload`."""
        return self._loaded

    def listen(self, listener: Listener) -> None:
        """Hand every finished answer to `listener(request, served)`; it survives a reload."""
        self._listeners.append(listener)

    def load(self, settings: Settings | None = None) -> None:
        """Read export and embodiment and build the onion; ends `inactive`. Raises ConfigurationError, ends `failed`.

        `settings` replaces those of the engine; what a door was started with (address, port) stays as it is.
        """
        with self._lock:
            self.settings = settings or self.settings
            self._enter(LOADING)
            self._loaded = None  # a load that fails must not leave the policy before it within reach
            try:
                self._loaded = self._build()
            except ReflexError as error:
                self._enter(FAILED, str(error))
                raise
            except Exception as error:
                self._enter(FAILED, f"{type(error).__name__}: {error}")
                raise
            self._enter(INACTIVE)

    def warm_up(self) -> None:
        """Run the network twice with its real shapes; ends `ready`. Raises InferenceError, ends `failed`."""
        with self._lock:
            loaded = self._require(INACTIVE, READY)
            self._enter(WARMING)
            try:
                for seed in (0, 1):
                    actions = loaded.policy.predict(loaded.policy.canary(), seed).actions
                    if not np.isfinite(actions).all():
                        raise InferenceError("warm-up: the model gave NaN or Inf for a plain grey image")
            except Exception as error:
                self._enter(FAILED, f"warm-up failed: {error}")
                raise
            self._enter(READY)

    def pause(self) -> None:
        """Stop serving but keep the policy loaded; ends `inactive`, or stays `failed`."""
        with self._lock:
            if self._loaded is not None and self._state != FAILED:
                self._enter(INACTIVE)

    def unload(self) -> None:
        """Drop the policy and its memory; ends `initializing`. A request in flight still gets its answer."""
        with self._lock:
            self._loaded = None
            self._enter(INITIALIZING)

    def act(self, request: Request) -> Served:
        """Answer one request. Raises NotReadyError, ObservationError or InferenceError; never an unchecked chunk."""
        loaded = self._loaded
        if self._state != READY or loaded is None:
            reason = self._reason
            raise NotReadyError(self._state, f"the policy is not serving: {reason}" if reason else None)
        return loaded.act(request)

    def request(
        self,
        observation: Observation,
        *,
        received_ns: int | None = None,
        episode_id: str | None = None,
        request_id: str | None = None,
        seed: int | None = None,
    ) -> Request:
        """A Request with an id of its own where the caller has none. `received_ns` is on the monotonic clock."""
        return Request(
            observation=observation,
            received_ns=time.monotonic_ns() if received_ns is None else received_ns,
            request_id=request_id or f"{self._session_id}-{next(self._request_numbers)}",
            episode_id=episode_id,
            seed=seed,
        )

    def description(self) -> dict[str, Any]:
        """What is effectively served: for /config and the diagnostics."""
        effective: dict[str, Any] = {
            "robot_id": self.settings.robot_id,
            "state": self._state,
            "base_seed": self._base_seed,
        }
        loaded = self._loaded
        if loaded is None:
            return effective
        policy = loaded.policy
        return effective | {
            "model_version": policy.export.model_version,
            "config_hash": policy.export.config_hash,
            "inference_mode": policy.inference_mode,
            "active_providers": list(policy.providers),
            "embodiment": loaded.embodiment.name if loaded.embodiment else None,
            "action_names": list(policy.fit.action_names),
            "state_names": list(policy.fit.state_names),
            "state_dim": policy.fit.state_dim,
            "cameras": dict(policy.fit.cameras),
            "action_horizon": policy.fit.horizon,
            "dt_s": policy.fit.dt_s,
            "actions_denormalised": policy.fit.action_statistics is not None,
            "state_used": policy.contract.state is not None,
            "notes": list(policy.notes),
            "wedges": [name for name in ORDER if name in ("telemetry", "guard", "policy")],
        }

    def _build(self) -> Loaded:
        settings = self.settings
        began = time.perf_counter()
        path = Path(settings.export_dir) if settings.export_dir else embedded_policy()
        export = open_export(path)
        embodiment = self._embodiment(path)
        policy = load_policy(
            export, embodiment, settings.device, settings.intra_op_threads, settings.joint_names
        )
        if embodiment is not None and settings.joint_names:
            embodiment = replace(embodiment, joint_names=policy.fit.action_names)
        name = embodiment.name if embodiment else "none"
        telemetry = Telemetry(name, export.model_id, self.metrics, self._listeners)
        guard = Guard(embodiment, policy.fit.hold_columns, self.metrics)
        wedges: dict[str, Wedge] = {
            "telemetry": telemetry,
            "guard": guard,
            "policy": Predict(policy, "prod", lambda: next(self._seeds)),
        }
        self.metrics.onnx_load_time_s.labels(export.model_id).observe(time.perf_counter() - began)
        self.metrics.robot_info.clear()
        self.metrics.robot_info.labels(settings.robot_id, name, export.model_id).set(1)
        self._log_load(policy, embodiment)
        return Loaded(policy, embodiment, telemetry, guard, onion(wedges))

    def _embodiment(self, export_path: Path) -> Embodiment | None:
        settings = self.settings
        if settings.custom_embodiment_config:
            if settings.embodiment:
                log.warning("--custom-embodiment-config wins over --embodiment %s", settings.embodiment)
            embodiment = load_embodiment(Path(settings.custom_embodiment_config))
        elif settings.embodiment:
            embodiment = load_preset(settings.embodiment)
        elif (export_path / "embodiment.json").is_file():
            embodiment = load_embodiment(export_path / "embodiment.json")
        else:
            return None
        return embodiment

    def _log_load(self, policy: Policy, embodiment: Embodiment | None) -> None:
        log.info(
            "loaded %s on %s for embodiment %s; cameras %s",
            policy.export.model_version, ", ".join(policy.providers),
            embodiment.name if embodiment else "none (raw actions, no joint ranges)", dict(policy.fit.cameras),
        )  # fmt: skip
        for note in policy.notes:
            log.warning("%s: %s", policy.export.path, note)
        if policy.contract.state is None:
            log.warning("%s: this policy does not read the robot state", policy.export.path)
        if policy.fit.action_statistics is None:
            log.warning("%s: no statistics: actions are served as the network gives them", policy.export.path)

    def _require(self, *states: str) -> Loaded:
        if self._loaded is None or self._state not in states:
            raise NotReadyError(
                self._state, f"cannot warm up: state is '{self._state}', load the policy first"
            )
        return self._loaded

    def _enter(self, state: str, reason: str = "") -> None:
        self._state, self._reason = state, reason
        self.metrics.server_up.set(1 if state == READY else 0)
