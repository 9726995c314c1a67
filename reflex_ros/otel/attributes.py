# SPDX-License-Identifier: Apache-2.0
"""Span attributes of a request: the only place that names them. Knows no OpenTelemetry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reflex_core.records.trace.schema import Failure
from reflex_core.robot.callers import caller_of
from reflex_core.values import Request, Served

INSTRUCTION_CHARACTERS = 512
ERROR_CHARACTERS = 200
VIOLATIONS = 16
_OTHER_NAMES = {
    "denoise_steps": "gen_ai.action.denoise_steps",
    "deadline_exceeded": "reflex.deadline.exceeded",
}

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
    wire: str = ""


def finished(request: Request, ended_ns: int, outcome: Served | Failure, seq: int) -> Finished:
    """Return the data of a request for its span. seq: its record in the trace, -1 where there is none."""
    observation = request.observation
    state = observation.state
    return Finished(
        request.request_id,
        request.episode_id,
        observation.instruction,
        0 if state is None else len(state),
        observation.image_bytes,
        observation.age_ms,
        request.traceparent,
        request.tracestate,
        request.received_ns,
        ended_ns,
        outcome,
        seq,
        caller_of(request),
        request.wire,
    )


def attributes(act: Finished, models: Mapping[str, str], embodiment: str) -> Attributes:
    """Return all attributes of the request and its outcome. models: the export directory of each policy slot."""
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
        "reflex.wire": act.wire or None,
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
    chunk, guard, stages_ms = served.chunk, served.guard, served.inference.stages_ms
    return {
        "gen_ai.response.model": served.model_version or None,
        "gen_ai.action.chunk_size": len(served.raw_actions),
        "reflex.slot": served.slot,
        "reflex.model_version": served.model_version,
        "reflex.model_hash": served.model_hash,
        "reflex.config_hash": served.config_hash,
        "reflex.inference_ms": sum(stages_ms.values()),
        "reflex.latency_ms": served.latency_ms,
        "reflex.action_chunk_len": len(chunk.actions),
        "reflex.action_dim": chunk.actions.shape[1],
        "reflex.source": chunk.source,
        "reflex.start_index": chunk.start_index,
        "reflex.seed": served.seed,
        "reflex.hold_reason": served.hold_reason,
        "reflex.injected_latency_ms": served.injected_latency_ms,
        "reflex.guard.violation_count": len(guard.violations),
        **_named("guard.", guard.document() | {"violations": guard.violations[:VIOLATIONS]}),
        **_named("", served.inference.document()),
        **_named("", served.fallback.document()),
        **_named("cache.", served.cache.document()),
        **_named("rtc.", served.rtc.document()),
        **(_named("temporal_ensemble.", served.ensemble.document()) if served.ensemble.present else {}),
        **(_named("a2c2.", served.a2c2.document()) if served.a2c2.present else {}),
        **(_named("routing.", served.routing.document()) if served.routing.present else {}),
        **(_named("history.", _history(served)) if served.history.present else {}),
        **_named("stage.", stages_ms),
    }


def _history(served: Served) -> dict[str, Any]:
    """Return how the history was made up; a span has no list of numbers."""
    return {name: value for name, value in served.history.document().items() if name != "ages_ms"}


def _named(prefix: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a block as attributes."""
    return {_OTHER_NAMES.get(name, f"reflex.{prefix}{name}"): value for name, value in document.items()}


def stages(act: Finished) -> list[tuple[str, int, int]]:
    """Return (name, start, end) of each part of the inference, on the monotonic clock.

    Their durations are measured, their places follow: one after the other, the last one ending where the answer was
    complete. What comes between (the guard, above all) takes well under a millisecond; an injected delay is known.
    """
    served = act.outcome
    if isinstance(served, Failure):
        return []
    end_ns = act.ended_ns - round(served.injected_latency_ms * 1e6)
    laid: list[tuple[str, int, int]] = []
    for name, duration_ms in reversed(list(served.inference.stages_ms.items())):
        start_ns = max(end_ns - round(duration_ms * 1e6), act.received_ns)
        laid.append((name.removesuffix("_ms"), start_ns, max(end_ns, start_ns)))
        end_ns = start_ns
    return laid[::-1]


def _clean(value: Any) -> Attribute | None:
    """Return a value valid for OTLP: numpy scalars as plain ones, text as valid UTF-8; None to leave it out."""
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
