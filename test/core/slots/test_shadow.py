# SPDX-License-Identifier: Apache-2.0
"""The shadow: it sees the same, delays nothing, and what happens to it touches nothing."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from servers import ExportDir
from slots import until
from wedge_requests import NAMES, Arm, answer, ramp, request

from reflex_core.errors import InferenceError
from reflex_core.files.json_lines import json_line
from reflex_core.metrics.metrics import Metrics
from reflex_core.records.trace.notes import shadow_record
from reflex_core.slots.shadow import Divergence, Shadow, difference
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, ActionChunk, Request, Served
from reflex_core.wedges.order import middleware_chain
from reflex_core.wedges.telemetry import Telemetry

Act = Callable[[Request], Served]


class Gate:
    """A shadow policy that answers when it is let."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Semaphore(0), threading.Event()
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Served:
        self.requests.append(request)
        self.entered.release()
        assert request.cancellation is not None
        with request.cancellation.calling(self.open.set):
            assert self.open.wait(20)
        return answer(request, ramp(0.25))


def test_the_difference_is_per_joint_and_in_physical_units() -> None:
    ours, theirs = ramp(), ramp()
    theirs[:, 2] += 0.5
    theirs[3, 4] -= 1.0
    names, max_abs, rms = difference(ActionChunk(ours, NAMES, 0.05), ours, ActionChunk(theirs, NAMES, 0.05))
    assert names == NAMES
    np.testing.assert_allclose(max_abs, [0, 0, 0.5, 0, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(rms, [0, 0, 0.5, 0, 0.1**0.5, 0, 0], atol=1e-6)


def test_columns_are_matched_by_name_and_rows_by_number() -> None:
    ours = ramp()
    other = ActionChunk(np.ascontiguousarray(ours[:4, ::-1]), tuple(reversed(NAMES)), 0.05)
    names, max_abs, _ = difference(ActionChunk(ours, NAMES, 0.05), ours, other)
    assert names == NAMES
    assert not max_abs.any()


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (ActionChunk(ramp(), tuple("abcdefg"), 0.05), "no joint in common"),
        (ActionChunk(ramp(), NAMES, 0.1), "0.05 s apart in one chunk and 0.1 s in the other"),
        (ActionChunk(ramp() * np.float32(np.nan), NAMES, 0.05), "NaN or Inf"),
        (ActionChunk(ramp()[:0], NAMES, 0.05), "empty"),
    ],
)
def test_chunks_that_cannot_be_compared_say_why(other: ActionChunk, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        difference(ActionChunk(ramp(), NAMES, 0.05), ramp(), other)


def test_the_shadow_sees_the_observation_and_the_seed_of_the_answer() -> None:
    gate, found = Gate(), list[Divergence]()
    gate.open.set()
    shadow = Shadow(gate, "next", [found.append])
    incoming = replace(request(), deadline_ns=5, max_steps=3)
    shadow(incoming, replace(answer(incoming), trace_seq=17, seed=99))
    until(lambda: bool(found))
    shadow.close()
    [seen] = gate.requests
    assert (seen.observation, seen.seed, seen.max_steps) == (incoming.observation, 99, 3)
    assert (seen.deadline_ns, seen.request_id) == (None, incoming.request_id)
    [one] = found
    assert (one.seq, one.seed, one.slot, one.shadow_model_id) == (17, 99, "prod", "next")
    np.testing.assert_allclose(one.max_abs, 0.25, atol=1e-6)
    assert shadow.compared == 1


def test_it_is_compared_with_what_the_policy_said_before_the_guard() -> None:
    found: list[Divergence] = []
    shadow = Shadow(answer, "next", [found.append])
    incoming = request()
    made = answer(incoming)
    shadow(incoming, replace(made, chunk=replace(made.chunk, actions=ramp(3.0))))
    until(lambda: bool(found))
    shadow.close()
    assert not found[0].max_abs.any()


def test_an_answer_never_waits_and_the_newest_is_next() -> None:
    gate, found, lost = Gate(), list[Divergence](), list[int]()
    shadow = Shadow(gate, "next", [found.append], on_dropped=lambda: lost.append(1))
    requests = [request() for _ in range(5)]
    shadow(requests[0], answer(requests[0]))
    assert gate.entered.acquire(timeout=20)
    for later in requests[1:]:
        shadow(later, answer(later))  # returns although the worker is stuck in the first
    assert (shadow.dropped, len(lost), shadow.compared) == (3, 3, 0)
    gate.open.set()
    until(lambda: len(found) == 2)
    shadow.close()
    assert [one.request_id for one in found] == [requests[0].request_id, requests[4].request_id]


def test_failures_are_counted_and_spoken_of_once(caplog: pytest.LogCaptureFixture) -> None:
    def fails(_: Request) -> Served:
        raise InferenceError("no such graph")

    failed: list[int] = []
    shadow = Shadow(fails, "next", on_failed=lambda: failed.append(1))
    with caplog.at_level(logging.WARNING):
        for number in range(1, 4):
            incoming = request()
            shadow(incoming, answer(incoming))
            until(lambda number=number: len(failed) == number)  # type: ignore[misc]
    shadow.close()
    assert (shadow.failed, shadow.compared) == (3, 0)
    assert [record.getMessage().split(": ")[-1] for record in caplog.records] == ["no such graph"]


@pytest.mark.parametrize("source", [HOLD, LAST_KNOWN_GOOD])
def test_what_was_not_inferred_now_is_not_compared(source: str) -> None:
    gate = Gate()
    gate.open.set()
    shadow = Shadow(gate, "next")
    incoming = request()
    shadow(incoming, answer(incoming, source=source))
    shadow.close()
    assert gate.requests == []


def test_closing_cancels_what_runs_and_takes_nothing_more() -> None:
    gate = Gate()
    shadow = Shadow(gate, "next")
    incoming = request()
    shadow(incoming, answer(incoming))
    assert gate.entered.acquire(timeout=20)
    shadow.close(20)
    assert not shadow._thread.is_alive()
    shadow(incoming, answer(incoming))
    shadow.close()
    assert len(gate.requests) == 1


def test_its_actions_go_into_a_record_that_names_the_answer() -> None:
    found: list[Divergence] = []
    shadow = Shadow(lambda request: answer(request, ramp(0.25)), "next", [found.append])
    incoming = request("ep_1")
    shadow(incoming, replace(answer(incoming), trace_seq=4))
    until(lambda: bool(found))
    shadow.close()
    record = json.loads(json_line(shadow_record(found[0], "2026-01-02T03:04:05.678Z")))
    assert (record["kind"], record["schema_version"], record["seq"]) == ("shadow", 1, 4)
    assert record["routing"]["shadow_model_id"] == "next"
    np.testing.assert_array_equal(np.float32(record["routing"]["shadow_actions"]), ramp(0.25))
    assert record["divergence"]["names"] == list(NAMES)
    assert record["request"]["episode_id"] == "ep_1"


def test_real_policies_the_same_export_does_not_diverge_and_another_does(export_dir: ExportDir) -> None:
    served_by, other = Arm(export_dir("mono_pi0_7")), Arm(export_dir("wide"))
    found: dict[str, list[Divergence]] = {"same": [], "other": []}
    shadows = [
        Shadow(served_by.middleware_chain(), "same", [found["same"].append]),
        Shadow(other.middleware_chain(), "other", [found["other"].append]),
    ]
    telemetry = Telemetry("franka", {"prod": "pi0"}, Metrics(), list(shadows))
    served = middleware_chain({"telemetry": telemetry, "policy": served_by_policy(served_by)})(
        served_by.request()
    )
    until(lambda: all(found.values()))
    for shadow in shadows:
        shadow.close()
    assert served.seed == 3
    assert not found["same"][0].max_abs.any()
    assert found["other"][0].max_abs.max() > 0.1


def served_by_policy(arm: Arm) -> Callable[..., Served]:
    act = arm.middleware_chain()
    return lambda request, **_: act(request)
