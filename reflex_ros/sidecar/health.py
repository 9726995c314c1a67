# SPDX-License-Identifier: Apache-2.0
"""Documents of /health and /config, without names of files on this machine."""

from __future__ import annotations

import re
from typing import Any

import orjson

from reflex_core import __version__
from reflex_core.engine.engine import DEGRADED, FAILED, READY, Engine
from reflex_ros.sidecar.replies import Reply

_ABSOLUTE = re.compile(r"^(?:/|~/|[A-Za-z]:[\\/])")


def health(engine: Engine, *, draining: bool = False) -> Reply:
    """Return 200 only while a policy is ready and the server is not about to end; the body holds the engine's state."""
    loaded, state = engine.loaded, engine.state
    policy = loaded.policy if loaded else None
    document = {
        "status": "draining" if draining else {READY: "ok", DEGRADED: "degraded"}.get(state, "not_ready"),
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
    return Reply(200 if document["status"] == "ok" else 503, orjson.dumps(document))


def brief_health(engine: Engine, *, draining: bool = False) -> Reply:
    """Return the same status with no more than the state, for callers whose key may not read."""
    full = orjson.loads(health(engine, draining=draining).body)
    brief = {name: full[name] for name in ("status", "state", "model_loaded")}
    return Reply(200 if brief["status"] == "ok" else 503, orjson.dumps(brief))


def public_reason(state: str, reason: str) -> str:
    """Return why it is not ready, fit for unauthorised callers: the engine's own sentence names files."""
    if state != FAILED:
        return ""
    return (
        "warm-up failed, see the log"
        if reason.startswith("warm-up")
        else "configuration refused, see the log"
    )


def config(engine: Engine) -> Reply:
    """Return reflex_config.json as the export brings it, and what is effectively served."""
    loaded = engine.loaded
    written = dict(loaded.policy.export.config) if loaded else {}
    described = engine.description()
    document = without_paths(written | {"robot_id": engine.settings.robot_id, "effective": described})
    if "groups" in described:  # names of topics and actions begin like paths
        document["effective"]["groups"] = described["groups"]
    return Reply(200, orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS))


def without_paths(value: Any) -> Any:
    """Return the same document with absolute paths cut to their last part: they tell about this machine."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and _ABSOLUTE.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value
