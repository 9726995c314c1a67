# SPDX-License-Identifier: Apache-2.0
"""Answers that say everything an answer can, and what the outside gets of each, as text that can be compared."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from reflex_core import __version__
from reflex_core.engine.engine import Engine
from reflex_core.files.json_lines import json_line
from reflex_core.records.audit.log import AuditLog
from reflex_core.records.trace.schema import FULL, request_record
from reflex_core.reports import A2C2Report, CacheReport, Fallback, GuardReport, RoutingReport, RtcReport
from reflex_core.settings.table import Settings
from reflex_core.values import (
    CLOUD,
    HOLD,
    LAST_KNOWN_GOOD,
    ActionChunk,
    Frame,
    Inference,
    Observation,
    Request,
    Served,
)
from reflex_ros.otel.attributes import attributes, finished
from reflex_ros.sidecar.act import headers_of
from reflex_ros.sidecar.history import RequestHistory
from reflex_ros.sidecar.ignored_fields import IgnoredFields
from reflex_ros.sidecar.page_snapshot import Snapshots
from reflex_ros.sidecar.wires.json import JsonWire
from reflex_ros.sidecar.wires.wire import Answered

RECEIVED_NS = 5_000_000_000
WALL_NS = 1_700_000_000_123_456_789
NAMES = ("shoulder", "elbow", "gripper")
ACTIONS = np.array([[0.1, -0.2, 0.5], [0.1234567, -0.3, 0.5], [0.15, -0.4, 1.0]], np.float32)


def request(**changes: Any) -> Request:
    """A request with every field that a record may name."""
    observation = Observation(
        {"base": Frame(b"\xff\xd8 base", "jpeg"), "wrist": Frame(b"\xff\xd8 wrist", "jpeg")},
        np.array([0.1, -0.2, 0.5], np.float32), "put the cübe away", 1_699_999_999_500_000_000, 12.3456,
    )  # fmt: skip
    return replace(
        Request(
            observation, RECEIVED_NS, "req-1", "ep-1", 42, caller="robot:arm-7", traceparent="00-ab-cd-01"
        ),
        **changes,
    )


INFERENCE = Inference(
    "onnx_cpu", 10, 10, masked_cameras=("wrist",),
    stages_ms={"preprocess_ms": 1.23456, "vlm_prefix_ms": 20.0, "expert_denoise_ms": 8.7654321},
)  # fmt: skip
PLAIN = Served(
    chunk=ActionChunk(ACTIONS, NAMES, 0.05), raw_actions=ACTIONS, request_id="req-1", episode_id="ep-1", seed=42,
    slot="prod", model_version="pi0@ab12", inference=INFERENCE, latency_ms=43.21987, model_hash="ab12",
    config_hash="cd34", trace_seq=17,
)  # fmt: skip
SAFE = ACTIONS * np.float32(0.5)


def cases() -> Mapping[str, tuple[Request, Served]]:
    """By name: what was asked and what was answered; every block is full in one of them and empty in another."""
    clamped = GuardReport(True, 2, ("elbow above max: 0.5 > 0.4", "elbow velocity: 3 > 2 rad/s"))
    not_finite = GuardReport(True, 3, ("non_finite_action: 3 NaN or Inf values: holding position",))
    early = Inference("onnx_cpu", 10, 4, True, 0.035, 5, 3, ("wrist",), INFERENCE.stages_ms)
    late = request(deadline_ns=RECEIVED_NS + 49_000_000)
    of_cloud = Inference("cloud", 10, 10, stages_ms={"cloud_ms": 31.4159})
    return {
        "plain": (request(), PLAIN),
        "guided": (request(), replace(PLAIN, rtc=RtcReport("guided", 2, "req-0", 3.25))),
        "cached": (request(), replace(PLAIN, cache=CacheReport("hit", 66.6789))),
        "cache missed": (request(), replace(PLAIN, cache=CacheReport("miss"))),
        "early": (request(max_steps=5), replace(PLAIN, inference=early)),
        "corrected": (
            request(),
            replace(
                PLAIN, chunk=ActionChunk(SAFE, NAMES, 0.05, start_index=1),
                a2c2=A2C2Report(True, "applied", 0.1234567),
            ),
        ),
        "not corrected": (request(), replace(PLAIN, a2c2=A2C2Report(False, "cold_start"))),
        "routed": (
            request(),
            replace(
                PLAIN, slot="b", model_version="pi0 fast@ef56",
                routing=RoutingReport("b", "ep-1", False, True, 73, 50, "healthy"),
            ),
        ),
        "routed without an episode": (
            request(episode_id=None),
            replace(
                PLAIN, slot="a", episode_id=None,
                routing=RoutingReport("a", "req-1", True, False, 3, 50, "drain-b"),
            ),
        ),
        "clamped": (
            request(),
            replace(PLAIN, chunk=ActionChunk(SAFE, NAMES, 0.05), guard=clamped, injected_latency_ms=5.5),
        ),
        "continued": (
            late,
            replace(
                PLAIN.not_inferred(), chunk=ActionChunk(ACTIONS[1:], NAMES, 0.05, LAST_KNOWN_GOOD),
                raw_actions=ACTIONS[1:], fallback=Fallback(True, 80.4567, "req-0"),
            ),
        ),
        "held": (
            late,
            replace(
                PLAIN.not_inferred(), chunk=ActionChunk(SAFE, NAMES, 0.05, HOLD), raw_actions=SAFE,
                fallback=Fallback(deadline_exceeded=True), hold_reason="deadline",
            ),
        ),
        "not finite": (
            request(),
            replace(
                PLAIN, chunk=ActionChunk(SAFE, NAMES, 0.05, HOLD), hold_reason="non_finite", guard=not_finite,
                raw_actions=np.array([[np.nan, 1, 2], [np.inf, 1, 2], [0, -np.inf, 2]], np.float32),
            ),
        ),
        "of the cloud": (
            request(),
            Served(
                ActionChunk(ACTIONS, NAMES, 0.05, CLOUD), ACTIONS, "req-1", "ep-1", 42, "cloud", "cloud:pi0@ab12",
                of_cloud,
            ),
        ),
    }  # fmt: skip


def outside(request: Request, served: Served) -> dict[str, str]:
    """What reply, headers, trace, audit log, span and page say of an answer."""
    ignored = IgnoredFields(("goal",), {"goal": "instruction"})
    reply = JsonWire().encode(Answered(served, _loaded(), "server", request.caller, ("base",), ignored))
    span_attributes = attributes(
        finished(request, RECEIVED_NS + 50_000_000, served, served.trace_seq), {"prod": "/e/pi0"}, "franka"
    )
    record = request_record(
        request, served, seq=17, timestamp="2026-11-29T10:00:00.000Z", images=FULL, vlm_conditioning="real"
    )
    return {
        "reply": reply.decode().replace(__version__, "VERSION"),
        "headers": json.dumps(headers_of(served)),
        "trace": json_line(record).decode(),
        "audit": _audited(request, served),
        "span": json.dumps(span_attributes, sort_keys=True),  # a span's attributes have no order
        "page": _shown(request, served),
    }


def _loaded() -> Any:
    """What a reply needs of the policy that answers."""
    policy = SimpleNamespace(
        binding=SimpleNamespace(cameras={"image0": "base", "image1": "wrist"}), providers=["CPUExecutionProvider"],
        contract=SimpleNamespace(images=("image0", "image1"), language=None),
    )  # fmt: skip
    return SimpleNamespace(
        slots={}, first=SimpleNamespace(policy=policy), deadline=SimpleNamespace(misses=3),
        telemetry=SimpleNamespace(percentiles_ms=lambda *_: (40.12345, 45.6, 50.98765)),
    )  # fmt: skip


def _audited(request: Request, served: Served) -> str:
    """The record without what chains it to its neighbours."""
    with tempfile.TemporaryDirectory() as folder:
        audit = AuditLog(Path(folder), robot_id="server", model_version="m", model_hash="h", config_hash="c",
                         wall_clock_ns=lambda: WALL_NS)  # fmt: skip
        audit(request, served)
        audit.close()
        [file] = Path(folder).glob("audit_*.jsonl")
        lines = file.read_bytes().splitlines()
    [line] = [line for line in lines if b'"kind":"act"' in line]
    return line.decode().partition('"timestamp"')[2].rpartition(',"hash"')[0]


def _shown(request: Request, served: Served) -> str:
    """The parts of the page that say what was answered, without its clocks."""
    engine, history = Engine(Settings()), RequestHistory()
    history(request, served)
    document = json.loads(Snapshots(engine, history, None, has_key=True, only_stop=False).state())
    document["request"].pop("finished_s_ago")
    document["chunk"].pop("since_s")
    for name in ("seconds", "window_s"):
        document["latency"].pop(name)
    parts = {name: document[name] for name in ("request", "chunk", "counts", "latency")}
    events = [
        [event.times, event.slot, event.episode_id, event.hold_reason, event.violations]
        for event in history.snapshot().events
    ]
    return json.dumps(parts | {"events": events})


if __name__ == "__main__":
    print(json.dumps({name: outside(*case) for name, case in cases().items()}, indent=1))
