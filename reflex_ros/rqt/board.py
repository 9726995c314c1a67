# SPDX-License-Identifier: Apache-2.0
"""The panel's data model, without Qt and without ROS: messages and parameters in, an immutable view out.

The ROS thread writes, the Qt thread reads; a lock is between them and nothing else is shared.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reflex_core.errors import SettingError
from reflex_core.metrics.latency_window import LatencyWindow
from reflex_core.metrics.slo import parse_slo
from reflex_core.values import Floats
from reflex_ros.messages.limit_text import ranges_from

SILENT_AFTER_S = 3.0  # status and /diagnostics come every second
POINTS_KEPT, INCIDENTS_KEPT, SLOT_LATENCIES = 600, 100, 200
SOURCES = ("policy", "last known good", "cloud", "hold", "teleop")
STALE_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Point:
    """One chunk: when it was received (monotonic seconds), its latency, and its source."""

    at_s: float
    latency_ms: float
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """rows: (horizon, action_dim) float32, rad or m. start: the first row that had not elapsed at `at_s`."""

    names: tuple[str, ...]
    rows: Floats
    dt_s: float
    start: int
    source: str
    at_s: float

    def row_at(self, now_s: float) -> float:
        """Return the row that is due now, between 0 and the last."""
        elapsed = (now_s - self.at_s) / self.dt_s if self.dt_s > 0.0 else 0.0
        return float(min(max(self.start + elapsed, 0.0), max(len(self.rows) - 1, 0)))


@dataclass(frozen=True, slots=True)
class Incident:
    """An action of the guard on chunks; `count` in a row were the same."""

    at_s: float
    text: str
    chunk_id: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class SlotFigures:
    """One policy slot as this panel saw it."""

    name: str
    model_version: str
    chunks: int
    median_ms: float


@dataclass(frozen=True, slots=True)
class Task:
    """One concern of /diagnostics. level: 0 fine, 1 warning, 2 error, 3 stale."""

    concern: str
    level: int
    message: str


@dataclass(frozen=True, slots=True)
class View:
    """All of one moment. `slo_ms` and `deadline_ms` None: none is set.

    split: percent of new episodes that slot a gets; None where there is one policy. verdict: how the slots stand. blend: percent of
    the policy's motion that is to be let through, None where that is not known; share: that is let through now. control: who commands.
    """

    node: str
    robot: str | None = None
    nodes: tuple[str, ...] = ()
    heard: bool = False
    state: str = "no answer"
    verdict: str = ""
    facts: Mapping[str, str] | None = None
    stopped: bool = False
    hold_reason: str = ""
    guard_tripped: bool = False
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    deadline_ms: float | None = None
    slo_ms: float | None = None
    slo: str = ""
    slo_violated: bool = False
    points: tuple[Point, ...] = ()
    chunk: Chunk | None = None
    ranges: Mapping[str, tuple[float, float]] | None = None
    incidents: tuple[Incident, ...] = ()
    slots: tuple[SlotFigures, ...] = ()
    split: int | None = None
    blend: int | None = None
    share: int = 100
    control: str = ""
    tasks: tuple[Task, ...] = ()
    notice: str = ""
    notice_ok: bool = True


class Board:
    """The newest data of a node. All times are monotonic seconds of the caller's clock. Thread-safe."""

    def __init__(self, node: str) -> None:
        self._lock = threading.Lock()
        self._view = View(node)
        self._received_s = float("-inf")
        self._two_policies = False
        self._split = 0  # a status says how it is, the parameter only what was asked for last
        self._points: deque[Point] = deque(maxlen=POINTS_KEPT)
        self._incidents: deque[Incident] = deque(maxlen=INCIDENTS_KEPT)
        self._tasks: dict[str, Task] = {}
        self._slot_chunks: Counter[str] = Counter()
        self._slot_ms: dict[str, LatencyWindow] = {}
        self._slot_model: dict[str, str] = {}

    def status(self, message: Any, now_s: float) -> None:
        """Store a ServeStatus."""
        counts = {
            "chunks": message.chunks_total,
            "clamped": message.guard_clamped_total,
            "fallbacks": message.fallbacks_total,
            "holds": message.holds_total,
            "refused": message.observations_refused_total,
            "errors": message.errors_total,
        }
        hits, misses = message.cache_hits_total, message.cache_misses_total
        facts = {
            "robot": f"{message.robot_id} ({message.embodiment})" if message.embodiment else message.robot_id,
            "policy": f"{message.model_version}, {message.inference_mode}" if message.model_version else "",
            "instruction": message.instruction,
            "episode": message.episode_id,
            "so far": ", ".join(f"{count} {what}" for what, count in counts.items()),
            "guided": f"{message.rtc_guided_total} ({message.rtc_mode})" if message.rtc_guided_total else "",
            "cache": f"{hits} hits, {misses} misses" if hits + misses else "",
        }
        with self._lock:
            self._received_s = now_s
            self._split = message.split_percent
            self._view = replace(
                self._view, verdict=message.policy_verdict, robot=message.robot_id, state=message.state, facts=facts, stopped=message.stopped,
                hold_reason=message.hold_reason if message.holding else "", guard_tripped=message.guard_tripped,
                control=message.control, share=round(100 * message.blend),
                p50_ms=message.latency_p50_ms, p99_ms=message.latency_p99_ms, slo_violated=message.slo_violated,
            )  # fmt: skip

    def chunk(self, message: Any, now_s: float) -> None:
        """Store an ActionChunk. One whose data does not fit its shape is not drawn, and reported."""
        with self._lock:
            self._received_s = now_s
        rows = np.array(message.data, np.float32)
        if rows.size != message.horizon * message.action_dim or len(message.names) != message.action_dim:
            shape = f"{message.horizon} x {message.action_dim}"
            self.notify(f"a chunk of {shape} came with {rows.size} numbers: it is not drawn", ok=False)
            return
        source = SOURCES[message.source] if message.source < len(SOURCES) else "unknown"
        rows = rows.reshape(message.horizon, message.action_dim)
        found = Chunk(tuple(message.names), rows, message.dt_s, message.start_index, source, now_s)
        with self._lock:
            self._view = replace(self._view, chunk=found)
            for line in message.guard_violations:
                self._note(line, message.chunk_id, now_s)
            if message.latency_ms > 0.0:  # a hold of the node itself took no inference
                self._points.append(Point(now_s, message.latency_ms, source))
                self._count(message)

    def _note(self, line: str, chunk_id: int, now_s: float) -> None:
        last = self._incidents[-1] if self._incidents else None
        if last is not None and last.text.partition(":")[0] == line.partition(":")[0]:
            self._incidents[-1] = Incident(now_s, line, chunk_id, last.count + 1)
        else:
            self._incidents.append(Incident(now_s, line, chunk_id))

    def _count(self, message: Any) -> None:
        slot = message.policy_slot or "prod"
        self._slot_chunks[slot] += 1
        self._slot_ms.setdefault(slot, LatencyWindow(SLOT_LATENCIES)).add(message.latency_ms)
        self._slot_model[slot] = message.model_version

    def diagnostics(self, message: Any, now_s: float) -> None:
        """Store a DiagnosticArray; entries of other nodes and other robots are skipped."""
        with self._lock:
            prefix = self._view.node.rsplit("/", 1)[-1] + ": "
            robot = self._view.robot
            mine = [
                status
                for status in message.status
                if status.name.startswith(prefix) and robot in (None, status.hardware_id)
            ]
            for status in mine:
                concern = status.name.removeprefix(prefix)
                level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
                self._tasks[concern] = Task(concern, level, status.message)
                if concern == "guard":
                    ranges = ranges_from({entry.key: entry.value for entry in status.values})
                    self._view = replace(self._view, ranges=ranges)
            if mine:
                self._received_s = now_s

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Store `deadline_ms`, `slo`, `policy_b`, `blend` as far as the node has them."""
        slo_ms, blend = None, values.get("blend")
        with suppress(SettingError):
            slo_ms = parse_slo(values["slo"]).threshold_ms if values.get("slo") else None
        with self._lock:
            self._two_policies = bool(values.get("policy_b"))
            self._view = replace(
                self._view, deadline_ms=values.get("deadline_ms") or None, slo=values.get("slo", ""),
                slo_ms=slo_ms, blend=None if blend is None else round(100 * blend),
            )  # fmt: skip

    def nodes(self, names: tuple[str, ...]) -> None:
        """Store the names of the nodes that publish a ServeStatus now."""
        with self._lock:
            self._view = replace(self._view, nodes=names)

    def notify(self, text: str, *, ok: bool = True) -> None:
        """Store the result of an operator's action, or why there is none."""
        with self._lock:
            self._view = replace(self._view, notice=text, notice_ok=ok)

    def view(self, now_s: float) -> View:
        """Return the view at `now_s`; a node that has been silent for 3 s has no state."""
        with self._lock:
            heard = now_s - self._received_s <= SILENT_AFTER_S
            state = self._view.state if self._view.facts is not None else "no status"
            tasks = tuple(self._tasks.values())
            if not heard:
                tasks = tuple(replace(task, level=STALE_LEVEL) for task in tasks)
            return replace(
                self._view,
                heard=heard,
                state=state if heard else "no answer",
                tasks=tasks,
                split=self._split if self._two_policies else None,
                points=tuple(self._points),
                incidents=tuple(reversed(self._incidents)),
                slots=self._slots(),
            )

    def _slots(self) -> tuple[SlotFigures, ...]:
        return tuple(
            SlotFigures(name, self._slot_model[name], chunks, self._slot_ms[name].percentile(50))
            for name, chunks in sorted(self._slot_chunks.items())
        )
