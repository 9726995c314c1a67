# SPDX-License-Identifier: Apache-2.0
"""Both interfaces are traced: /act with its caller's span as parent, the node's chunks as roots; failures of either too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import BEYOND
from http_client import good, wait_for
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from otlp import CALLER, SAMPLED, TRACE, Receiver, receiving, values
from ros_world import REACH_HOME, world

from reflex_core.errors import ConfigurationError
from reflex_core.files.share import embedded_policy
from reflex_core.records.trace.reader import TraceReader

Serve = Callable[..., Any]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def ask(server: Any, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return server.client.ask("POST", "/act", json.dumps(good(**fields)).encode(), **(headers or {}))


def test_act_over_http_is_a_child_of_its_caller(serve: Serve, receiver: Receiver, tmp_path: Path) -> None:
    server = serve("calm", otel_endpoint=receiver.url, record=str(tmp_path), record_no_gzip=True)
    reply = ask(server, {"traceparent": SAMPLED, "tracestate": "vendor=abc"}, episode_id="ep_1", seed=5).json
    [act] = receiver.wait_for(1)
    span = values(act.attributes)
    assert (act.trace_id.hex(), act.parent_span_id.hex(), act.trace_state) == (TRACE, CALLER, "vendor=abc")
    assert act.kind == Span.SPAN_KIND_SERVER
    assert (span["reflex.request_id"], span["reflex.episode_id"]) == (reply["request_id"], "ep_1")
    assert (span["gen_ai.response.model"], span["gen_ai.action.embodiment"]) == (
        reply["model_version"],
        "franka",
    )
    assert span["gen_ai.request.model"] == str(server.engine.loaded.policy.export.path)
    assert span["reflex.seed"] == 5
    assert {stage.name: f"{stage.name}_ms" in reply["stages_ms"] for stage in receiver.stages_of(act)} == {
        name.removesuffix("_ms"): True for name in reply["stages_ms"]
    }
    server.engine.unload()
    [record] = TraceReader(next(tmp_path.iterdir()))
    assert (span["reflex.record.seq"], span["reflex.request_id"]) == (record.seq, record.request_id)


def test_a_request_without_parent_or_with_a_bad_one_begins_a_trace(serve: Serve, receiver: Receiver) -> None:
    server = serve("calm", otel_endpoint=receiver.url)
    assert ask(server).status == 200
    assert ask(server, {"traceparent": "00-nonsense"}).status == 200
    acts = receiver.wait_for(2)
    assert [act.parent_span_id for act in acts] == [b"", b""]
    assert len({act.trace_id for act in acts}) == 2


def test_a_model_that_fails_over_http_is_a_span_with_error_status(serve: Serve, receiver: Receiver) -> None:
    server = serve("calm_raise", otel_endpoint=receiver.url)
    answer = ask(server, {"traceparent": SAMPLED}, state=BEYOND)
    assert answer.status == 500
    [act] = receiver.wait_for(1)
    assert act.status.code == Status.STATUS_CODE_ERROR
    assert values(act.attributes)["error.type"] == answer.json["error"]
    assert values(act.attributes)["reflex.request_id"] == answer.json["request_id"]
    assert act.trace_id.hex() == TRACE


def test_health_and_metrics_say_how_the_exporter_is(serve: Serve, receiver: Receiver) -> None:
    server = serve("calm", otel_endpoint=receiver.url)
    ask(server)
    receiver.wait_for(1)
    assert server.client.get("/health").json["recorders"] == {"otel": "ok"}
    wait_for(lambda: b'reflex_records_total{kind="otel"} 1.0' in server.client.get("/metrics").body)
    receiver.status = 400
    ask(server)
    wait_for(lambda: b'reflex_records_dropped_total{kind="otel"} 1.0' in server.client.get("/metrics").body)
    health = server.client.get("/health")
    assert health.status == 200, "who cannot be traced still serves"
    assert health.json["recorders"]["otel"].startswith("otel-export-failed")


def test_an_engine_that_cannot_send_refuses_the_setting(receiver: Receiver) -> None:
    from reflex_core.engine.engine import Engine
    from reflex_core.settings.table import settings_from

    settings = settings_from({"device": "cpu", "intra_op_threads": 1, "otel_endpoint": receiver.url})
    with pytest.raises(ConfigurationError, match="--otel-endpoint"):
        Engine(settings).load()


def test_the_nodes_chunks_are_spans_and_all_are_sent_when_it_ends(receiver: Receiver) -> None:
    with world(
        export_dir=str(embedded_policy()), embodiment="franka", otel_endpoint=receiver.url, robot_id="arm7"
    ) as scene:
        scene.robot.positions = list(REACH_HOME)
        scene.robot.begin("pick-7")
        scene.activate("reach the red block")
        chunk = scene.robot.next_chunk()
        assert scene.server.engine.loaded is not None
        [recorder] = scene.server.engine.loaded.recorders
        assert recorder.kind == "otel"
    spans = {values(act.attributes)["reflex.request_id"]: act for act in receiver.acts}
    act = spans[chunk.request_id]
    attributes_by_name = values(act.attributes)
    assert (act.kind, act.parent_span_id) == (Span.SPAN_KIND_INTERNAL, b"")
    assert attributes_by_name["reflex.instruction"] == "reach the red block"
    assert attributes_by_name["reflex.source"] == "policy"
    assert attributes_by_name["reflex.image_bytes"] == 48 * 64 * 3
    assert [stage.name for stage in receiver.stages_of(act)] == [
        "preprocess", "queue", "vlm_prefix", "expert_denoise",
    ]  # fmt: skip
    assert receiver.resource["service.instance.id"] == "arm7"
    assert recorder.written == len(receiver.acts)
