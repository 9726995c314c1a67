# SPDX-License-Identifier: Apache-2.0
"""The wedges that all policies of a server share, made from the settings."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from reflex_core.engine.serving_state import EngineContext, PolicySlot, why_not_fewer_steps
from reflex_core.errors import ConfigurationError, SettingError
from reflex_core.policy.base import Policy, reads_state
from reflex_core.policy.cloud_server import Expected
from reflex_core.records.audit.log import AuditLog
from reflex_core.records.recorder import Recorder
from reflex_core.records.trace.header import limits_document, session_of
from reflex_core.records.trace.schema import Session
from reflex_core.records.trace.writer import TraceWriter
from reflex_core.robot.gripper_shares import NO_ENDS
from reflex_core.robot.intake import Intake
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.safety_config import SafetyConfig, load_safety_config
from reflex_core.robot.plausibility import state_range
from reflex_core.settings.table import Settings
from reflex_core.settings.wire_keys import key_map
from reflex_core.text.untrusted import escaped
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, Request, Served
from reflex_core.wedges.admission import AUTO, DEGRADE, Admission, degraded_steps_of, mode_of
from reflex_core.wedges.cloud import Cloud
from reflex_core.wedges.deadline import FAILED, GIVEN_UP, KEPT, Deadline
from reflex_core.wedges.guard import Guard, guard_for
from reflex_core.wedges.observation_history import ObservationHistory

log = logging.getLogger(__name__)


def build_guard(
    settings: Settings, policy: Policy, prototype: Callable[[Request], Served], around: EngineContext
) -> Guard:
    """Build the guard of the robot that the policy is bound to, tightened by the safety file."""
    binding = policy.binding
    return guard_for(
        binding.embodiment, binding.hold_columns, around.metrics, _safety(settings), binding.action_names, binding.dt_s, prototype,
        settings.plausibility_margin_rad, binding.state_names, path_tolerance_rad=settings.path_tolerance_rad,
    )  # fmt: skip


def _safety(settings: Settings) -> SafetyConfig | None:
    return load_safety_config(Path(settings.safety_config)) if settings.safety_config else None


def build_admission(
    settings: Settings, slots: dict[str, PolicySlot], robot: str, intake: Intake, around: EngineContext
) -> Admission:
    """Build the check of requests and the latency objective. Raises ConfigurationError where `degrade` could not take effect."""
    unable = why_not_fewer_steps(slots.values())
    if settings.slo and settings.slo_mode == DEGRADE and unable:
        raise ConfigurationError(
            f"--slo-mode degrade: {unable}; take --slo-mode 503 or log_only", "slo-degrade-baked"
        )
    if settings.slo and settings.slo_mode == AUTO:
        log.info(
            "--slo-mode auto is %s: %s", mode_of(AUTO, bool(unable)), unable or "it can take fewer steps"
        )
    return Admission(
        lambda: around.live().slo,
        lambda: mode_of(around.live().slo_mode, bool(unable)),
        degraded_steps_of(min(slot.policy.contract.flow.steps for slot in slots.values())),
        lambda kind: around.metrics.slo_violations.labels(robot, kind),
        check=intake,
    )


def build_history(policies: Sequence[Policy], around: EngineContext) -> ObservationHistory | None:
    """Build what completes observations for policies that see several; None where none does."""
    furthest = max(policies, key=lambda policy: policy.contract.observation_steps)
    steps = furthest.contract.observation_steps
    if steps == 1:
        return None
    return ObservationHistory(steps, furthest.binding.dt_s, around.metrics.history_filled.labels)


def build_intake(settings: Settings, slots: dict[str, PolicySlot]) -> Intake:
    """Build the check of what an observation must bring for the loaded policies."""
    policies = [slot.policy for slot in slots.values()]
    binding = policies[0].binding
    return Intake(
        reads_language=any(policy.contract.language is not None for policy in policies),
        states=state_range(
            binding.embodiment, binding.state_names, binding.hold_columns, settings.plausibility_margin_rad
        ),
        state_names=binding.state_names,
        check_state=next((policy.checked_state for policy in policies if reads_state(policy)), None),
    )


def require_gripper_ends(settings: Settings, policy: Policy) -> None:
    """Raise SettingError where `wire_keys` names a share of a gripper's way and no gripper's ends are known."""
    for key, end in key_map(settings.wire_keys).shares:
        if not policy.binding.grippers:
            raise SettingError(
                f"setting 'wire_keys' says '{escaped(key, 80)}:{end}', the share of the way to a gripper's {end} end, and {NO_ENDS}"
            )


def build_deadline(
    guard: Guard, robot: str, prototype: Callable[[Request], Served], around: EngineContext
) -> Deadline:
    """Build the deadline. prototype: fields of a hold in place of this request's answer, besides its position."""
    metrics = around.metrics
    return Deadline(
        lambda: around.live().deadline_ms,
        lambda: around.live().max_fallback_age_ms,
        guard.hold_position,
        prototype,
        metrics.deadline_misses.labels(robot),
        {source: metrics.fallback_invocations.labels(robot, source) for source in (LAST_KNOWN_GOOD, HOLD)},
        metrics.holds.labels("deadline"),
        finished={name: metrics.late_inferences.labels(robot, name) for name in (KEPT, FAILED, GIVEN_UP)},
    )


def build_cloud(settings: Settings, policy: Policy, robot: str, around: EngineContext) -> Cloud | None:
    """Build the fallback to another server; None without one."""
    if not settings.cloud_fallback:
        return None
    if around.connect_cloud is None:
        raise ConfigurationError(
            "--cloud-fallback: this engine was made without a connection to other servers"
        )
    expected = Expected(policy.binding.action_names, policy.binding.dt_s, policy.binding.horizon)
    return Cloud(
        around.connect_cloud(settings), expected, timeout_ms=settings.cloud_timeout_ms,
        hedge_ms=settings.cloud_hedge_ms, metrics=around.metrics, embodiment=robot,
    )  # fmt: skip


def describe_session(settings: Settings, slots: dict[str, PolicySlot], limits: Limits | None) -> Session:
    """Return the loaded policies, and the limits of their guard, as the header of a trace or a bag records them."""
    first = next(iter(slots.values()))
    session = session_of(
        first.policy, first.policy.binding.embodiment, settings.robot_id,
        policies=_policies(slots) if len(slots) > 1 else (),
        settings=dataclasses.asdict(first.settings),
    )  # fmt: skip
    steps = max(slot.policy.contract.observation_steps for slot in slots.values())
    return dataclasses.replace(session, observation_steps=steps, limits=limits_document(limits))


def build_recorders(
    settings: Settings, slots: dict[str, PolicySlot], session: Session
) -> tuple[Recorder, ...]:
    """Build the enabled recorders: audit log, trace."""
    export, found = next(iter(slots.values())).policy.export, list[Recorder]()
    if settings.audit_log:
        found.append(AuditLog(
            Path(settings.audit_log), robot_id=settings.robot_id, model_version=export.model_version,
            model_hash=export.model_hash, config_hash=export.config_hash, retention_days=settings.audit_retention_days,
        ))  # fmt: skip
    if settings.record:
        found.append(TraceWriter(
            Path(settings.record), session, images=settings.record_images, gzip=not settings.record_no_gzip
        ))  # fmt: skip
    return tuple(found)


def build_tracing(
    settings: Settings, slots: dict[str, PolicySlot], robot: str, around: EngineContext
) -> Recorder:
    """Build the recorder of spans. Raises ConfigurationError when nothing here can send them."""
    if around.connect_tracing is None:
        raise ConfigurationError(
            "--otel-endpoint: this engine was made without a connection to a receiver of spans"
        )
    models = {name: slot.policy.export.where for name, slot in slots.items()}
    return around.connect_tracing(settings, models, robot)


def _policies(slots: dict[str, PolicySlot]) -> tuple[dict[str, str], ...]:
    """Return the `policies` block of a trace's header."""
    exports = {name: slot.policy.export for name, slot in slots.items()}
    return tuple(
        {
            "slot": name,
            "model_id": export.model_id,
            "model_hash": export.model_hash,
            "config_hash": export.config_hash,
        }
        for name, export in exports.items()
    )
