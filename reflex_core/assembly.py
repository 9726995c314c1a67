# SPDX-License-Identifier: Apache-2.0
"""From settings to something that answers: export, embodiment, policy and the wedges around it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from reflex_core.embodiment import Embodiment, load_embodiment, load_preset
from reflex_core.errors import ConfigurationError
from reflex_core.export import open_export
from reflex_core.limits.config import SafetyConfig, load_safety_config
from reflex_core.locations import embedded_policy
from reflex_core.metrics import Metrics
from reflex_core.onion import onion
from reflex_core.policy.policy import Policy, load_policy
from reflex_core.policy.sampler import PLAIN, Sampling
from reflex_core.settings import Settings
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, Request, Served
from reflex_core.wedges.admission import DEGRADE, Admission, degraded_steps_of
from reflex_core.wedges.breaker import CLOSED, STATE_NUMBERS, Breaker
from reflex_core.wedges.deadline import Deadline
from reflex_core.wedges.guard import Guard, guard_for
from reflex_core.wedges.latency import Latency
from reflex_core.wedges.predict import Predict, template
from reflex_core.wedges.telemetry import Listener, Telemetry
from reflex_core.wedges.wedge import Proceed, Wedge

PROD = "prod"

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Writes finished answers somewhere. `problem` is empty while that works."""

    kind: str

    @property
    def problem(self) -> str: ...

    def __call__(self, request: Request, served: Served) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one `load` made; replaced as a whole, so that a request sees all of it or none."""

    policy: Policy
    embodiment: Embodiment | None
    telemetry: Telemetry
    guard: Guard
    admission: Admission
    breaker: Breaker | None
    deadline: Deadline
    recorders: tuple[Recorder, ...]
    wedges: Mapping[str, Wedge]
    act: Proceed


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an engine keeps over reloads. `live()` gives the settings as they are now."""

    live: Callable[[], Settings]
    metrics: Metrics
    listeners: list[Listener]
    next_seed: Callable[[], int]


def assemble(settings: Settings, around: Surroundings) -> Loaded:
    """Load everything the settings name. Raises ConfigurationError in one sentence."""
    began = time.perf_counter()
    path = Path(settings.export_dir) if settings.export_dir else embedded_policy()
    export = open_export(path)
    policy = load_policy(
        export, _embodiment(settings, path), settings.device, settings.intra_op_threads, settings.joint_names
    )
    embodiment = policy.fit.embodiment
    name = embodiment.name if embodiment else "none"
    metrics = around.metrics
    telemetry = Telemetry(name, export.model_id, metrics, around.listeners)
    guard = guard_for(
        embodiment,
        policy.fit.hold_columns,
        metrics,
        _safety(settings),
        policy.fit.action_names,
        policy.fit.dt_s,
    )
    admission = _admission(settings, policy, name, around)
    breaker = _breaker(settings, metrics)
    deadline = _deadline(policy, guard, name, around)
    wedges: dict[str, Wedge] = {
        "telemetry": telemetry,
        "admission": admission,
        "latency": Latency(lambda: around.live().inject_latency_ms),
        "guard": guard,
        "deadline": deadline,
        "policy": Predict(policy, PROD, around.next_seed, _sampling(settings, policy, around.live)),
    }
    if breaker is not None:
        wedges["breaker"] = breaker
    metrics.onnx_load_time_s.labels(export.model_id).observe(time.perf_counter() - began)
    metrics.robot_info.clear()
    metrics.robot_info.labels(settings.robot_id, name, export.model_id).set(1)
    _log_load(policy, embodiment)
    return Loaded(
        policy, embodiment, telemetry, guard, admission, breaker, deadline, (), wedges, onion(wedges)
    )


def _safety(settings: Settings) -> SafetyConfig | None:
    return load_safety_config(Path(settings.safety_config)) if settings.safety_config else None


def _admission(settings: Settings, policy: Policy, embodiment: str, around: Surroundings) -> Admission:
    if settings.slo and settings.slo_mode == DEGRADE and policy.contract.baked:
        raise ConfigurationError(
            f"--slo-mode degrade: {policy.export.path}: its denoise loop is baked into one graph, so it cannot take"
            " fewer steps; take --slo-mode 503 or log_only",
            "slo-degrade-baked",
        )
    return Admission(
        lambda: around.live().slo,
        lambda: around.live().slo_mode,
        degraded_steps_of(policy.contract.flow.steps),
        lambda kind: around.metrics.slo_violations.labels(embodiment, kind),
    )


def _breaker(settings: Settings, metrics: Metrics) -> Breaker | None:
    gauge = metrics.breaker_state.labels(PROD)
    gauge.set(STATE_NUMBERS[CLOSED])
    if settings.max_consecutive_crashes == 0:
        return None
    return Breaker(
        settings.max_consecutive_crashes,
        settings.breaker_cooldown_s,
        PROD,
        lambda state: gauge.set(STATE_NUMBERS[state]),
    )


def _deadline(policy: Policy, guard: Guard, embodiment: str, around: Surroundings) -> Deadline:
    metrics = around.metrics
    return Deadline(
        lambda: around.live().deadline_ms,
        lambda: around.live().max_fallback_age_ms,
        guard.hold_position,
        template(policy, PROD),
        metrics.deadline_misses.labels(embodiment),
        {
            source: metrics.fallback_invocations.labels(embodiment, source)
            for source in (LAST_KNOWN_GOOD, HOLD)
        },
        metrics.holds.labels("deadline"),
    )


def _sampling(
    settings: Settings, policy: Policy, live: Callable[[], Settings]
) -> Callable[[Request], Sampling]:
    """How each request is sampled: all steps, fewer while the service is degraded, or as many as it takes."""
    if not settings.adaptive_steps:
        return lambda request: PLAIN if request.max_steps is None else Sampling(request.max_steps)
    calibrated = policy.adaptive(settings.adaptive_threshold)

    def sampling(request: Request) -> Sampling:
        threshold = live().adaptive_threshold or calibrated.threshold
        return Sampling(request.max_steps, replace(calibrated, threshold=threshold))

    return sampling


def _embodiment(settings: Settings, export_path: Path) -> Embodiment | None:
    if settings.custom_embodiment_config:
        if settings.embodiment:
            log.warning("--custom-embodiment-config wins over --embodiment %s", settings.embodiment)
        return load_embodiment(Path(settings.custom_embodiment_config))
    if settings.embodiment:
        return load_preset(settings.embodiment)
    own = export_path / "embodiment.json"
    return load_embodiment(own) if own.is_file() else None


def _log_load(policy: Policy, embodiment: Embodiment | None) -> None:
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
