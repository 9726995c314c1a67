# SPDX-License-Identifier: Apache-2.0
"""The cloud wedge in a hurry: when it asks while the policy still works, and who wins."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cloud_double import (
    GOOD,
    LOCAL_FAILURE,
    Elsewhere,
    failing,
    hurried,
    local,
    refusing,
    request,
    unhurried,
    used,
)
from http_client import PATIENCE_S, Background, wait_for

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import CancelledError, InferenceError
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.cloud_server import (
    REFUSED,
    STATUS,
    TIMEOUT,
    CloudAnswer,
    CloudError,
)
from reflex_core.values import CLOUD, POLICY, Request, Served
from reflex_core.wedges import cloud as cloud_module


@dataclass
class Hanging:
    """A policy that answers only once it is let; `request` is what it was asked."""

    let: threading.Event = field(default_factory=threading.Event)
    request: Request | None = None

    def __call__(self, request: Request) -> Served:
        self.request = request
        assert self.let.wait(PATIENCE_S)
        return local(request)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    policy = Hanging()
    yield policy
    policy.let.set()


def test_a_policy_that_hangs_is_answered_for_before_the_deadline(
    make_cloud: Any, elsewhere: Elsewhere, hanging: Hanging, metrics: Metrics
) -> None:
    def once_the_policy_hangs(request: Request, left_s: float) -> CloudAnswer:
        wait_for(lambda: hanging.request is not None)
        return GOOD

    elsewhere.says = once_the_policy_hangs
    assert make_cloud()(hurried(), hanging).chunk.source == CLOUD
    assert hanging.request is not None
    assert hanging.request.cancellation is not None
    assert hanging.request.cancellation.cancelled
    assert used(metrics) == 1


def test_without_a_deadline_the_cloud_is_not_asked_twice(
    make_cloud: Any, elsewhere: Elsewhere, hanging: Hanging
) -> None:
    answer = Background(lambda: make_cloud()(request(), hanging))
    wait_for(lambda: hanging.request is not None)
    hanging.let.set()
    assert answer.result().chunk.source == POLICY
    assert not elsewhere.requests


def test_a_hedge_is_sent_only_when_asked_for(make_cloud: Any, elsewhere: Elsewhere, hanging: Hanging) -> None:
    assert make_cloud(hedge_ms=1.0)(request(), hanging).chunk.source == CLOUD


def test_the_first_answer_wins_and_the_cloud_is_cancelled(
    make_cloud: Any, elsewhere: Elsewhere, hanging: Hanging, metrics: Metrics
) -> None:
    stopped = threading.Event()

    def wait_to_be_stopped(request: Request, left_s: float) -> CloudAnswer:
        assert request.cancellation is not None
        with request.cancellation.calling(stopped.set):
            hanging.let.set()
            assert stopped.wait(PATIENCE_S)
        raise CancelledError("not needed")

    elsewhere.says = wait_to_be_stopped
    cloud = make_cloud(hedge_ms=1.0)
    assert cloud(request(), hanging).chunk.source == POLICY
    assert stopped.wait(PATIENCE_S)
    assert cloud.reachable
    assert used(metrics) == 0


def test_a_cloud_that_fails_in_the_race_leaves_it_to_the_policy(
    make_cloud: Any, elsewhere: Elsewhere, hanging: Hanging
) -> None:
    def fail(request: Request, left_s: float) -> CloudAnswer:
        hanging.let.set()
        raise CloudError(REFUSED, "no")

    elsewhere.says = fail
    assert make_cloud(hedge_ms=1.0)(request(), hanging).chunk.source == POLICY


def test_when_both_fail_the_callers_error_is_the_policys(make_cloud: Any, elsewhere: Elsewhere) -> None:
    requested = threading.Event()

    def late(request: Request) -> Served:
        assert requested.wait(PATIENCE_S)
        raise LOCAL_FAILURE

    def fail(request: Request, left_s: float) -> CloudAnswer:
        requested.set()
        raise CloudError(STATUS, "no")

    elsewhere.says = fail
    with pytest.raises(InferenceError) as caught:
        make_cloud(hedge_ms=1.0)(request(), late)
    assert caught.value is LOCAL_FAILURE


def test_a_policy_that_fails_before_the_hedge_is_answered_for_at_once(
    make_cloud: Any, elsewhere: Elsewhere
) -> None:
    assert make_cloud(hedge_ms=60_000.0)(request(), failing(MemoryError())).chunk.source == CLOUD


def test_giving_up_ends_the_wait_though_nothing_can_be_interrupted(
    make_cloud: Any, elsewhere: Elsewhere, hanging: Hanging
) -> None:
    let = threading.Event()

    def never(request: Request, left_s: float) -> CloudAnswer:
        assert let.wait(PATIENCE_S)
        return GOOD

    elsewhere.says = never
    cancellation = Cancellation()
    errors: list[Exception] = []

    def act() -> None:
        try:
            make_cloud(hedge_ms=1.0)(request(cancellation=cancellation), hanging)
        except CancelledError as error:
            errors.append(error)

    asking = Background(act)
    wait_for(lambda: elsewhere.requests)
    cancellation.cancel()
    wait_for(lambda: asking.done)
    assert errors
    let.set()


def test_an_abandoned_request_is_not_sent(make_cloud: Any, elsewhere: Elsewhere) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    for incoming in (request(), unhurried()):
        with pytest.raises(CancelledError):
            make_cloud()(replace(incoming, cancellation=cancellation), failing(CancelledError("over")))
    assert not elsewhere.requests


def test_a_cloud_too_far_away_for_the_budget_is_asked_only_after_a_failure(
    make_cloud: Any, elsewhere: Elsewhere, hanging: Hanging
) -> None:
    cloud = make_cloud()
    cloud._round_trips.add(2 * PATIENCE_S)
    answer = Background(lambda: cloud(hurried(), hanging))
    wait_for(lambda: hanging.request is not None)
    hanging.let.set()
    assert answer.result().chunk.source == POLICY
    assert not elsewhere.requests
    assert cloud(hurried(), failing()).chunk.source == CLOUD


def test_a_timeout_teaches_that_the_cloud_is_farther_away(make_cloud: Any, elsewhere: Elsewhere) -> None:
    elsewhere.says = refusing(TIMEOUT)
    cloud = make_cloud(timeout_ms=40.0)
    with pytest.raises(InferenceError):
        cloud(request(), failing())
    assert cloud._round_trips.usual_s(0.0) == pytest.approx(0.08)


def test_policies_that_hang_for_good_do_not_take_the_cloud_with_them(
    make_cloud: Any, elsewhere: Elsewhere, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "THREADS", 1)
    cloud = make_cloud(hedge_ms=1.0)
    for _ in range(3):
        assert cloud(request(), hanging).chunk.source == CLOUD
    elsewhere.says = refusing(REFUSED)
    with pytest.raises(InferenceError, match="hangs on 1 earlier"):
        cloud(request(), hanging)


def test_closing_ends_the_probe_and_the_connections(make_cloud: Any, elsewhere: Elsewhere) -> None:
    elsewhere.says = refusing(REFUSED)
    cloud = make_cloud(every_s=0.001)
    for _ in range(3):
        with pytest.raises(InferenceError):
            cloud(request(), failing())
    wait_for(lambda: elsewhere.probes)
    cloud.close()
    assert elsewhere.closed
    wait_for(lambda: not any(thread.name == "reflex-cloud-probe" for thread in threading.enumerate()))
