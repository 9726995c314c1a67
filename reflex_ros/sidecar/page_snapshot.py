# SPDX-License-Identifier: Apache-2.0
"""The document of everything the page shows. Made in a worker thread, and only while a client is connected."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from reflex_core import __version__
from reflex_core.chunks.rtc import OFF
from reflex_core.engine.engine import Engine
from reflex_core.engine.serving_state import ServingState
from reflex_core.robot.limits.violation_text import all_explained
from reflex_core.settings.table import TABLE, Settings
from reflex_core.text.untrusted import escaped
from reflex_core.values import ROS
from reflex_ros.sidecar.health import public_reason, without_paths
from reflex_ros.sidecar.history import Answer, Event, HistorySnapshot, RequestHistory
from reflex_ros.sidecar.latency_document import latency_document
from reflex_ros.sidecar.robot_access import Robot, RobotSnapshot
from reflex_ros.sidecar.status_summary import status_summary
from reflex_ros.sidecar.thumbnails import thumbnails

CALLERS_SHOWN = 10
GUARD_SHOWN = (
    "enabled", "tripped", "trip_reason", "consecutive_clamps", "max_consecutive_clamps", "inference_count", "mode",
    "violations_total",
)  # fmt: skip
REFUSED = "refused, see the log"
RATE_WINDOW_NS = 5_000_000_000


class Snapshots:
    """Makes the documents of one engine. Call it from one thread at a time."""

    def __init__(
        self, engine: Engine, history: RequestHistory, robot: Robot | None, *, has_key: bool, only_stop: bool
    ) -> None:
        """Create it. has_key: clients have sent the API key. only_stop: the page offers no other action."""
        self._engine, self._history, self._robot = engine, history, robot
        self._has_key, self._only_stop = has_key, only_stop
        self._pictured: Answer | None = None

    def state(self) -> bytes:
        """Return JSON of everything but the pictures."""
        seen = self._history.snapshot()
        snapshot = self._robot.snapshot() if self._robot is not None else None
        document = state_document(self._engine, seen, snapshot) | {"only_stop": self._only_stop}
        if not self._has_key:
            document = _without(document, _private(self._engine, snapshot))
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)

    def pictures(self) -> bytes | None:
        """Return JSON of the frames of the newest inference, or None where those are out already."""
        answer = self._history.snapshot().answer
        if answer is None or answer is self._pictured:
            return None
        self._pictured = answer
        return orjson.dumps({"frames": thumbnails(answer.request.observation.frames)})


def state_document(engine: Engine, seen: HistorySnapshot, snapshot: RobotSnapshot | None) -> dict[str, Any]:
    """Return all that the page shows; times in ms or s as the names say, null for what is not known or has no limit."""
    loaded, settings = engine.loaded, engine.settings
    known = engine.description()
    return {
        "summary": status_summary(engine, snapshot).document(),
        "state": engine.state,
        "robot_id": settings.robot_id,
        "reflex_version": __version__,
        "model_version": known.get("model_version", ""),
        "inference_mode": known.get("inference_mode", ""),
        "embodiment": known.get("embodiment") or "",
        "policy": loaded.policy.export.model_id if loaded is not None else "",
        "needs_instruction": loaded is not None and loaded.needs_instruction,
        "now_s": time.time(),
        "chunks_per_s": _rate(seen),
        "robot": _robot(snapshot),
        "request": _request(seen.answer),
        "chunk": _chunk(seen.answer, loaded),
        "latency": latency_document(seen, settings, loaded),
        "guard": _guard(seen, loaded, snapshot),
        "counts": {**seen.counts, "errors": _errors(engine)},
        "policies": engine.policies() if loaded is not None else None,
        "features": _features(loaded),
        "breakers": _breakers(loaded),
        "recorders": _recorders(engine),
        "settings": _settings(settings),
    }


def _private(engine: Engine, snapshot: RobotSnapshot | None) -> dict[str, str]:
    """Return sentences that name files, and their public replacements."""
    found = {snapshot.refusal: REFUSED} if snapshot is not None else {}
    found[engine.reason] = public_reason(engine.state, engine.reason) or REFUSED
    found.pop("", None)
    return found


def _without(value: Any, private: Mapping[str, str]) -> Any:
    """Return the same document; private sentences are quoted in others too."""
    if not private:
        return value
    if isinstance(value, dict):
        return {key: _without(item, private) for key, item in value.items()}
    if isinstance(value, list):
        return [_without(item, private) for item in value]
    if isinstance(value, str):
        for sentence, public in private.items():
            value = value.replace(sentence, public)
    return value


def _robot(snapshot: RobotSnapshot | None) -> dict[str, Any] | None:
    if snapshot is None:
        return None
    document = {field.name: getattr(snapshot, field.name) for field in dataclasses.fields(snapshot)}
    document["needs"] = [dataclasses.asdict(need) for need in snapshot.needs]
    document["findings"] = [
        {"concern": finding.concern, "level": finding.level[0], "message": finding.message}
        for finding in snapshot.findings
    ]
    return document


def _request(answer: Answer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    request, served = answer.request, answer.served
    return {
        "instruction": request.observation.instruction,
        "episode_id": served.episode_id,
        "request_id": served.request_id,
        "slot": served.slot,
        "seed": served.seed,
        "denoise_steps": served.inference.denoise_steps,
        "finished_s_ago": (time.monotonic_ns() - answer.at_ns) * 1e-9,
    }


def _chunk(answer: Answer | None, loaded: ServingState | None) -> dict[str, Any] | None:
    """Return the newest chunk by joint. since_s: time since the observation, which is when row 0 began."""
    if answer is None:
        return None
    request, served = answer.request, answer.served
    chunk = served.chunk
    since_s = request.observation.age_ms * 1e-3 + (time.monotonic_ns() - request.received_ns) * 1e-9
    limits = loaded.guard.limits if loaded is not None else None
    if limits is not None and limits.names != chunk.names:
        limits = None
    raw = served.raw_actions
    changed = served.guard.clamped and raw.shape == chunk.actions.shape
    return {
        "source": chunk.source,
        "hold_reason": served.hold_reason,
        "dt_s": chunk.dt_s,
        "since_s": since_s,
        "joints": [
            {
                "name": name,
                "rows": _column(chunk.actions, column),
                "raw": _column(raw, column) if changed else None,
                "min": None if limits is None else _finite(limits.position_min[column]),
                "max": None if limits is None else _finite(limits.position_max[column]),
                "unit": "" if limits is None else limits.unit(column),
            }
            for column, name in enumerate(chunk.names)
        ],
    }


def _column(actions: Any, column: int) -> list[float | None]:
    return [_finite(value) for value in np.round(actions[:, column].astype(np.float64), 4).tolist()]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _guard(
    seen: HistorySnapshot, loaded: ServingState | None, snapshot: RobotSnapshot | None
) -> dict[str, Any] | None:
    """Return the guard's status for the robot of this process; where there is none, for all callers together."""
    if loaded is None:
        return None
    status = loaded.guard.status(ROS if snapshot is not None else "")
    others = [caller for caller in status.tripped_callers if caller != ROS]
    limits = loaded.guard.limits
    units = {} if limits is None else {name: limits.unit(column) for column, name in enumerate(limits.names)}
    return {
        **{name: getattr(status, name) for name in GUARD_SHOWN},
        "tripped_callers": [escaped(caller) for caller in others[:CALLERS_SHOWN]],
        "tripped_total": status.tripped_total,
        "reset_caller": ROS if loaded.guard.trips.reason(ROS) else next(iter(others), ""),
        "events": [_event(event, units) for event in reversed(seen.events)],
    }


def _event(event: Event, units: Mapping[str, str]) -> dict[str, Any]:
    """Return an event of the guard with its lines in words."""
    words = [dataclasses.asdict(one) for one in all_explained(event.violations, units)]
    return dataclasses.asdict(event) | {"words": words}


def _errors(engine: Engine) -> Mapping[str, int]:
    """Return the number of requests without a chunk, by slug."""
    samples = (sample for family in engine.metrics.errors.collect() for sample in family.samples)
    return {sample.labels["slug"]: int(sample.value) for sample in samples if sample.name.endswith("_total")}


def _features(loaded: ServingState | None) -> dict[str, bool]:
    """Return which features are active in any slot."""
    slots = loaded.slots.values() if loaded is not None else ()
    return {
        "prefix_cache": any(slot.cache is not None for slot in slots),
        "rtc": any(slot.rtc is not None and slot.rtc.mode != OFF for slot in slots),
        "a2c2": any(slot.a2c2 is not None for slot in slots),
    }


def _breakers(loaded: ServingState | None) -> list[dict[str, Any]]:
    if loaded is None:
        return []
    return [
        {"slot": name, "state": slot.breaker.state, "consecutive_failures": slot.breaker.consecutive_failures}
        for name, slot in loaded.slots.items()
        if slot.breaker is not None
    ]


def _recorders(engine: Engine) -> list[dict[str, Any]]:
    return [
        {"kind": one.kind, "problem": one.problem, "written": one.written, "dropped": one.dropped}
        for one in engine.metrics.recorders.watched
    ]


def _settings(settings: Settings) -> list[dict[str, Any]]:
    """Return settings that may change while serving, then the others that differ from their default."""
    shown = [row for row in TABLE if row.when == "live" or getattr(settings, row.name) != row.default]
    return [
        {"name": row.name, "value": without_paths(getattr(settings, row.name)), "live": row.when == "live"}
        for row in sorted(shown, key=lambda row: row.when != "live")
    ]


def _rate(seen: HistorySnapshot) -> float:
    after_ns = time.monotonic_ns() - RATE_WINDOW_NS
    return sum(at_ns > after_ns for at_ns in seen.finished_ns) / (RATE_WINDOW_NS * 1e-9)
