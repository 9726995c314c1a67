# SPDX-License-Identifier: Apache-2.0
"""The cloud wedge by itself: when it asks after a failure, what it believes, when it stops asking. No network."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cloud_double import (
    GOOD,
    LOCAL_FAILURE,
    NAMES,
    Elsewhere,
    answering,
    count,
    failing,
    local,
    refusing,
    request,
    unhurried,
    used,
)
from http_client import wait_for

from reflex_core.errors import InferenceError, NotReadyError, ObservationError
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.cloud_server import (
    BREAKER_OPEN,
    INTERNAL,
    INVALID,
    REFUSED,
    STATUS,
    TIMEOUT,
    CloudAnswer,
    CloudBreaker,
)
from reflex_core.values import CLOUD, POLICY, Inference, Request, Served


def test_a_policy_that_answers_is_all_there_is(
    make_cloud: Any, elsewhere: Elsewhere, metrics: Metrics
) -> None:
    assert make_cloud()(request(), local).chunk.source == POLICY
    assert not elsewhere.requests
    assert used(metrics) == 0


@pytest.mark.parametrize(
    "error", [LOCAL_FAILURE, NotReadyError("degraded"), MemoryError(), RuntimeError("a bug"), OSError(5, "io")]
)  # fmt: skip
def test_whatever_fails_here_is_answered_there(
    make_cloud: Any, elsewhere: Elsewhere, metrics: Metrics, error: Exception
) -> None:
    served = make_cloud()(request(episode_id="e", seed=3), failing(error))
    assert (served.chunk.source, served.model_version, served.slot) == (CLOUD, "cloud:arm@0011", CLOUD)
    assert (served.request_id, served.episode_id, served.seed) == ("r-1", "e", 7)
    assert (served.chunk.names, served.chunk.dt_s) == (NAMES, 0.05)
    np.testing.assert_array_equal(served.chunk.actions, GOOD.actions)
    assert served.inference.stages_ms["cloud_ms"] > 0
    assert elsewhere.requests[0][1] == 60.0
    assert used(metrics) == 1


def test_a_clients_mistake_is_nobodys_failure(make_cloud: Any, elsewhere: Elsewhere) -> None:
    for incoming in (request(), unhurried()):
        with pytest.raises(ObservationError):
            make_cloud()(incoming, failing(ObservationError("no image")))
    assert not elsewhere.requests


def test_a_frame_that_cannot_be_sent_is_the_clients_mistake_too(
    make_cloud: Any, elsewhere: Elsewhere
) -> None:
    def damaged(request: Request, left_s: float) -> CloudAnswer:
        raise ObservationError("a damaged JPEG")

    elsewhere.says = damaged
    with pytest.raises(ObservationError, match="damaged"):
        make_cloud()(request(), failing())


def test_a_request_of_another_servers_cloud_wedge_is_not_sent_on(
    make_cloud: Any, elsewhere: Elsewhere
) -> None:
    with pytest.raises(InferenceError):
        make_cloud()(request(forwarded=True), failing())
    assert not elsewhere.requests


@pytest.mark.parametrize("reason", [TIMEOUT, REFUSED, STATUS, INVALID])
def test_a_cloud_without_an_answer_leaves_everything_as_if_there_were_none(
    make_cloud: Any, elsewhere: Elsewhere, metrics: Metrics, reason: str
) -> None:
    elsewhere.says = refusing(reason)
    with pytest.raises(InferenceError) as caught:
        make_cloud()(request(), failing())
    assert caught.value is LOCAL_FAILURE
    assert count(metrics, reason) == 1
    assert used(metrics) == 0


def test_a_bug_in_the_sender_is_logged_and_counted(
    make_cloud: Any, elsewhere: Elsewhere, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(request: Request, left_s: float) -> CloudAnswer:
        raise KeyError("oops")

    elsewhere.says = explode
    with pytest.raises(InferenceError):
        make_cloud()(request(), failing())
    assert count(metrics, INTERNAL) == 1
    assert "oops" in caplog.text


LIES = {
    "one column too many": {"actions": np.zeros((4, 3), np.float32)},
    "no rows": {"actions": np.zeros((0, 2), np.float32)},
    "three dimensions": {"actions": np.zeros((1, 4, 2), np.float32)},
    "NaN": {"actions": np.full((4, 2), np.nan, np.float32)},
    "Inf": {"actions": np.full((4, 2), np.inf, np.float32)},
    "another robot": {"names": ("shoulder", "wrist")},
    "another order": {"names": NAMES[::-1]},
    "another rate": {"dt_s": 0.02},
    "no rate": {"dt_s": float("nan")},
    "its own hold": {"source": "hold"},
    "an old chunk": {"source": "last_known_good"},
    "a million steps": {"inference": Inference(CLOUD, 10, 10**6)},
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_does_not_fit_is_not_believed(
    make_cloud: Any, elsewhere: Elsewhere, metrics: Metrics, lie: str
) -> None:
    elsewhere.says = answering(replace(GOOD, **LIES[lie]))
    with pytest.raises(InferenceError) as caught:
        make_cloud()(request(), failing())
    assert caught.value is LOCAL_FAILURE
    assert count(metrics, INVALID) == 1


def test_names_may_be_missing_and_a_longer_chunk_is_cut(make_cloud: Any, elsewhere: Elsewhere) -> None:
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    elsewhere.says = answering(replace(GOOD, actions=rows, names=()))
    served = make_cloud()(request(), failing())
    np.testing.assert_array_equal(served.chunk.actions, rows[:4])
    assert served.chunk.names == NAMES


def test_nan_from_the_policy_is_a_failure_too(
    make_cloud: Any, elsewhere: Elsewhere, metrics: Metrics
) -> None:
    def bad(request: Request) -> Served:
        served = local(request)
        return replace(served, chunk=replace(served.chunk, actions=np.full((4, 2), np.nan, np.float32)))

    assert make_cloud()(request(), bad).chunk.source == CLOUD
    elsewhere.says = refusing(REFUSED)
    for incoming in (request(), unhurried()):  # the guard, outside, knows what to do with it
        assert np.isnan(make_cloud()(incoming, bad).chunk.actions).all()
    assert used(metrics) == 1


def test_three_failures_in_a_row_end_the_asking_until_health_is_ready(
    make_cloud: Any, elsewhere: Elsewhere, metrics: Metrics
) -> None:
    elsewhere.says = refusing(REFUSED)
    cloud = make_cloud(every_s=0.01)
    for _ in range(5):
        with pytest.raises(InferenceError):
            cloud(request(), failing())
    assert len(elsewhere.requests) == 3
    assert (count(metrics, REFUSED), count(metrics, BREAKER_OPEN)) == (3, 2)
    wait_for(lambda: elsewhere.probes > 2)
    assert not cloud.reachable
    elsewhere.healthy = True
    wait_for(lambda: cloud.reachable)
    elsewhere.healthy = False
    with pytest.raises(InferenceError):  # healthy, but no help: one failure is enough now
        cloud(request(), failing())
    assert not cloud.reachable
    elsewhere.healthy, elsewhere.says = True, answering(GOOD)
    wait_for(lambda: cloud.reachable)
    assert cloud(request(), failing()).chunk.source == CLOUD


def test_a_success_starts_the_count_again(make_cloud: Any, elsewhere: Elsewhere) -> None:
    cloud = make_cloud()
    for _ in range(3):
        elsewhere.says = refusing(STATUS)
        for _ in range(2):
            with pytest.raises(InferenceError):
                cloud(request(), failing())
        elsewhere.says = answering(GOOD)
        cloud(request(), failing())
    assert cloud.reachable


def test_a_probe_that_raises_is_a_no(elsewhere: Elsewhere, caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([OSError("no route"), True])

    def ready() -> bool:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    breaker = CloudBreaker(ready, failures=1, every_s=0.01)
    breaker.failed()
    wait_for(lambda: breaker.closed)
    assert "no route" in caplog.text


def test_too_little_time_is_not_the_clouds_fault(
    make_cloud: Any, elsewhere: Elsewhere, metrics: Metrics
) -> None:
    cloud = make_cloud()
    over = replace(request(), deadline_ns=time.monotonic_ns() - 1)
    for _ in range(5):
        with pytest.raises(InferenceError):
            cloud(over, failing())
    assert not elsewhere.requests
    assert count(metrics, TIMEOUT) == 5
    assert cloud.reachable


def test_the_cloud_gets_what_is_left_of_the_deadline(make_cloud: Any, elsewhere: Elsewhere) -> None:
    incoming = replace(request(), deadline_ns=time.monotonic_ns() + 30_000_000_000)
    make_cloud()(incoming, failing())
    assert 0 < elsewhere.requests[0][1] < 30.0
