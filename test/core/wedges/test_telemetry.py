# SPDX-License-Identifier: Apache-2.0
"""The outermost wedge: what it measures, and that no listener can harm a request."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from reflex_core.errors import InferenceError, ObservationError
from reflex_core.metrics.metrics import Metrics
from reflex_core.reports import CacheReport
from reflex_core.values import ActionChunk, Inference, Observation, Request, Served
from reflex_core.wedges.telemetry import WINDOW, Telemetry

ACTIONS = np.zeros((4, 2), np.float32)


def request(received_ns: int | None = None) -> Request:
    now = time.monotonic_ns() if received_ns is None else received_ns
    return Request(Observation({}, None, "go"), now, "request-1", "pick")


def answer(request: Request, tokens_cut: int = 0) -> Served:
    return Served(
        chunk=ActionChunk(ACTIONS, ("a", "b"), 0.05), raw_actions=ACTIONS, request_id=request.request_id,
        episode_id=request.episode_id, seed=1, slot="prod", model_version="test@0", inference=Inference("onnx_cpu", 10, 7, tokens_cut=tokens_cut),
    )  # fmt: skip


@pytest.fixture
def telemetry(metrics: Metrics) -> Telemetry:
    return Telemetry("franka", {"prod": "pi0"}, metrics)


def count(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_latency_is_measured_from_the_receipt(telemetry: Telemetry, metrics: Metrics) -> None:
    long_ago = time.monotonic_ns() - 3_000_000_000
    served = telemetry(request(long_ago), answer)
    assert served.latency_ms >= 3000
    labels = {"embodiment": "franka", "model_id": "pi0", "policy_slot": "prod"}
    assert count(metrics, "reflex_act_latency_seconds_count", **labels) == 1
    assert (count(metrics, "reflex_act_latency_seconds_sum", **labels) or 0) >= 3


def test_denoise_steps_are_those_that_were_taken(telemetry: Telemetry, metrics: Metrics) -> None:
    for _ in range(3):
        telemetry(request(), answer)
    assert count(metrics, "reflex_denoise_steps_total", embodiment="franka", policy_slot="prod") == 21


def test_a_listener_gets_the_finished_answer(telemetry: Telemetry) -> None:
    heard: list[tuple[Request, Served]] = []
    telemetry.listen(lambda request, served: heard.append((request, served)))
    incoming = request()
    served = telemetry(incoming, answer)
    assert heard == [(incoming, served)]
    assert heard[0][1].latency_ms > 0


def test_a_listener_that_fails_harms_neither_the_request_nor_the_others(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def broken(request: Request, served: Served) -> None:
        raise OSError("the disk is full")

    telemetry.listen(broken)
    telemetry.listen(lambda request, _: heard.append(request.request_id))
    assert telemetry(request(), answer).chunk.actions is ACTIONS
    assert heard == ["request-1"]
    assert "the disk is full" in caplog.text


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (ObservationError("no image", "missing-image"), "missing-image"),
        (InferenceError("boom"), "inference-error"),
        (MemoryError("all of it"), "internal-error"),
    ],
)
def test_an_error_is_counted_by_slug_and_passed_on(
    telemetry: Telemetry, metrics: Metrics, error: Exception, slug: str
) -> None:
    heard: list[Served] = []
    telemetry.listen(lambda _, served: heard.append(served))

    def failing(_: Request) -> Served:
        raise error

    with pytest.raises(type(error)):
        telemetry(request(), failing)
    assert count(metrics, "reflex_act_errors_total", slug=slug) == 1
    assert heard == []


def test_each_slot_has_series_of_its_own(metrics: Metrics) -> None:
    telemetry = Telemetry("franka", {"a": "one", "b": "two"}, metrics)
    telemetry(request(), lambda request: replace(answer(request), slot="b", cache=CacheReport("hit")))
    telemetry(request(), lambda request: replace(answer(request), slot="a", cache=CacheReport("miss")))
    telemetry(
        request(), lambda request: replace(answer(request), slot="cloud")
    )  # no slot's: it counts for the first
    of = {slot: {"embodiment": "franka", "policy_slot": slot} for slot in "ab"}
    prefix = {"cache_type": "vlm_prefix"}
    latencies = [
        count(metrics, "reflex_act_latency_seconds_count", model_id=model, **of[slot])
        for slot, model in (("a", "one"), ("b", "two"))
    ]
    assert latencies == [2, 1]
    assert count(metrics, "reflex_cache_hit_total", **of["b"], **prefix) == 1
    assert count(metrics, "reflex_cache_hit_total", **of["a"], **prefix) == 0
    assert count(metrics, "reflex_cache_miss_total", **of["a"], **prefix) == 1
    assert [count(metrics, "reflex_denoise_steps_total", **of[slot]) for slot in "ab"] == [14, 7]


def test_a_cut_instruction_is_counted_and_logged(
    telemetry: Telemetry, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry(request(), lambda request: answer(request, tokens_cut=5))
    telemetry(request(), answer)
    assert count(metrics, "reflex_instructions_cut_total") == 1
    assert "5 tokens too long" in caplog.text


def test_a_cut_instruction_that_comes_again_and_again_is_logged_once(
    telemetry: Telemetry, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        telemetry(request(), lambda request: answer(request, tokens_cut=5))
    assert count(metrics, "reflex_instructions_cut_total") == 3
    assert caplog.text.count("too long") == 1


def test_there_are_no_percentiles_before_the_first_answer(telemetry: Telemetry) -> None:
    assert telemetry.percentiles_ms(50, 99) == (0.0, 0.0)


def test_percentiles_are_over_the_newest_answers_only(telemetry: Telemetry) -> None:
    hour_ago = time.monotonic_ns() - 3_600_000_000_000
    for _ in range(10):
        telemetry(request(hour_ago), answer)
    median, worst = telemetry.percentiles_ms(50, 100)
    assert worst >= median >= 3_600_000
    for _ in range(WINDOW):
        telemetry(request(), answer)
    assert telemetry.percentiles_ms(100)[0] < 3_600_000
