# SPDX-License-Identifier: Apache-2.0
"""The panel's data model, without Qt and without ROS: messages and parameters in, an immutable view out.

The ROS thread writes, the Qt thread reads; a lock is between them and nothing else is shared.
"""

from __future__ import annotations

import re
import threading
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from reflex_core.errors import SettingError
from reflex_core.metrics.latency_window import LatencyWindow
from reflex_core.metrics.slo import parse_slo
from reflex_core.robot.limits.violation_text import NUMBER, explained
from reflex_ros.messages.limit_text import ranges_from, units_from
from reflex_ros.rqt.panel_view import (
    NO_ANSWER,
    NO_STATUS,
    STALE_LEVEL,
    Chunk,
    Concern,
    Figures,
    GuardEvent,
    Picture,
    Second,
    SlotFigures,
    View,
)

SILENT_AFTER_S = 3.0  # status and /diagnostics come every second
SECONDS_KEPT, EVENTS_KEPT, SLOT_LATENCIES = 300, 100, 200
MOST_STREAMS = 16
COUNTED_ON = 8  # of the newest events
SOURCES = ("policy", "last known good", "cloud", "hold", "teleop")
_WANTED = re.compile(rf"(.+?) (?:below min|above max): {NUMBER} [<>] ")


class Board:
    """The newest data of a node. All times are monotonic seconds of the caller's clock. Thread-safe."""

    def __init__(self, node: str) -> None:
        self._lock = threading.Lock()
        self._view = View(node)
        self._received_s = float("-inf")
        self._has_status = self._two_policies = False
        self._split = 0  # a status says how it is, the parameter only what was asked for last
        self._seconds: deque[Second] = deque(maxlen=SECONDS_KEPT)
        self._events: deque[GuardEvent] = deque(maxlen=EVENTS_KEPT)
        self._concerns: dict[str, Concern] = {}
        self._pictures: dict[str, Picture] = {}
        self._slot_chunks: Counter[str] = Counter()
        self._slot_ms: dict[str, LatencyWindow] = {}
        self._slot_model: dict[str, str] = {}

    def status(self, message: Any, now_s: float) -> None:
        """Store a ServeStatus."""
        figures = Figures(
            embodiment=message.embodiment, policy=message.model_version, mode=message.inference_mode,
            instruction=message.instruction, episode=message.episode_id, stopped=message.stopped,
            hold_reason=message.hold_reason if message.holding else "", problem=message.problem,
            guard_tripped=message.guard_tripped, failures=message.consecutive_failures, slo_violated=message.slo_violated,
            verdict=message.policy_verdict, control=message.control, share=round(100 * message.blend),
            p50_ms=message.latency_p50_ms, p99_ms=message.latency_p99_ms, chunks=message.chunks_total,
            clamped=message.guard_clamped_total, fallbacks=message.fallbacks_total, holds=message.holds_total,
            refused=message.observations_refused_total, errors=message.errors_total, guided=message.rtc_guided_total,
            cache_hits=message.cache_hits_total, cache_misses=message.cache_misses_total,
        )  # fmt: skip
        with self._lock:
            self._received_s, self._has_status, self._split = now_s, True, message.split_percent
            self._view = replace(self._view, robot=message.robot_id, state=message.state, figures=figures)

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
        found = Chunk(
            tuple(message.names), rows, message.dt_s, message.start_index, source, now_s,
            wanted_of(message.guard_violations),
        )  # fmt: skip
        with self._lock:
            self._view = replace(self._view, chunk=found)
            for line in reversed(message.guard_violations):  # the first line is the most severe one
                self._note(line, message.chunk_id, now_s)
            if message.latency_ms > 0.0:  # a hold of the node itself took no inference
                self._time(message.latency_ms, source, now_s)
                self._count(message)

    def _note(self, line: str, chunk_id: int, now_s: float) -> None:
        """Append an event; one of the newest with the same cause is counted on, for several joints take turns."""
        words = explained(line, self._view.units)
        count = 1
        for event in list(self._events)[-COUNTED_ON:]:
            if event.line.partition(":")[0] == line.partition(":")[0]:
                count = event.count + 1
                self._events.remove(event)
        self._events.append(GuardEvent(now_s, line, words.text, words.advice, chunk_id, count))

    def _time(self, latency_ms: float, source: str, now_s: float) -> None:
        second = int(now_s)
        odd = "" if source == "policy" else source
        last = self._seconds[-1] if self._seconds else None
        if last is None or last.at_s != second:
            self._seconds.append(Second(second, 1, latency_ms, latency_ms, latency_ms, odd))
            return
        self._seconds[-1] = Second(
            second, last.count + 1, min(last.least_ms, latency_ms), max(last.most_ms, latency_ms),
            last.total_ms + latency_ms, odd or last.odd,
        )  # fmt: skip

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
                self._diagnose(status.name.removeprefix(prefix), status)
            names = {status.name.removeprefix(prefix) for status in mine}
            if "connections" in self._concerns and "policy" in names and "connections" not in names:
                del self._concerns["connections"]  # the node subscribes to nothing now
                self._view = replace(self._view, topics={})
            if mine:
                self._received_s = now_s

    def _diagnose(self, name: str, status: Any) -> None:
        level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
        values = {entry.key: entry.value for entry in status.values}
        self._concerns[name] = Concern(name, level, status.message, values)
        if name == "guard":
            self._view = replace(self._view, ranges=ranges_from(values), units=units_from(values))
        elif name == "connections":
            self._view = replace(self._view, topics=dict(list(values.items())[:MOST_STREAMS]))

    def picture(self, found: Picture) -> None:
        """Store the newest picture of a camera."""
        with self._lock:
            self._pictures[found.camera] = found

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
            state = self._view.state if self._has_status else NO_STATUS
            concerns = tuple(self._concerns.values())
            if not heard:
                concerns = tuple(replace(concern, level=STALE_LEVEL) for concern in concerns)
            return replace(
                self._view,
                heard=heard,
                ever=self._received_s > float("-inf"),
                state=state if heard else NO_ANSWER,
                concerns=concerns,
                split=self._split if self._two_policies else None,
                seconds=tuple(self._seconds),
                events=tuple(reversed(self._events)),
                pictures=tuple(self._pictures[name] for name in sorted(self._pictures)),
                slots=self._slots(),
            )

    def _slots(self) -> tuple[SlotFigures, ...]:
        return tuple(
            SlotFigures(name, self._slot_model[name], chunks, self._slot_ms[name].percentile(50))
            for name, chunks in sorted(self._slot_chunks.items())
        )


def wanted_of(violations: list[str]) -> dict[str, float]:
    """Return by joint what the model wanted beyond its range; the topic carries no other numbers of the model's own."""
    found = {}
    for line in violations:
        if (match := _WANTED.match(line)) and np.isfinite(value := float(match[2])):
            found[match[1]] = value
    return found
