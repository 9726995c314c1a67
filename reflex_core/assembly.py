# SPDX-License-Identifier: Apache-2.0
"""From settings to something that answers: export, embodiment, policy and the wedges around it."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from reflex_core.a2c2.correction import load_correction
from reflex_core.audit.log import AuditLog
from reflex_core.cloud import CloudServer, Expected
from reflex_core.embodiment import Embodiment
from reflex_core.errors import ConfigurationError
from reflex_core.limits.config import SafetyConfig, load_safety_config
from reflex_core.loading import load
from reflex_core.metrics import Metrics
from reflex_core.motion import MotionQuality
from reflex_core.onion import onion
from reflex_core.policy.policy import Policy
from reflex_core.policy.rtc import Rtc
from reflex_core.policy.sampler import PLAIN, Sampling
from reflex_core.recorder import Recorder
from reflex_core.settings import Settings
from reflex_core.slo import parse_slo
from reflex_core.trace.session import session_of
from reflex_core.trace.writer import TraceWriter
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, Request
from reflex_core.wedges.a2c2 import A2C2, Outcome
from reflex_core.wedges.admission import DEGRADE, Admission, degraded_steps_of
from reflex_core.wedges.breaker import CLOSED, STATE_NUMBERS, Breaker
from reflex_core.wedges.cloud import Cloud
from reflex_core.wedges.deadline import Deadline
from reflex_core.wedges.guard import Guard, guard_for
from reflex_core.wedges.latency import Latency
from reflex_core.wedges.predict import Predict, template
from reflex_core.wedges.telemetry import Listener, Telemetry
from reflex_core.wedges.wedge import Proceed, Wedge

PROD = "prod"

log = logging.getLogger(__name__)


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one `load` made; replaced as a whole, so that a request sees all of it or none.

    close: ends the records and the connection to the cloud; requests still inside get their answers.
    """

    policy: Policy
    first_latency_s: float
    embodiment: Embodiment | None
    telemetry: Telemetry
    guard: Guard
    admission: Admission
    breaker: Breaker | None
    deadline: Deadline
    cloud: Cloud | None
    recorders: tuple[Recorder, ...]
    motion: MotionQuality
    wedges: Mapping[str, Wedge]
    act: Proceed
    rtc: Rtc | None = None
    close: Callable[[], None] = _nothing

    def executed(self, episode_id: str | None, first_row: int) -> None:
        """A door handed the newest chunk to the robot, which goes on at `first_row`."""
        if self.rtc is not None:
            self.rtc.consumed(episode_id, first_row + 1)

    def not_executed(self, episode_id: str | None) -> None:
        """The robot of a door does not follow the newest chunk: it was stopped, or the chunk came too late."""
        self.guard.forget()
        if self.rtc is not None:
            self.rtc.forget(episode_id)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an engine keeps over reloads. `live()` gives the settings as they are now."""

    live: Callable[[], Settings]
    metrics: Metrics
    listeners: list[Listener]
    next_seed: Callable[[], int]
    connect_cloud: Callable[[Settings], CloudServer] | None


def assemble(settings: Settings, around: Surroundings) -> Loaded:
    """Load everything the settings name. Raises ConfigurationError in one sentence, and leaves nothing open then."""
    with ExitStack() as opened:
        loaded = _assembled(settings, around, opened)
        return replace(loaded, close=opened.pop_all().close)


def _assembled(settings: Settings, around: Surroundings, opened: ExitStack) -> Loaded:
    began = time.perf_counter()
    found = load(settings, around.metrics)
    policy = found.policy
    if found.tracker is not None:
        opened.callback(found.tracker.close)
    embodiment, fit, model_id = policy.fit.embodiment, policy.fit, policy.export.model_id
    name = embodiment.name if embodiment else "none"
    metrics = around.metrics
    guard = guard_for(embodiment, fit.hold_columns, metrics, _safety(settings), fit.action_names, fit.dt_s)
    admission = _admission(settings, policy, name, around)
    breaker = _breaker(settings, metrics)
    deadline = _deadline(policy, guard, name, around)
    cache = policy.prefix_cache(settings.prefix_cache_max_age_ms) if settings.prefix_cache else None
    rtc = _rtc(settings, policy)
    predict = Predict(policy, PROD, around.next_seed, _sampling(settings, policy, around.live), cache, rtc)
    a2c2 = _a2c2(settings, policy, guard, around)
    cloud = _cloud(settings, policy, name, around)
    if cloud is not None:
        opened.callback(cloud.close)
    recorders = _recorders(settings, policy)
    for recorder in recorders:
        opened.callback(recorder.close)
    trace = next((recorder for recorder in recorders if isinstance(recorder, TraceWriter)), None)
    trackers: list[Listener] = [found.tracker] if found.tracker else []
    trackers += [rtc.delivered] if rtc else []
    ends = (embodiment.gripper, embodiment.payload_release) if embodiment else ()
    motion = MotionQuality([end.component_idx for end in ends if end is not None])
    trackers.append(motion)
    telemetry = Telemetry(
        name, model_id, metrics, around.listeners, recorders,
        trace.next_seq if trace else None, trackers,
    )  # fmt: skip
    wedges: dict[str, Wedge | None] = {
        "telemetry": telemetry,
        "admission": admission,
        "latency": Latency(lambda: around.live().inject_latency_ms),
        "guard": guard,
        "deadline": deadline,
        "cloud": cloud,
        "breaker": breaker,
        "a2c2": a2c2,
        "policy": predict,
    }
    built = {place: wedge for place, wedge in wedges.items() if wedge is not None}
    metrics.recorders.watched = recorders
    metrics.onnx_load_time_s.labels(model_id).observe(time.perf_counter() - began)
    metrics.robot_info.clear()
    metrics.robot_info.labels(settings.robot_id, name, model_id).set(1)
    return Loaded(
        policy=policy,
        first_latency_s=found.first_latency_s,
        embodiment=embodiment,
        telemetry=telemetry,
        guard=guard,
        admission=admission,
        breaker=breaker,
        deadline=deadline,
        cloud=cloud,
        recorders=recorders,
        motion=motion,
        wedges=built,
        act=onion(built),
        rtc=rtc,
    )


def _recorders(settings: Settings, policy: Policy) -> tuple[Recorder, ...]:
    export, found = policy.export, list[Recorder]()
    if settings.audit_log:
        found.append(AuditLog(
            Path(settings.audit_log), robot_id=settings.robot_id, model_version=export.model_version,
            model_hash=export.model_hash, config_hash=export.config_hash, retention_days=settings.audit_retention_days,
        ))  # fmt: skip
    if settings.record:
        session = session_of(
            policy, policy.fit.embodiment, settings.robot_id, settings=dataclasses.asdict(settings)
        )
        found.append(TraceWriter(
            Path(settings.record), session, images=settings.record_images, gzip=not settings.record_no_gzip
        ))  # fmt: skip
    return tuple(found)


def _safety(settings: Settings) -> SafetyConfig | None:
    return load_safety_config(Path(settings.safety_config)) if settings.safety_config else None


def _admission(settings: Settings, policy: Policy, embodiment: str, around: Surroundings) -> Admission:
    if settings.slo and settings.slo_mode == DEGRADE and policy.contract.baked:
        parse_slo(settings.slo)  # a text that is no objective is the first thing to say
        raise ConfigurationError(
            f"--slo-mode degrade (the default): {policy.export.path}: its denoise loop is baked into one graph, so it cannot take"
            " fewer steps; take --slo-mode 503 or log_only",
            "slo-degrade-baked",
        )
    return Admission(
        lambda: around.live().slo,
        lambda: around.live().slo_mode,
        degraded_steps_of(policy.contract.flow.steps),
        lambda kind: around.metrics.slo_violations.labels(embodiment, kind),
    )


def _rtc(settings: Settings, policy: Policy) -> Rtc | None:
    if not settings.rtc:
        return None
    rtc = policy.rtc()
    if rtc.note:
        log.warning("%s: %s", policy.export.path, rtc.note)
    return rtc


def _a2c2(settings: Settings, policy: Policy, guard: Guard, around: Surroundings) -> A2C2 | None:
    if not settings.a2c2_checkpoint:
        return None
    metrics = around.metrics

    def count(outcome: Outcome) -> None:
        family = metrics.a2c2_applied if outcome.applied else metrics.a2c2_skipped
        family.labels(outcome.reason).inc()

    return A2C2(
        load_correction(Path(settings.a2c2_checkpoint), policy.fit),
        latency_threshold_ms=settings.a2c2_latency_threshold_ms,
        newest=lambda request: request.newest() if request.newest else None,
        previous=guard.hold_position,
        injected_ms=lambda: around.live().inject_latency_ms,
        on_outcome=count,
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


def _cloud(settings: Settings, policy: Policy, embodiment: str, around: Surroundings) -> Cloud | None:
    if not settings.cloud_fallback:
        return None
    if around.connect_cloud is None:
        raise ConfigurationError(
            "--cloud-fallback: this engine was made without a connection to other servers"
        )
    expected = Expected(policy.fit.action_names, policy.fit.dt_s, policy.fit.horizon)
    return Cloud(
        around.connect_cloud(settings), expected, timeout_ms=settings.cloud_timeout_ms,
        hedge_ms=settings.cloud_hedge_ms, metrics=around.metrics, embodiment=embodiment,
    )  # fmt: skip


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
