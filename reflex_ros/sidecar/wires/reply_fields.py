# SPDX-License-Identifier: Apache-2.0
"""The one declaration of a reply's fields: reply, its `reflex` block and /openapi.json are made from these rows.

The fields of the blocks of `Served` (reflex_core/reports.py) are in the reply without a row, with the type that they have there;
a row gives one of them a place, a meaning or another name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reflex_core import __version__
from reflex_core.policy.base import Policy
from reflex_core.reports import NO_CACHE, NO_FALLBACK, NOT_CHECKED, NOT_CORRECTED, NOT_GUIDED, Document
from reflex_core.values import POLICY, Inference
from reflex_ros.sidecar.wires.schema import (
    FLAG,
    INTEGER,
    NUMBER,
    NUMBER_BY_NAME,
    OBJECT,
    ROWS,
    TEXT,
    TEXT_BY_NAME,
    TEXTS,
    Schema,
    object_of,
    or_null,
    schema_of,
)
from reflex_ros.sidecar.wires.wire import Answered, Observed

BLOCK = "reflex"

# what clients know by other names than the values have here
_OTHER_NAMES = {"denoise_steps": "denoising_steps", "denoise_steps_configured": "num_denoising_steps"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and what several fields of its reply need. percentiles_ms: p50, p95 and p99 of the newest answers."""

    answered: Answered
    policy: Policy
    percentiles_ms: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ReplyField:
    """One field of a reply.

    value: None where a block of `Served` has it. place: where the same value is in the `reflex` block, "" for nowhere.
    kept: the field is no duplicate of that place for which programs should use the place.
    """

    name: str
    meaning: str
    schema: Schema
    value: Callable[[Answer], Any] | None = None
    place: str = ""
    kept: bool = True

    @property
    def deprecated(self) -> bool:
        """True where programs should read it in the `reflex` block."""
        return self.place != "" and not self.kept


def _ms(value: float) -> float:
    return round(value, 3)


def _latency(answer: Answer) -> float:
    return answer.answered.served.latency_ms


def _cameras_used(answer: Answer) -> list[str]:
    return [name for name in answer.policy.binding.cameras.values() if name in answer.answered.cameras]


def _conditioning(answer: Answer) -> str:
    contract = answer.policy.contract
    return "real" if contract.images or contract.language else "none"


def _fallback(answer: Answer) -> str | None:
    source = answer.answered.served.chunk.source
    return source if source != POLICY else None


def _kept(
    name: str, meaning: str, schema: Schema, value: Callable[[Answer], Any], place: str = ""
) -> ReplyField:
    return ReplyField(name, meaning, schema, value, place)


def _twice(name: str, place: str, meaning: str, schema: Schema, value: Callable[[Answer], Any]) -> ReplyField:
    return ReplyField(name, meaning, schema, value, place, kept=False)


def _of_block(name: str, place: str, meaning: str, schema: Schema, *, kept: bool = False) -> ReplyField:
    return ReplyField(name, meaning, schema, None, place, kept)


_GUARD = object_of({name: schema_of(value) for name, value in NOT_CHECKED.document().items()})
# fmt: off
_ROWS = (
    _kept("actions", "rows of numbers in the order of `action_names`; row i is due (i + 1) * `dt_s` after the observation",
          ROWS, lambda a: np.ascontiguousarray(a.answered.served.chunk.actions)),
    _twice("num_actions", "chunk.rows", "rows of `actions`", INTEGER, lambda a: a.answered.served.chunk.actions.shape[0]),
    _twice("action_dim", "chunk.columns", "columns of `actions`", INTEGER, lambda a: a.answered.served.chunk.actions.shape[1]),
    _kept("action_names", "joint or quantity of each column", TEXTS, lambda a: a.answered.served.chunk.names),
    _kept("dt_s", "seconds from row to row", NUMBER, lambda a: a.answered.served.chunk.dt_s, "chunk.dt_s"),
    _kept("start_index", "the first row that is still to be executed", INTEGER,
          lambda a: a.answered.served.chunk.start_index, "chunk.start_index"),
    _kept("source", "policy, or the fallback: last_known_good, cloud, hold", TEXT,
          lambda a: a.answered.served.chunk.source, "chunk.source"),
    _kept("latency_ms", "from the receipt of the request to the finished chunk", NUMBER,
          lambda a: _ms(_latency(a)), "timing.latency_ms"),
    _twice("hz", "timing.hz", "1000 / `latency_ms`", NUMBER, lambda a: round(1e3 / _latency(a), 1) if _latency(a) > 0 else 0.0),
    _twice("stages_ms", "timing.stages_ms", "named parts of the latency", NUMBER_BY_NAME,
           lambda a: {name: _ms(duration) for name, duration in a.answered.served.inference.stages_ms.items()}),
    _twice("latency_p50_ms", "timing.p50_ms", "median latency of the newest answers", NUMBER, lambda a: _ms(a.percentiles_ms[0])),
    _twice("latency_p95_ms", "timing.p95_ms", "95th percentile of the same", NUMBER, lambda a: _ms(a.percentiles_ms[1])),
    _twice("latency_p99_ms", "timing.p99_ms", "99th percentile of the same", NUMBER, lambda a: _ms(a.percentiles_ms[2])),
    _twice("jitter_ms", "timing.jitter_ms", "99th percentile less the median", NUMBER,
           lambda a: _ms(a.percentiles_ms[2] - a.percentiles_ms[0])),
    _kept("injected_latency_ms", "part of the latency that was added on purpose", NUMBER,
          lambda a: a.answered.served.injected_latency_ms, "timing.injected_ms"),
    _of_block("inference_mode", "inference.mode", "onnx_cpu, onnx_gpu, onnx_trt_fp16, onnx_trt_fp32, remote, or cloud", TEXT, kept=True),
    _twice("provider_mode", "inference.mode", "the same as `inference_mode`", TEXT, lambda a: a.answered.served.inference.mode),
    _twice("active_providers", "inference.providers", "execution providers of the policy", TEXTS, lambda a: a.policy.providers),
    _twice("vlm_conditioning", "inference.vlm_conditioning", "real, or none where the policy sees and reads nothing", TEXT,
           _conditioning),
    _of_block("adaptive_enabled", "inference.adaptive_enabled", "denoising may stop early", FLAG, kept=True),
    _kept("adaptive_steps_used", "denoise steps that were taken", INTEGER,
          lambda a: a.answered.served.inference.denoise_steps, "inference.denoise_steps"),
    _of_block("denoising_steps", "inference.denoise_steps", "the same as `adaptive_steps_used`", INTEGER),
    _of_block("num_denoising_steps", "inference.denoise_steps_configured", "denoise steps of a full inference", INTEGER),
    _kept("guard_clamped", "the guard changed the chunk", FLAG, lambda a: a.answered.served.guard.clamped),
    _kept("guard_violations", "joint, bound, value and limit of each change", TEXTS,
          lambda a: a.answered.served.guard.violations),
    _twice("guard_summary", "guard", "what the guard changed", _GUARD,
           lambda a: a.answered.served.guard.document()),
    _of_block("deadline_exceeded", "fallback.deadline_exceeded", "the chunk was not there in time", FLAG),
    _twice("deadline_misses_total", "fallback.deadline_misses_total", "how often that happened since the start", INTEGER,
           lambda a: a.answered.loaded.deadline.misses),
    _twice("fallback_target", "fallback.target", "what was sent in place of the policy's chunk, null for its own",
           or_null(TEXT), _fallback),
    _of_block("fallback_age_ms", "fallback.age_ms", "age of the fallback chunk", NUMBER),
    _kept("hold_reason", "why the chunk is a hold: non_finite, guard_tripped, deadline; empty otherwise", TEXT,
          lambda a: a.answered.served.hold_reason, "chunk.hold_reason"),
    _of_block("instruction_tokens_cut", "request.instruction_tokens_cut",
              "tokens of the instruction that the policy's window has no room for", INTEGER),
    _kept("masked_cameras", "cameras that the policy reads and that gave no image", TEXTS,
          lambda a: a.answered.served.inference.masked_cameras, "request.masked_cameras"),
    _of_block("cache_status", "cache.status", "use of the episode's cached prefix: hit, miss, or n/a", TEXT),
    _of_block("cache_age_ms", "cache.age_ms", "how much older than the observation the prefix was", NUMBER),
    _of_block("rtc_mode", "rtc.mode", "how the previous chunk guided this one; empty where it did not", TEXT),
    _of_block("rtc_delay", "rtc.delay", "rows taken over from the previous chunk", INTEGER),
    _of_block("rtc_previous", "rtc.previous", "`request_id` of the guiding chunk", TEXT),
    _kept("rtc_reason", "why the previous chunk did not guide this one, `moved` where another server made it; empty otherwise", TEXT,
          lambda a: a.answered.served.rtc.reason, "rtc.reason"),
    _of_block("a2c2_applied", "a2c2.applied", "the correction head changed the chunk", FLAG),
    _of_block("a2c2_reason", "a2c2.reason", "why it did or did not; empty without a head", TEXT),
    _of_block("a2c2_correction_magnitude", "a2c2.correction_magnitude", "L2 norm of the correction", NUMBER),
    _kept("seed", "seed of the noise: the same request with it gives the same chunk", INTEGER,
          lambda a: a.answered.served.seed, "request.seed"),
    _twice("policy_slot", "policy.slot", "prod, or a or b of two policies", TEXT, lambda a: a.answered.served.slot),
    _twice("routing", "routing", "where the request went of two policies; null with one", or_null(OBJECT),
           lambda a: a.answered.served.routing.document() if a.answered.served.routing.present else None),
    _kept("model_version", "name and hash of the policy", TEXT, lambda a: a.answered.served.model_version, "policy.model_version"),
    _twice("model_hash", "policy.model_hash", "hash of its networks", TEXT, lambda a: a.answered.served.model_hash),
    _twice("config_hash", "policy.config_hash", "hash of its configuration", TEXT, lambda a: a.answered.served.config_hash),
    _kept("reflex_version", "version of the server", TEXT, lambda _: __version__, "server.reflex_version"),
    _kept("robot_id", "the server's", TEXT, lambda a: a.answered.robot_id, "server.robot_id"),
    _kept("request_id", "the request's, or one that the server made", TEXT,
          lambda a: a.answered.served.request_id, "request.request_id"),
    _kept("episode_id", "the request's", or_null(TEXT), lambda a: a.answered.served.episode_id, "request.episode_id"),
    _twice("caller", "request.caller", "the guard's name for the client", TEXT, lambda a: a.answered.caller),
    _kept("cameras_used", "cameras whose image the policy read", TEXTS, _cameras_used, "request.cameras_used"),
    _kept("ignored_fields", "fields of the request that are not read", TEXTS,
          lambda a: a.answered.ignored.names, "request.ignored_fields"),
    _kept("did_you_mean", "by ignored field, the known one that it resembles", TEXT_BY_NAME,
          lambda a: dict(a.answered.ignored.meant), "request.did_you_mean"),
)
# fmt: on
_ROW = {row.name: row for row in _ROWS}
_NO_INFERENCE = Inference("", 0)
_PREFIXES = ("cache", "rtc", "a2c2")  # of blocks whose fields have its name before theirs


def _empty_blocks() -> Document:
    """Return the fields of every block with the values for no cache, no guidance and no correction."""
    made: Document = {}
    for name, value in _NO_INFERENCE.document().items():
        made[_OTHER_NAMES.get(name, name)] = value
    _add(made, "", NO_FALLBACK.document())
    for prefix, block in (("cache_", NO_CACHE), ("rtc_", NOT_GUIDED), ("a2c2_", NOT_CORRECTED)):
        _add(made, prefix, block.document())
    return made


def _add(made: Document, prefix: str, document: Document) -> None:
    """Add the fields of a block, times rounded to a tenth of a millisecond."""
    for name, value in document.items():
        made[prefix + name] = round(value, 1) if name.endswith("_ms") else value


def _derived(empty: Document) -> Iterator[ReplyField]:
    """Yield a row for each field of a block that has none."""
    for name, value in empty.items():
        if name not in _ROW:
            prefix, _, rest = name.partition("_")
            place = f"{prefix}.{rest}" if prefix in _PREFIXES else f"inference.{name}"
            yield ReplyField(name, f"see `{BLOCK}.{place}`", schema_of(value), None, place, kept=False)


_EMPTY_BLOCKS = _empty_blocks()
FIELDS: tuple[ReplyField, ...] = (*_ROWS, *_derived(_EMPTY_BLOCKS))
_EMPTY: Document = {field.name: _EMPTY_BLOCKS.get(field.name) for field in FIELDS}
_VALUES = tuple((field.name, field.value) for field in FIELDS if field.value is not None)


def _groups() -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    """Return (name, names inside, fields of the reply) of each group of the `reflex` block; no names inside for a single value."""
    inside: dict[str, dict[str, str]] = {}
    for place, name in _PLACES:
        inside.setdefault(place[0], {})[place[1] if len(place) > 1 else ""] = name
    return tuple(
        (group, () if "" in found else tuple(found), tuple(found.values())) for group, found in inside.items()
    )


# one name for each place: what has two has the same value
_PLACES = tuple({tuple(field.place.split(".")): field.name for field in FIELDS if field.place}.items())
_GROUPS = _groups()
_SOMETIMES = ("history", "temporal_ensemble")  # in a reply where there is something to report


def reply_fields(answered: Answered) -> Document:
    """Return the fields of a reply by name, in their order, then the `reflex` block; `actions` is a float32 array."""
    served, loaded = answered.served, answered.loaded
    p50, p95, p99 = loaded.telemetry.percentiles_ms(50, 95, 99)
    answer = Answer(answered, loaded.slots.get(served.slot, loaded.first).policy, (p50, p95, p99))
    made = _EMPTY.copy()
    for name, value in _VALUES:
        made[name] = value(answer)
    for name, value in served.inference.document().items():
        made[_OTHER_NAMES.get(name, name)] = value
    if served.fallback is not NO_FALLBACK:
        _add(made, "", served.fallback.document())
    for prefix, block in (("cache_", served.cache), ("rtc_", served.rtc), ("a2c2_", served.a2c2)):
        if block.present:
            _add(made, prefix, block.document())
    for name, whole in (("history", served.history), ("temporal_ensemble", served.ensemble)):
        if whole.present:
            made[name] = whole.document()
    made[BLOCK] = block_of(made)
    return made


def block_of(made: Document) -> Document:
    """Return the `reflex` block of a reply's fields: the same values in groups, for people and for new programs."""
    block: Document = {}
    for group, inside, names in _GROUPS:
        block[group] = (
            dict(zip(inside, map(made.__getitem__, names), strict=True)) if inside else made[names[0]]
        )
    for name in _SOMETIMES:
        if name in made:
            block[name] = made[name]
    return block


def reply_schema() -> Schema:
    """Return the schema of a reply, fields that the `reflex` block has too marked as deprecated."""
    properties: dict[str, Schema] = {}
    for field in FIELDS:
        also = f"; the same as `{BLOCK}.{field.place}`" if field.deprecated else ""
        properties[field.name] = {**field.schema, "description": f"{field.meaning}{also}"}
        if field.deprecated:
            properties[field.name]["deprecated"] = True
    required = (*properties, BLOCK)
    for name in _SOMETIMES:
        properties[name] = {**OBJECT, "description": f"the same as `{BLOCK}.{name}`", "deprecated": True}
    properties[BLOCK] = {**_block_schema(), "description": "every field about the answer, in groups"}
    return object_of(properties, required)


def _block_schema() -> Schema:
    groups: dict[str, dict[str, Schema]] = {}
    alone: dict[str, Schema] = {}
    by_name = {field.name: field for field in FIELDS}
    for place, name in _PLACES:
        described = {**by_name[name].schema, "description": by_name[name].meaning}
        if len(place) == 1:
            alone[place[0]] = described
        else:
            groups.setdefault(place[0], {})[place[1]] = described
    alone |= {name: {**OBJECT, "description": "where the policy has one"} for name in _SOMETIMES}
    made = {name: object_of(inside, tuple(inside)) for name, inside in groups.items()}
    return object_of({**made, **alone}, (*made, *(name for name in alone if name not in _SOMETIMES)))


def observed_fields(observed: Observed) -> Document:
    """Return the fields of the answer to an observation that is kept and from which nothing is inferred."""
    return {
        "observed": True,
        "observation_steps": observed.observation_steps,
        "kept": observed.kept,
        "episode_id": observed.episode_id,
        "request_id": observed.request_id,
        "ignored_fields": observed.ignored.names,
        "did_you_mean": dict(observed.ignored.meant),
    }


def observed_schema() -> Schema:
    """Return the schema of the same."""
    fields = observed_fields(Observed("", None, 1, 0))
    return object_of({name: schema_of(value) for name, value in fields.items()}, tuple(fields))
