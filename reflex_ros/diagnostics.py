# SPDX-License-Identifier: Apache-2.0
"""/diagnostics: one status per concern, with the sentence a person at the robot needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from reflex_core.engine import READY, Engine
from reflex_ros.chunk_loop import ChunkLoop

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

WAITING = ("camera_missing", "state_missing", "no_instruction")  # nothing is wrong yet when nothing ever ran


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnostic array."""

    concern: str
    level: bytes
    message: str
    values: Mapping[str, object]


def array_message(findings: list[Finding], node: str, hardware_id: str) -> DiagnosticArray:
    """The findings as a message; the caller stamps it."""
    message = DiagnosticArray()
    for finding in findings:
        values = [KeyValue(key=key, value=str(value)) for key, value in finding.values.items()]
        message.status.append(
            DiagnosticStatus(
                level=finding.level,
                name=f"{node}: {finding.concern}",
                message=finding.message,
                hardware_id=hardware_id,
                values=values,
            )
        )
    return message


def policy_finding(engine: Engine, refusal: str) -> Finding:
    """Is a policy loaded and serving?"""
    description = engine.description()
    values = {key: description[key] for key in ("model_version", "inference_mode") if key in description}
    problem = refusal or engine.reason
    level = OK if engine.state == READY else ERROR if problem else WARN
    return Finding("policy", level, problem or engine.state, values | {"state": engine.state})


def observation_finding(loop: ChunkLoop, ages_ms: Mapping[str, float]) -> Finding:
    """Do the sensors deliver something that may be acted on?"""
    progress = loop.progress
    values: dict[str, object] = {f"{stream} age ms": f"{age:.0f}" for stream, age in ages_ms.items()}
    values |= {"refused": progress.refused, "chunks": progress.chunks, "discarded": progress.discarded}
    if loop.stopped:
        return Finding("observations", WARN, "stopped: call ~/resume to go on", values)
    if not progress.problem:
        return Finding("observations", OK, "fresh", values)
    waiting = progress.problem in WAITING and progress.chunks == 0
    level = WARN if waiting else ERROR
    return Finding("observations", level, f"{progress.problem}: {progress.problem_text}", values)


def timing_finding(loop: ChunkLoop, percentiles_ms: tuple[float, ...], margin_s: float) -> Finding:
    """Does inference keep up with the robot?"""
    p50, p99 = percentiles_ms
    values = {"latency p50 ms": f"{p50:.1f}", "latency p99 ms": f"{p99:.1f}", "errors": loop.progress.errors}
    if loop.pacing.keeps_up(margin_s):
        return Finding("timing", OK, f"chunk in {p50:.0f} ms", values)
    return Finding(
        "timing", WARN, "inference is slower than a chunk lasts: the robot pauses between chunks", values
    )


def guard_finding(loop: ChunkLoop) -> Finding:
    """Did chunks have to be changed before they could leave?"""
    progress = loop.progress
    values = {"clamped chunks": progress.clamped, "holds": progress.holds}
    if progress.hold_reason:
        return Finding("guard", WARN, f"holding: {progress.hold_reason}", values)
    return Finding("guard", OK, f"{progress.clamped} of {progress.chunks} chunks clamped", values)
