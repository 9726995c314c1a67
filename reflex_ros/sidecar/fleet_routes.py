# SPDX-License-Identifier: Apache-2.0
"""What `reflex fleet` reads of one server: its status in a few figures, and its traces as files."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from prometheus_client.registry import Collector

from reflex_core import __version__
from reflex_core.engine.engine import Engine
from reflex_core.text.untrusted import shown
from reflex_ros.sidecar.admission import ALONE, ENGINE, KEYRING, ROBOT
from reflex_ros.sidecar.csrf import FOREIGN_ORIGIN, KEY_NEEDED, from_elsewhere
from reflex_ros.sidecar.health import public_reason
from reflex_ros.sidecar.openapi import Operation
from reflex_ros.sidecar.operator_words import FAILED
from reflex_ros.sidecar.problems import fresh_id
from reflex_ros.sidecar.replies import Reply, problem, response
from reflex_ros.sidecar.robot_access import RobotSnapshot
from reflex_ros.sidecar.status_summary import status_summary

TRACE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}\.jsonl(\.gz)?")
MOST_TRACES = 100_000
REFUSED = "refused, see the log"
HELD = "held"  # the outcome in the metrics


async def get_status(request: web.Request) -> web.StreamResponse:
    """GET /status: the page's word for the state, the policy, the split, p99 and how often the robot was held."""
    robot, has_key = request.app[ROBOT], request.app[KEYRING].required
    loop = asyncio.get_running_loop()

    def made() -> bytes:
        snapshot = robot.snapshot() if robot is not None else None
        return orjson.dumps(status_document(request.app[ENGINE], snapshot, has_key=has_key))

    return response(Reply(200, await loop.run_in_executor(None, made)))


def status_document(engine: Engine, snapshot: RobotSnapshot | None, *, has_key: bool) -> dict[str, Any]:
    """Return the status for a table of many servers. has_key: the reader has shown the key, and may read names of files."""
    loaded = engine.loaded
    summary = status_summary(engine, snapshot)
    sentence = summary.sentence
    if summary.word == FAILED and not has_key:
        sentence = public_reason(engine.state, engine.reason) or REFUSED
    pair = engine.policies() if loaded is not None else {}
    p99_ms = loaded.telemetry.percentiles_ms(99)[0] if loaded is not None else 0.0
    return {
        "robot_id": engine.settings.robot_id,
        "word": summary.word,
        "sentence": sentence,
        "notes": summary.notes,
        "state": engine.state,
        "policies": [slot.policy.export.model_id for slot in loaded.slots.values()] if loaded else [],
        "split": pair.get("split"),
        "p99_ms": round(p99_ms, 3),
        "holds": _total(engine.metrics.wire_requests, outcome=HELD) if snapshot is None else snapshot.holds,
        "episodes_moved": _total(engine.metrics.episodes_moved),
        "reflex_version": __version__,
    }


def _total(counter: Collector, **labels: str) -> int:
    """Return the sum of a counter over the samples that have these labels."""
    samples = (sample for family in counter.collect() for sample in family.samples)
    return int(
        sum(
            sample.value
            for sample in samples
            if sample.name.endswith("_total") and labels.items() <= sample.labels.items()
        )
    )


async def get_traces(request: web.Request) -> web.StreamResponse:
    """GET /traces: name and size of every trace that this server has recorded."""
    if (refused := _refused(request)) is not None:
        return refused
    folder = request.app[ENGINE].settings.record
    loop = asyncio.get_running_loop()
    try:
        found = await loop.run_in_executor(None, traces_in, folder)
    except OSError as error:
        message = f"the traces cannot be read: {error.strerror or type(error).__name__}"
        return response(problem(503, "record-unreadable", message, fresh_id()))
    return response(Reply(200, orjson.dumps({"recording": bool(folder), "traces": found})))


async def get_trace(request: web.Request) -> web.StreamResponse:
    """GET /traces/{name}: a trace, or the part of it that a Range header names."""
    if (refused := _refused(request)) is not None:
        return refused
    name, folder = request.match_info["name"], request.app[ENGINE].settings.record
    loop = asyncio.get_running_loop()
    if folder and TRACE_NAME.fullmatch(name):
        path = Path(folder) / name
        if await loop.run_in_executor(None, _is_own_file, path):
            return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})
    message = f"there is no trace {shown(name)}; GET /traces lists those that there are"
    return response(problem(404, "no-such-trace", message, fresh_id()))


def traces_in(folder: str) -> list[dict[str, Any]]:
    """Return name and size in bytes of each trace in a folder, oldest first; none where nothing is recorded. Raises OSError."""
    if not folder or not Path(folder).is_dir():
        return []
    with os.scandir(folder) as entries:
        found = sorted(
            (entry.name, entry.stat(follow_symlinks=False).st_size)
            for entry in entries
            if TRACE_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
        )
    return [{"name": name, "bytes": size} for name, size in found[-MOST_TRACES:]]


def _is_own_file(path: Path) -> bool:
    """Return whether a path is a file itself, not a link to another one."""
    return path.is_file() and not path.is_symlink()


def _refused(request: web.Request) -> web.Response | None:
    """Return 403 without an API key for readers on other machines and pages of other sites: a trace has images."""
    if request.app[KEYRING].required:
        return None
    if not request.app[ALONE]:
        return response(problem(403, "key-needed", KEY_NEEDED, fresh_id()))
    if from_elsewhere(request.headers):
        return response(problem(403, "foreign-origin", FOREIGN_ORIGIN, fresh_id()))
    return None


OPERATIONS = (
    Operation("GET", "/status", get_status),
    Operation("GET", "/traces", get_traces),
    Operation("GET", "/traces/{name}", get_trace),
)
