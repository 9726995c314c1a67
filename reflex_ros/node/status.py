# SPDX-License-Identifier: Apache-2.0
"""Fill ~/status: what the node is doing, as plain numbers."""

from __future__ import annotations

from reflex_core.engine.engine import DEGRADED, INACTIVE, READY, Engine
from reflex_core.engine.serving_state import ServingState
from reflex_core.export.config_schema import OFF
from reflex_core.metrics.cadence import worst
from reflex_core.policy.prefix_cache import HIT
from reflex_core.values import ROS
from reflex_ros.msg import ServeStatus
from reflex_ros.node.chunk_loop import ChunkLoop
from reflex_ros.node.diagnostics import trouble
from reflex_ros.node.progress import Progress


def status_message(
    engine: Engine, progress: Progress, loop: ChunkLoop | None, now_ns: int, chunk_rate_hz: float
) -> ServeStatus:
    """Return the status but for stamp, episode and instruction, which the node sets. `now_ns` is on the robot's clock."""
    status = ServeStatus(
        state=_state(engine),
        robot_id=engine.settings.robot_id,
        stopped=loop.stopped if loop else False,
        holding=bool(progress.hold_reason),
        hold_reason=progress.hold_reason,
        problem=_problem(engine, loop),
        latency_ms=progress.latency_ms,
        observation_age_ms=progress.age_ms,
        chunks_total=progress.chunks,
        holds_total=progress.holds,
        errors_total=progress.errors,
        guard_clamped_total=progress.clamped,
        observations_refused_total=progress.refused,
        fallbacks_total=progress.fallbacks,
        policy_slot=progress.slot,
        control=progress.control,
        blend=progress.blend,
        takeovers_total=progress.takeovers,
        chunk_rate_hz=chunk_rate_hz,
    )
    loaded = engine.loaded
    if loaded is not None:
        _describe(status, loaded)
    ticks = worst(engine.metrics.ticks.figures())
    status.tick_late_p50_ms, status.tick_late_p99_ms = ticks.late_p50_s * 1e3, ticks.late_p99_s * 1e3
    status.tick_late_max_ms, status.ticks_skipped_total = ticks.late_max_s * 1e3, ticks.skipped
    running = loop.scheduler.running if loop else None
    status.chunk_remaining_s = running.remaining_s(now_ns) if running else 0.0
    return status


def _state(engine: Engine) -> str:
    """Return the engine's state, but `inactive` where it serves requests alone: it commands no robot then."""
    return INACTIVE if engine.undrivable and engine.state in (READY, DEGRADED) else engine.state


def _problem(engine: Engine, loop: ChunkLoop | None) -> str:
    if loop is None:
        return engine.reason or _undrivable(engine)
    dry_run = ""
    if engine.settings.dry_run:
        moving = loop.progress.first_motion
        dry_run = "dry_run: the first motion moves the robot" if moving else "dry_run: no robot is commanded"
    return "; ".join(filter(None, [dry_run, trouble(loop)]))


def _undrivable(engine: Engine) -> str:
    return f"undrivable: {engine.undrivable}" if engine.undrivable else ""


def _describe(status: ServeStatus, loaded: ServingState) -> None:
    status.embodiment = loaded.embodiment.name if loaded.embodiment else ""
    answering = loaded.slots.get(status.policy_slot, loaded.first).policy
    status.model_version = answering.export.model_version
    status.inference_mode = answering.inference_mode
    status.latency_p50_ms, status.latency_p99_ms = loaded.telemetry.percentiles_ms(50, 99)
    guard = loaded.guard.status(ROS)
    status.guard_tripped = guard.tripped
    status.consecutive_clamps = guard.consecutive_clamps
    status.consecutive_failures = loaded.consecutive_failures
    status.slo_violated = loaded.admission.violated
    status.deadline_misses_total = loaded.deadline.misses
    _describe_chunks(status, loaded)


def _describe_chunks(status: ServeStatus, loaded: ServingState) -> None:
    """Set which policy answers, and how its consecutive chunks fit together."""
    status.policy_verdict = loaded.verdict
    status.split_percent = loaded.pair.operating.split() if loaded.pair else 100
    rtc = loaded.first.rtc
    status.rtc_mode = OFF if rtc is None else rtc.mode
    status.rtc_guided_total = 0 if rtc is None else rtc.counts.get("guided", 0)
    counts = [dict(slot.cache.counts) for slot in loaded.slots.values() if slot.cache is not None]
    hits = sum(count.get(HIT, 0) for count in counts)
    status.cache_hits_total = hits
    status.cache_misses_total = sum(sum(count.values()) for count in counts) - hits
    motion = loaded.motion.figures()
    status.border_jump_p95, status.jerk_rms = motion.border_jump_p95, motion.jerk_rms
    status.overlap_disagreement = motion.overlap_disagreement_mean
    status.late_chunks_total = motion.late_chunks
