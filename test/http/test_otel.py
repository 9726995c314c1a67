# SPDX-License-Identifier: Apache-2.0
"""Requests become spans at a real OTLP receiver, whatever the receiver does; and nothing happens where tracing is off."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from http_client import wait_for
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from otlp import CALLER, SAMPLED, TRACE, UNSAMPLED, Receiver, receiving, values

from reflex_core.errors import SettingError
from reflex_core.reports import A2C2Report, CacheReport, Fallback, GuardReport, RoutingReport, RtcReport
from reflex_core.values import ActionChunk, Frame, Inference, Observation, Request, Served
from reflex_ros.otel.connect import traces_url
from reflex_ros.otel.tracing import Tracing

Open = Callable[..., Tracing]

ACTIONS = np.zeros((8, 7), np.float32)
STAGES_MS = {"preprocess_ms": 1.0, "queue_ms": 0.5, "vlm_prefix_ms": 20.0, "expert_denoise_ms": 8.0}
LATENCY_MS = 40.0


def request(request_id: str = "r-1", **of: Any) -> Request:
    frames = {"base": Frame(b"12345", "jpeg"), "wrist": Frame(b"123", "jpeg")}
    observation = Observation(frames, np.zeros(7, np.float32), of.pop("instruction", "reach"), age_ms=12.5)
    return Request(observation, time.monotonic_ns() - 40_000_000, request_id, "ep-1", **of)


def served(**of: Any) -> Served:
    made = Served(
        chunk=ActionChunk(ACTIONS, tuple("abcdefg"), 0.05), raw_actions=ACTIONS, request_id="r-1", episode_id="ep-1",
        seed=2**62, slot="prod", model_version="pi0@ab12", latency_ms=LATENCY_MS,
        inference=Inference("onnx_cpu", 10, 7, stages_ms=STAGES_MS), trace_seq=17, model_hash="ab12",
        config_hash="cd34",
    )  # fmt: skip
    return replace(made, **of)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def tracing() -> Iterator[Open]:
    opened: list[Tracing] = []

    def make(url: str, **of: Any) -> Tracing:
        values = {"models": {"prod": "/exports/pi0"}, "embodiment": "franka", "flush_interval_s": 0.02} | of
        opened.append(Tracing(traces_url(url), **values))
        return opened[-1]

    yield make
    for found in opened:
        found.close(0.1)


def test_an_answer_becomes_a_span_that_says_what_was_served(receiver: Receiver, tracing: Open) -> None:
    began_ns = time.time_ns()
    incoming = request()
    tracing(receiver.url, robot_id="arm7")(incoming, served())
    [act] = receiver.wait_for(1)
    recorded = values(act.attributes)
    expected = {
        "gen_ai.operation.name": "act", "gen_ai.request.model": "/exports/pi0", "gen_ai.response.model": "pi0@ab12",
        "gen_ai.action.embodiment": "franka", "gen_ai.action.chunk_size": 8, "gen_ai.action.denoise_steps": 7,
        "reflex.record.seq": 17, "reflex.slot": "prod", "reflex.model_version": "pi0@ab12", "reflex.episode_id": "ep-1",
        "reflex.request_id": "r-1", "reflex.instruction": "reach", "reflex.state_dim": 7, "reflex.image_bytes": 8,
        "reflex.observation_age_ms": 12.5, "reflex.source": "policy", "reflex.hold_reason": "", "reflex.seed": 2**62,
        "reflex.guard.clamped": False, "reflex.deadline.exceeded": False, "reflex.cache.status": "n/a",
        "reflex.rtc.mode": "", "reflex.inference_ms": 29.5, "reflex.latency_ms": LATENCY_MS,
        "reflex.denoise_steps_configured": 10, "reflex.action_chunk_len": 8, "reflex.action_dim": 7,
        "reflex.stage.vlm_prefix_ms": 20.0, "reflex.config_hash": "cd34",
    }  # fmt: skip
    assert expected.items() <= recorded.items()
    assert act.status.code == Status.STATUS_CODE_UNSET
    assert (act.kind, act.parent_span_id) == (Span.SPAN_KIND_INTERNAL, b"")
    assert act.end_time_unix_nano - act.start_time_unix_nano == LATENCY_MS * 1e6
    assert abs(act.start_time_unix_nano - began_ns) < 60e9, "wall-clock time, not the monotonic clock"
    assert receiver.paths == ["/v1/traces"]
    assert receiver.resource["service.name"] == "reflex_ros"
    assert receiver.resource["service.instance.id"] == "arm7"


def test_what_the_wedges_did_is_on_the_span(receiver: Receiver, tracing: Open) -> None:
    tracing(receiver.url)(
        request(),
        served(
            guard=GuardReport(True, 3, ("joint_1 position 3.1 > 2.9", "joint_2 velocity")), hold_reason="deadline",
            fallback=Fallback(True, 80.0), cache=CacheReport("hit", np.float64(33.0)), rtc=RtcReport("guided", 4),
            a2c2=A2C2Report(np.bool_(True), "ok"), routing=RoutingReport("a", split=50, bucket=None),
            chunk=ActionChunk(ACTIONS, (), 0.05, "hold"),
        ),
    )  # fmt: skip
    recorded = values(receiver.wait_for(1)[0].attributes)
    expected = {
        "reflex.guard.clamped": True, "reflex.guard.clamp_count": 3, "reflex.guard.violation_count": 2,
        "reflex.guard.violations": ["joint_1 position 3.1 > 2.9", "joint_2 velocity"], "reflex.hold_reason": "deadline",
        "reflex.deadline.exceeded": True, "reflex.fallback_age_ms": 80.0, "reflex.cache.status": "hit",
        "reflex.cache.age_ms": 33.0, "reflex.rtc.mode": "guided", "reflex.rtc.delay": 4, "reflex.a2c2.applied": True,
        "reflex.a2c2.reason": "ok", "reflex.routing.split": 50, "reflex.source": "hold",
    }  # fmt: skip
    assert expected.items() <= recorded.items()
    assert "reflex.routing.bucket" not in recorded


def test_stages_are_children_in_their_order_and_end_with_the_answer(
    receiver: Receiver, tracing: Open
) -> None:
    tracing(receiver.url)(request(), served(injected_latency_ms=5.0))
    [act] = receiver.wait_for(1)
    stages = receiver.stages_of(act)
    assert [span.name for span in stages] == ["preprocess", "queue", "vlm_prefix", "expert_denoise"]
    assert [(s.end_time_unix_nano - s.start_time_unix_nano) * 1e-6 for s in stages] == list(
        STAGES_MS.values()
    )
    for before, after in pairwise(stages):
        assert before.end_time_unix_nano == after.start_time_unix_nano
    assert stages[-1].end_time_unix_nano == act.end_time_unix_nano - 5_000_000
    assert {span.trace_id for span in stages} == {act.trace_id}


def test_stages_never_begin_before_their_request(receiver: Receiver, tracing: Open) -> None:
    tracing(receiver.url)(request(), served(latency_ms=10.0))
    [act] = receiver.wait_for(1)
    for stage in receiver.stages_of(act):
        assert act.start_time_unix_nano <= stage.start_time_unix_nano <= stage.end_time_unix_nano
        assert stage.end_time_unix_nano <= act.end_time_unix_nano


def test_each_policy_slot_names_its_own_export(receiver: Receiver, tracing: Open) -> None:
    recorder = tracing(receiver.url, models={"a": "/exports/old", "b": "/exports/new"})
    recorder(request(), served(slot="b"))
    recorder.error(request(), "inference-error", "one of the two")
    named = [values(act.attributes).get("gen_ai.request.model") for act in receiver.wait_for(2)]
    assert named == ["/exports/new", None]


def test_a_request_without_a_record_names_none(receiver: Receiver, tracing: Open) -> None:
    tracing(receiver.url)(request(), served(trace_seq=-1))
    assert "reflex.record.seq" not in values(receiver.wait_for(1)[0].attributes)


def test_a_failed_request_becomes_a_span_with_error_status(receiver: Receiver, tracing: Open) -> None:
    tracing(receiver.url).error(request("r-9"), "inference-error", "the model raised " + "x" * 1000)
    [act] = receiver.wait_for(1)
    recorded = values(act.attributes)
    assert act.status.code == Status.STATUS_CODE_ERROR
    assert act.status.message.startswith("the model raised")
    assert len(act.status.message) == 200
    assert (recorded["error.type"], recorded["reflex.request_id"]) == ("inference-error", "r-9")
    assert act.end_time_unix_nano - act.start_time_unix_nano >= 40_000_000
    assert len(receiver.spans) == 1


def test_the_callers_span_is_the_parent(receiver: Receiver, tracing: Open) -> None:
    tracing(receiver.url)(request(traceparent=SAMPLED, tracestate="vendor=abc,other=1"), served())
    [act] = receiver.wait_for(1)
    assert (act.trace_id.hex(), act.parent_span_id.hex()) == (TRACE, CALLER)
    assert act.trace_state == "vendor=abc,other=1"
    assert act.kind == Span.SPAN_KIND_SERVER
    assert {span.trace_id.hex() for span in receiver.spans} == {TRACE}


def test_no_sample_means_no_spans_but_those_that_callers_want(receiver: Receiver, tracing: Open) -> None:
    recorder = tracing(receiver.url, sample=0.0)
    recorder(request("alone"), served())
    recorder(request("unsampled", traceparent=UNSAMPLED), served())
    recorder(request("sampled", traceparent=SAMPLED), served())
    [act] = receiver.wait_for(1)
    recorder.close()
    assert values(act.attributes)["reflex.request_id"] == "sampled"
    assert len(receiver.acts) == 1
    assert (recorder.written, recorder.dropped, recorder.problem) == (1, 0, "")


def test_a_caller_that_does_not_sample_is_respected(receiver: Receiver, tracing: Open) -> None:
    recorder = tracing(receiver.url)
    recorder(request(traceparent=UNSAMPLED), served())
    recorder(request("other"), served())
    recorder.close()
    assert [values(act.attributes)["reflex.request_id"] for act in receiver.acts] == ["other"]


def test_text_that_is_no_unicode_costs_no_other_span(receiver: Receiver, tracing: Open) -> None:
    recorder = tracing(receiver.url)
    recorder(request("odd", instruction="go \ud800 there" + "x" * 1000), served())
    recorder(request("plain"), served())
    odd, _ = receiver.wait_for(2)
    assert values(odd.attributes)["reflex.instruction"] == ("go ? there" + "x" * 1000)[:512]


def test_a_receiver_that_is_down_is_named_once_and_costs_only_spans(
    tracing: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with receiving() as gone:
        port = gone.port
    caplog.set_level(logging.DEBUG)
    recorder = tracing(f"http://127.0.0.1:{port}")
    for number in range(3):
        recorder(request(), served())
        wait_for(lambda number=number: recorder.dropped == number + 1)
    assert recorder.problem
    assert recorder.problem.startswith("otel-export-failed: ")
    assert recorder.written == 0
    named = [line for line in caplog.messages if "otel-export-failed" in line]
    assert len(named) == 1
    assert f"127.0.0.1:{port}" in named[0]
    assert [record.name for record in caplog.records if record.name.startswith("opentelemetry")] == []


def test_a_receiver_that_comes_back_gets_the_next_spans(tracing: Open, receiver: Receiver) -> None:
    recorder = tracing(receiver.url)
    receiver.status = 400
    recorder(request("lost"), served())
    wait_for(lambda: recorder.problem)
    assert "400" in recorder.problem
    receiver.status = 200
    recorder(request("taken"), served())
    wait_for(
        lambda: recorder.written == 1 and not recorder.problem
    )  # the problem goes just after it was written
    assert recorder.dropped == 1
    assert values(receiver.acts[0].attributes)["reflex.request_id"] == "taken"


def test_a_slow_receiver_fills_a_bounded_queue_and_no_request_waits(
    tracing: Open, receiver: Receiver
) -> None:
    receiver.open.clear()
    recorder = tracing(receiver.url, max_items=4)
    recorder(request("first"), served())
    wait_for(lambda: receiver.paths)  # the exporter hangs in this post from here on
    for _ in range(10):
        recorder(request(), served())
    assert recorder.dropped == 6
    receiver.open.set()
    assert len(receiver.wait_for(5)) == 5
    wait_for(lambda: recorder.written == 5)
    assert recorder.dropped == 6


def test_the_end_does_not_wait_for_a_receiver_that_hangs(tracing: Open, receiver: Receiver) -> None:
    receiver.open.clear()
    recorder = tracing(receiver.url)
    recorder(request(), served())
    wait_for(lambda: receiver.paths)
    recorder.close(0.05)  # returns while the receiver still holds the post
    assert not receiver.requests
    recorder(request(), served())
    assert recorder.dropped == 1


def test_closing_sends_what_waits(tracing: Open, receiver: Receiver) -> None:
    recorder = tracing(receiver.url, flush_interval_s=3600.0)
    recorder(request(), served())
    recorder.close(30.0)
    assert len(receiver.acts) == 1


def test_frames_are_let_go_at_once(tracing: Open, receiver: Receiver) -> None:
    class Pixels(bytes):
        """Bytes whose references can be counted without an interned constant in the way."""

    receiver.open.clear()
    recorder, pixels = tracing(receiver.url), Pixels(b"picture")
    before = sys.getrefcount(pixels)
    recorder(Request(Observation({"base": Frame(pixels, "jpeg")}, None, ""), 0, "r"), served())
    assert sys.getrefcount(pixels) == before


def test_the_librarys_environment_variables_count(
    tracing: Open, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret,x-team=arm")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=lab")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "line-3")
    tracing(receiver.url)(request(), served())
    receiver.wait_for(1)
    assert (receiver.headers[0]["authorization"], receiver.headers[0]["x-team"]) == ("Bearer secret", "arm")
    assert receiver.resource["service.name"] == "line-3"
    assert receiver.resource["deployment.environment"] == "lab"


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("http://localhost:6006/", "http://localhost:6006/v1/traces"),
        ("https://api.example.com/otlp", "https://api.example.com/otlp/v1/traces"),
        ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
    ],
)
def test_spans_go_below_the_base_url(base: str, url: str) -> None:
    assert traces_url(base) == url


@pytest.mark.parametrize(
    "base", ["localhost:4318", "grpc://host:4317", "http://", "http://a:port", "http://a?b=c"]
)
def test_an_endpoint_that_is_none_is_refused(base: str) -> None:
    with pytest.raises(SettingError, match="--otel-endpoint"):
        traces_url(base)


WITHOUT_THE_EXTRA = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ImportError(f"No module named {name!r}")

sys.meta_path.insert(0, Blocker())
from reflex_core.errors import ConfigurationError
from reflex_core.settings.table import settings_from
from reflex_ros.otel.connect import connect_tracing
try:
    connect_tracing(settings_from({"otel_endpoint": "http://127.0.0.1:4318"}), {}, "")
except ConfigurationError as error:
    print(error)
"""


def test_without_the_extra_one_sentence_says_what_to_install() -> None:
    output = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA], capture_output=True, text=True, check=True
    ).stdout
    assert output.count("\n") == 1
    assert "pip install 'reflex_ros[otel]'" in output


WHEN_OFF = """
import sys
from reflex_core.engine.engine import Engine
from reflex_core.settings.table import settings_from
from reflex_ros.cli import serve
from reflex_ros.otel.connect import connect_tracing
engine = Engine(settings_from({"device": "cpu", "intra_op_threads": 1}), None, connect_tracing)
engine.load()
assert engine.loaded.recorders == ()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_when_off_nothing_is_attached_and_nothing_imported() -> None:
    recorded = subprocess.run(
        [sys.executable, "-c", WHEN_OFF], capture_output=True, text=True, check=True
    ).stdout
    assert recorded.strip() == "[]"


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        traces_url("http://bob:hunter2@collector:4318")
    assert "hunter2" not in str(caught.value)
