# SPDX-License-Identifier: Apache-2.0
"""A Served or an error becomes the JSON that goes out. Every promised field is always there."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
from aiohttp import web

from reflex_core import __version__
from reflex_core.engine.engine import DEGRADED, FAILED, READY, Engine
from reflex_core.engine.serving_state import Loaded
from reflex_core.errors import InferenceError, NotReadyError, ObservationError
from reflex_core.slots.routing_headers import routing_headers
from reflex_core.text.untrusted import escaped
from reflex_core.values import POLICY, Document, Served
from reflex_ros.sidecar.act_request import BodyError
from reflex_ros.sidecar.ignored_fields import NOTHING_UNREAD, Unread

DEADLINE_EXCEEDED = "deadline-exceeded"
PUBLIC_SLUGS = ("non-finite-actions", "guard_tripped")
# what clients know by other names than the values have here
OTHER_NAMES = {
    "inference_mode": ("inference_mode", "provider_mode"),
    "denoise_steps": ("adaptive_steps_used", "denoising_steps"),
    "denoise_steps_configured": ("num_denoising_steps",),
}
_ORDER: Document = dict.fromkeys((
    "actions", "num_actions", "action_dim", "action_names", "dt_s", "start_index", "source", "latency_ms", "hz", "stages_ms",
    "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "jitter_ms", "injected_latency_ms", "inference_mode",
    "provider_mode", "active_providers", "vlm_conditioning", "adaptive_enabled", "adaptive_steps_used", "denoising_steps",
    "num_denoising_steps", "guard_clamped", "guard_violations", "guard_summary", "deadline_exceeded",
    "deadline_misses_total", "fallback_target", "fallback_age_ms", "hold_reason", "instruction_tokens_cut",
    "masked_cameras", "cache_status", "cache_age_ms", "rtc_mode", "rtc_delay", "rtc_previous", "a2c2_applied",
    "a2c2_reason", "a2c2_correction_magnitude", "seed", "policy_slot", "routing", "model_version", "model_hash",
    "config_hash", "reflex_version", "robot_id", "request_id", "episode_id",
))  # fmt: skip

_ABSOLUTE = re.compile(r"^(?:/|~/|[A-Za-z]:[\\/])")


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, JSON body and extra headers."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def chunk_reply(
    served: Served,
    loaded: Loaded,
    robot_id: str,
    caller: str,
    cameras: Collection[str] = (),
    unread: Unread = NOTHING_UNREAD,
) -> Reply:
    """What a successful /act returns; times in ms unless the name ends otherwise.

    robot_id: the server's. cameras: those that a picture came of. unread: the fields of the request that nobody reads.
    """
    policy = loaded.slots.get(served.slot, loaded.first).policy
    fields = _fields(served, loaded, robot_id) | {
        "caller": caller,
        "cameras_used": [camera for camera in policy.fit.cameras.values() if camera in cameras],
        "ignored_fields": unread.names,
        "did_you_mean": dict(unread.meant),
    }
    body = orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)
    return Reply(200, body, {"X-Request-Id": header_safe(served.request_id), **routing_headers(served)})


def _fields(served: Served, loaded: Loaded, robot_id: str) -> dict[str, Any]:
    """The fields in the order in which clients have always seen them; a new one of a block comes after."""
    policy = loaded.slots.get(served.slot, loaded.first).policy
    chunk, guard, inference = served.chunk, served.guard, served.inference.document()
    p50, p95, p99 = loaded.telemetry.percentiles_ms(50, 95, 99)
    made = _ORDER.copy()
    made.update(
        actions=np.ascontiguousarray(chunk.actions),
        num_actions=chunk.actions.shape[0],
        action_dim=chunk.actions.shape[1],
        action_names=chunk.names,
        dt_s=chunk.dt_s,
        start_index=chunk.start_index,
        source=chunk.source,
        latency_ms=round(served.latency_ms, 3),
        hz=round(1e3 / served.latency_ms, 1) if served.latency_ms > 0 else 0.0,
        stages_ms={name: round(duration, 3) for name, duration in served.inference.stages_ms.items()},
        latency_p50_ms=round(p50, 3),
        latency_p95_ms=round(p95, 3),
        latency_p99_ms=round(p99, 3),
        jitter_ms=round(p99 - p50, 3),
        injected_latency_ms=served.injected_latency_ms,
        active_providers=policy.providers,
        vlm_conditioning="real" if policy.contract.images or policy.contract.language else "none",
        guard_clamped=guard.clamped,
        guard_violations=guard.violations,
        guard_summary=guard.document(),
        deadline_misses_total=loaded.deadline.misses,
        fallback_target=chunk.source if chunk.source != POLICY else None,
        hold_reason=served.hold_reason,
        masked_cameras=served.inference.masked_cameras,
        seed=served.seed,
        policy_slot=served.slot,
        routing=served.routing.document() if served.routing.present else None,
        model_version=served.model_version,
        model_hash=served.model_hash,
        config_hash=served.config_hash,
        reflex_version=__version__,
        robot_id=robot_id,
        request_id=served.request_id,
        episode_id=served.episode_id,
    )
    for name, value in inference.items():
        made.update(dict.fromkeys(OTHER_NAMES.get(name, (name,)), value))
    made.update(_rounded("", served.fallback.document()))
    made.update(_rounded("cache_", served.cache.document()))
    made.update(_rounded("rtc_", served.rtc.document()))
    made.update(_rounded("a2c2_", served.a2c2.document()))
    return made


def _rounded(prefix: str, document: Document) -> Document:
    """What a block says as fields of the reply, times to a tenth of a millisecond."""
    return {
        prefix + name: round(value, 1) if name.endswith("_ms") else value for name, value in document.items()
    }


def problem(
    status: int, slug: str, message: str, request_id: str, retry_after_s: float = 1.0, **more: Any
) -> Reply:
    """An error body. What a client may try again says when in Retry-After."""
    document = {"error": slug, "message": escaped(message, 4000), "request_id": request_id, **more}
    headers = {"X-Request-Id": header_safe(request_id)}
    if status in (429, 503):
        headers["Retry-After"] = str(math.ceil(retry_after_s))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Reply(status, orjson.dumps(document), headers)


def fresh_id() -> str:
    """The request id of a reply to a request that brought none."""
    return f"req-{secrets.token_hex(4)}"


def response(reply: Reply) -> web.Response:
    """What aiohttp sends."""
    return web.Response(
        body=reply.body, status=reply.status, headers=reply.headers, content_type="application/json"
    )


def header_safe(text: str) -> str:
    """What may stand in a header: printable ASCII as it is, everything else percent-encoded."""
    return quote(text, safe="!#$&'()*+,/:;=?@[] ~", encoding="utf-8", errors="replace")


def problem_of(error: Exception, request_id: str) -> Reply:
    """The reply to an exception. Only sentences written for callers leave; the rest is in the log alone."""
    if isinstance(error, BodyError):
        return problem(error.status, error.slug, str(error), request_id)
    if isinstance(error, ObservationError):
        return problem(422, error.slug, str(error), request_id)
    if isinstance(error, NotReadyError):
        # a breaker's or an objective's sentence is numbers only; the others may name files
        plain = error.slug != NotReadyError.slug
        message = str(error) if plain else f"the policy is not serving: state is '{error.state}'"
        return problem(503, error.slug, message, request_id, error.retry_after_s, state=error.state)
    if isinstance(error, InferenceError):
        if error.slug == DEADLINE_EXCEEDED:  # a late inference may be making the first chunk just now
            return problem(503, error.slug, str(error), request_id)
        if error.slug in PUBLIC_SLUGS:  # their messages are numbers only
            return problem(500, error.slug, str(error), request_id)
        return problem(
            500, error.slug, "the model failed on this request; the server's log says why", request_id
        )
    return problem(500, "internal-error", "the server failed on this request; its log says why", request_id)


def health(engine: Engine) -> Reply:
    """200 only while a policy is ready; the body says where the engine is on its way."""
    loaded, state = engine.loaded, engine.state
    policy = loaded.policy if loaded else None
    document = {
        "status": {READY: "ok", DEGRADED: "degraded"}.get(state, "not_ready"),
        "state": state,
        "model_loaded": policy is not None,
        "inference_mode": policy.inference_mode if policy else "uninitialized",
        "robot_id": engine.settings.robot_id,
        "reason": public_reason(state, engine.reason),
        "model_version": policy.export.model_version if policy else "",
        "embodiment": loaded.embodiment.name if loaded and loaded.embodiment else "",
        "reflex_version": __version__,
        "policy_verdict": loaded.verdict if loaded else "",
        "consecutive_crashes": loaded.consecutive_failures if loaded else 0,
        "max_consecutive_crashes": engine.settings.max_consecutive_crashes,
        "guard_tripped": loaded.guard.status().tripped if loaded else False,
        "recorders": {
            recorder.kind: recorder.problem or "ok" for recorder in engine.metrics.recorders.watched
        }
        if loaded
        else {},
    }
    return Reply(200 if state == READY else 503, orjson.dumps(document))


def public_reason(state: str, reason: str) -> str:
    """The engine's own sentence names files, and anybody may read /health."""
    if state != FAILED:
        return ""
    return (
        "warm-up failed, see the log"
        if reason.startswith("warm-up")
        else "configuration refused, see the log"
    )


def config(engine: Engine) -> Reply:
    """reflex_config.json as the export brings it, and what is effectively served."""
    loaded = engine.loaded
    written = dict(loaded.policy.export.config) if loaded else {}
    document = written | {"robot_id": engine.settings.robot_id, "effective": engine.description()}
    return Reply(200, orjson.dumps(without_paths(document), option=orjson.OPT_NON_STR_KEYS))


def without_paths(value: Any) -> Any:
    """The same document with absolute paths cut to their last part: they tell about this machine."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and _ABSOLUTE.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value
