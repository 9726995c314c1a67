# SPDX-License-Identifier: Apache-2.0
"""Synthetic latency: the answer is there later, and says so."""

from __future__ import annotations

import math
import threading

import pytest
from servers import ExportDir
from wedge_requests import Arm, answer, request

from reflex_core.errors import InferenceError
from reflex_core.values import Request, Served
from reflex_core.wedges.injected_latency import Latency


@pytest.mark.parametrize("delay_ms", [0.0, -5.0, math.nan])
def test_without_a_delay_the_answer_passes_as_it_is(delay_ms: float) -> None:
    made = answer(request())
    slept: list[float] = []
    assert Latency(lambda: delay_ms, slept.append)(request(), lambda _: made) is made
    assert slept == []


@pytest.mark.parametrize(("delay_ms", "slept_ms"), [(5.0, 5.0), (1000.0, 1000.0), (90_000.0, 1000.0)])
def test_it_sleeps_after_the_inference_and_reports_how_long(delay_ms: float, slept_ms: float) -> None:
    order: list[object] = []

    def proceed(request: Request) -> Served:
        order.append("inference")
        return answer(request)

    served = Latency(lambda: delay_ms, order.append)(request(), proceed)
    assert order == ["inference", slept_ms * 1e-3]
    assert served.injected_latency_ms == slept_ms


def test_an_error_is_not_delayed() -> None:
    def proceed(_: Request) -> Served:
        raise InferenceError("broken")

    slept: list[float] = []
    with pytest.raises(InferenceError):
        Latency(lambda: 50.0, slept.append)(request(), proceed)
    assert slept == []


def test_a_sleeping_request_keeps_no_other_from_the_policy(export_dir: ExportDir) -> None:
    arm = Arm(export_dir("mono_pi0_7"))
    awake = threading.Barrier(2, timeout=30)  # passes only when both sleep at the same time
    act = arm.middleware_chain(latency=Latency(lambda: 1.0, lambda _: (awake.wait(), None)[1]))
    served: list[Served] = []
    threads = [threading.Thread(target=lambda: served.append(act(arm.request()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [one.injected_latency_ms for one in served] == [1.0, 1.0]
