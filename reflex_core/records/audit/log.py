# SPDX-License-Identifier: Apache-2.0
"""Write the audit log: requests, answers and the guard's changes, hash-chained.

Append-only, one file per UTC day. It is a record for people to judge by, not a safety function.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timezone
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from reflex_core.errors import ConfigurationError
from reflex_core.files.json_lines import exact, utc_text
from reflex_core.records.audit.store import AuditStore, Fields
from reflex_core.records.background_writer import RETRY_S, BackgroundWriter
from reflex_core.records.trace.hashing import observation_hash
from reflex_core.robot.callers import caller_of
from reflex_core.values import Request, Served

RETENTION_DAYS = 183  # EU AI Act, Art. 26(6): deployers keep the logs at least six months
WAIT_S = 2.0  # for a record to be written before its answer leaves; a disk that hangs must not stop a robot

log = logging.getLogger(__name__)

Draft = tuple[int, Callable[[], Fields]]  # wall-clock nanoseconds, and what makes the record's fields


class AuditLog:
    """A listener of the engine. All hashing and writing happens on a thread of its own, and the answer waits for it.

    So an answer that has left is in the log, whatever happens to this process then. Where writing takes longer than
    `WAIT_S` answers leave without it, `problem` says so, and none waits until the writer has caught up.

    retention_days: age at which a file goes when a new day begins; 0 keeps all. `problem` says why nothing can be
    written and is empty while all is well. Raises ConfigurationError when the directory cannot be made or another
    process writes to it.
    """

    kind = "audit"

    def __init__(
        self,
        directory: Path,
        *,
        robot_id: str,
        model_version: str = "",
        model_hash: str = "",
        config_hash: str = "",
        retention_days: int = RETENTION_DAYS,
        flush_interval_s: float = 1.0,
        retry_s: float = RETRY_S,
        wall_clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if retention_days < 0:
            raise ConfigurationError(
                f"the audit log's retention must be 0 (for ever) or more, got {retention_days}"
            )
        self._store = AuditStore(directory, robot_id, retention_days)
        self._robot_id = robot_id
        self._wall_clock_ns = wall_clock_ns
        self._reported = 0
        self._model: dict[str, str] = {}
        self._order = threading.Lock()
        self._handled_more = threading.Condition()
        self._entered = self._handled = 0
        self._behind = False
        self._closing = threading.Event()
        self._writer: BackgroundWriter[Draft] = BackgroundWriter(
            "audit", self._write, slug="audit-disk-full", failed=self._failed, recovered=self._recovered,
            retry_s=retry_s, flush_interval_s=flush_interval_s, at_once=True,
        )  # fmt: skip
        self._syncing = threading.Thread(
            target=self._sync, args=(flush_interval_s,), name="audit-sync", daemon=True
        )
        self._syncing.start()
        self.event("opened", pid=os.getpid())
        self.model(model_version, model_hash, config_hash)

    @property
    def problem(self) -> str:
        """Why nothing can be written; empty while all is well."""
        return self._writer.problem or (
            f"audit-behind: writing takes longer than {WAIT_S:g} s" if self._behind else ""
        )

    @property
    def written(self) -> int:
        """Records of requests and events that the operating system has."""
        return self._writer.written

    @property
    def dropped(self) -> int:
        """Records that could not be written, ever."""
        return self._writer.dropped

    def __call__(self, request: Request, served: Served) -> None:
        """Write one answer; returns when the operating system has it."""
        make = partial(_act_fields, self._robot_id, self._model, request, served)
        self._await(self._enter(make, request.observation.size_bytes))

    def error(self, request: Request, slug: str, message: str, seq: int = -1) -> None:  # noqa: ARG002
        """Write a request that got no answer, likewise; the chain numbers its records itself."""
        make = partial(_error_fields, self._robot_id, self._model, request, slug, message)
        self._await(self._enter(make, request.observation.size_bytes))

    def event(self, kind: str, **fields: Any) -> None:
        """Enqueue something that happened besides requests: a guard trip or reset, a configuration."""
        made = {"kind": "event", "event": kind, "robot_id": self._robot_id} | fields
        self._enter(lambda: made)

    def model(self, model_version: str, model_hash: str, config_hash: str) -> None:
        """Record which policy answers from now on; also an event."""
        self._model = {"model_version": model_version, "model_hash": model_hash, "config_hash": config_hash}
        self.event("model", **self._model)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits and a last event, and let go of the directory."""
        self.event("closed")
        self._closing.set()
        if self._writer.close(timeout_s):
            self._syncing.join(timeout_s)
            self._store.close()

    def _enter(self, make: Callable[[], Fields], size_bytes: int = 0) -> int:
        """Enqueue a record; return its number in the queue, 0 where there is no room."""
        with self._order:
            if not self._writer.put((self._wall_clock_ns(), make), size_bytes):
                return 0
            self._entered += 1
            return self._entered

    def _await(self, number: int) -> None:
        if self._behind:
            return
        with self._handled_more:
            if self._handled_more.wait_for(lambda: self._handled >= number, WAIT_S):
                return
            first, self._behind = not self._behind, True
        if first:
            log.error(
                "slug=audit-behind writing a record takes longer than %g s, answers leave without", WAIT_S
            )

    def _sync(self, interval_s: float) -> None:
        ended = False
        while not ended:
            ended = self._closing.wait(interval_s)
            try:
                self._store.sync()
            except OSError as error:
                self._writer.fail(error)

    def _write(self, batch: Sequence[Draft]) -> None:
        try:
            self._writer.attempt(len(batch), partial(self._append, batch))
        finally:
            with self._handled_more:
                self._handled += len(batch)
                self._behind = self._behind and self._handled < self._entered
                self._handled_more.notify_all()

    def _append(self, batch: Sequence[Draft]) -> None:
        self._store.open()
        written = 0
        while written < len(batch):
            written += self._append_day(batch[written:])

    def _append_day(self, batch: Sequence[Draft]) -> int:
        """Write the drafts at the front of the batch that belong to one day; returns how many."""
        day = self._store.enter(_day(batch[0][0]), batch[0][0])
        own = list(takewhile(lambda draft: _day(draft[0]) <= day, batch))
        records = [{"timestamp": utc_text(time_ns), **_made(make)} for time_ns, make in own]
        missing = self.dropped - self._reported
        if missing:
            records[0]["missing"] = missing
        self._store.append(records)
        self._reported += missing
        self._writer.wrote(len(own))
        return len(own)

    def _failed(self, error: Exception) -> None:
        if not self._writer.problem:
            log.error("slug=audit-disk-full the audit log cannot be written, serving goes on: %s", error)

    def _recovered(self) -> None:
        log.warning("audit log: writing resumed after: %s", self._writer.problem)


def _day(time_ns: int) -> date:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, timezone.utc).date()


def _made(make: Callable[[], Fields]) -> dict[str, Any]:
    try:
        return dict(make())
    except Exception as error:  # one odd request must not take the records beside it along
        log.exception("audit log: a record could not be made")
        return {"kind": "event", "event": "record-failed", "error": f"{type(error).__name__}: {error}"}


def _request_fields(robot_id: str, request: Request) -> dict[str, Any]:
    observation = request.observation
    return {
        "robot_id": robot_id,
        "request_id": request.request_id,
        "episode_id": request.episode_id,
        "caller": caller_of(request),
        "input_hash": observation_hash(observation),
        "cameras": sorted(observation.frames),
        "instruction": observation.instruction,
    }


def _act_fields(robot_id: str, model: Mapping[str, str], request: Request, served: Served) -> Fields:
    raw, safe = served.raw_actions, served.chunk.actions
    same = raw.shape == safe.shape and raw.tobytes() == safe.tobytes()
    fallback = served.fallback.document()
    return {
        "kind": "act",
        **_request_fields(robot_id, request),
        "actions_raw": None if same else exact(raw),
        "actions_safe": exact(safe),
        "action_names": served.chunk.names,
        **served.guard.document(),
        "source": served.chunk.source,
        "start_index": served.chunk.start_index,
        "slot": served.slot,
        "seed": served.seed,
        # a second slot serves another model than the first
        "model_version": served.model_version or model["model_version"],
        "model_hash": served.model_hash or model["model_hash"],
        "config_hash": served.config_hash or model["config_hash"],
        "inference_mode": served.inference.mode,
        "deadline_exceeded": fallback.pop("deadline_exceeded"),
        "hold_reason": served.hold_reason,
        **fallback,
        "latency_ms": round(served.latency_ms, 3) if np.isfinite(served.latency_ms) else None,
    }


def _error_fields(
    robot_id: str, model: Mapping[str, str], request: Request, slug: str, message: str
) -> Fields:
    return {
        "kind": "error",
        **_request_fields(robot_id, request),
        **model,
        "error": {"slug": slug, "message": message[:500]},
    }
