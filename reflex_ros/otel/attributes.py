# SPDX-License-Identifier: Apache-2.0
"""What a span says of a request: the only place that names span attributes. Knows no OpenTelemetry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reflex_core.records.trace.hashing import size_bytes
from reflex_core.records.trace.schema import Failure
from reflex_core.robot.callers import caller_of
from reflex_core.values import Request, Served

INSTRUCTION_CHARACTERS = 512
ERROR_CHARACTERS = 200
VIOLATIONS = 16

Attribute = str | bool | int | float | Sequence[str]
Attributes = dict[str, Attribute]


@dataclass(slots=True)
class Finished:
    """What is kept of a request until its span is made; no frames, so that a slow receiver holds no pictures.

    Times are on the monotonic clock. Not frozen: it is made on the time of the request, where that costs more.
    """

    request_id: str
    episode_id: str | None
    instruction: str
    state_dim: int
    image_bytes: int
    age_ms: float
    traceparent: str
    tracestate: str
    received_ns: int
    ended_ns: int
    outcome: Served | Failure
    seq: int
    caller: str = ""


def finished(request: Request, ended_ns: int, outcome: Served | Failure, seq: int) -> Finished:
    """The request as it is kept. seq: its record in the trace, -1 where there is none."""
    observation = request.observation
    state = observation.state
    return Finished(
        request.request_id,
        request.episode_id,
        observation.instruction,
        0 if state is None else len(state),
        size_bytes(observation) - (0 if state is None else state.nbytes),
        observation.age_ms,
        request.traceparent,
        request.tracestate,
        request.received_ns,
        ended_ns,
        outcome,
        seq,
        caller_of(request),
    )


def attributes(act: Finished, models: Mapping[str, str], embodiment: str) -> Attributes:
    """Everything about the request and what came of it. models: the export directory of each policy slot."""
    outcome = act.outcome
    # which of two policies failed is not known here
    only = next(iter(models.values())) if len(models) == 1 else None
    made: dict[str, Any] = {
        "gen_ai.operation.name": "act",
        "gen_ai.request.model": models.get(outcome.slot, only) if isinstance(outcome, Served) else only,
        "gen_ai.action.embodiment": embodiment,
        # without a trace there is no record to be found
        "reflex.record.seq": act.seq if act.seq >= 0 else None,
        "reflex.request_id": act.request_id,
        "reflex.episode_id": act.episode_id,
        "reflex.caller": act.caller or None,
        "reflex.instruction": act.instruction[:INSTRUCTION_CHARACTERS],
        "reflex.state_dim": act.state_dim,
        "reflex.image_bytes": act.image_bytes,
        "reflex.observation_age_ms": act.age_ms,
    }
    if isinstance(outcome, Failure):
        made["error.type"] = outcome.slug[:ERROR_CHARACTERS]
    else:
        made |= _served(outcome)
    return {name: clean for name, value in made.items() if (clean := _clean(value)) is not None}


def _served(served: Served) -> dict[str, Any]:
    chunk, guard = served.chunk, served.guard
    return {
        "gen_ai.response.model": served.model_version or None,
        "gen_ai.action.chunk_size": len(served.raw_actions),
        "gen_ai.action.denoise_steps": served.denoise_steps,
        "reflex.slot": served.slot,
        "reflex.model_version": served.model_version,
        "reflex.model_hash": served.model_hash,
        "reflex.config_hash": served.config_hash,
        "reflex.inference_mode": served.inference_mode,
        "reflex.inference_ms": sum(served.stages_ms.values()),
        "reflex.latency_ms": served.latency_ms,
        "reflex.action_chunk_len": len(chunk.actions),
        "reflex.action_dim": chunk.actions.shape[1],
        "reflex.source": chunk.source,
        "reflex.start_index": chunk.start_index,
        "reflex.seed": served.seed,
        "reflex.hold_reason": served.hold_reason,
        "reflex.denoise_steps_configured": served.denoise_steps_configured,
        "reflex.adaptive_enabled": served.adaptive_enabled,
        "reflex.instruction_tokens_cut": served.tokens_cut,
        "reflex.injected_latency_ms": served.injected_latency_ms,
        "reflex.guard.clamped": guard.clamped,
        "reflex.guard.clamp_count": guard.clamp_count,
        "reflex.guard.violation_count": len(guard.violations),
        "reflex.guard.violations": guard.violations[:VIOLATIONS],
        "reflex.deadline.exceeded": served.deadline_exceeded,
        "reflex.fallback_age_ms": served.fallback_age_ms,
        "reflex.cache.status": served.cache_status,
        "reflex.cache.age_ms": served.cache_age_ms,
        "reflex.rtc.mode": served.rtc_mode,
        "reflex.rtc.delay": served.rtc_delay,
        "reflex.rtc.previous": served.rtc_previous,
        **{f"reflex.a2c2.{name}": value for name, value in served.a2c2.items()},
        **{f"reflex.routing.{name}": value for name, value in served.routing.items()},
        **{f"reflex.stage.{name}": value for name, value in served.stages_ms.items()},
    }


def stages(act: Finished) -> list[tuple[str, int, int]]:
    """(name, start, end) of each part of the inference, on the monotonic clock.

    Their durations are measured, their places follow: one after the other, the last one ending where the answer was
    complete. What comes between (the guard, above all) takes well under a millisecond; an injected delay is known.
    """
    served = act.outcome
    if isinstance(served, Failure):
        return []
    end_ns = act.ended_ns - round(served.injected_latency_ms * 1e6)
    laid: list[tuple[str, int, int]] = []
    for name, duration_ms in reversed(list(served.stages_ms.items())):
        start_ns = max(end_ns - round(duration_ms * 1e6), act.received_ns)
        laid.append((name.removesuffix("_ms"), start_ns, max(end_ns, start_ns)))
        end_ns = start_ns
    return laid[::-1]


def _clean(value: Any) -> Attribute | None:
    """What OTLP takes: numpy scalars as plain ones, text that can be written as UTF-8. None leaves it out."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_text(str(item)) for item in value]
    return None if value is None else _text(str(value))


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode("utf-8")
