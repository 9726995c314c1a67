# SPDX-License-Identifier: Apache-2.0
"""The cloud wedge by itself: when it asks, what it believes, who wins, when it stops asking. No network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from figures import value_of
from http_client import PATIENCE_S, Background, wait_for

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import CancelledError, InferenceError, NotReadyError, ObservationError
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
    CloudError,
    Expected,
)
from reflex_core.values import CLOUD, POLICY, ActionChunk, Inference, Observation, Request, Served
from reflex_core.wedges import cloud as cloud_module
from reflex_core.wedges.cloud import Cloud

NAMES = ("shoulder", "elbow")
EXPECTED = Expected(NAMES, 0.05, 4)
GOOD = CloudAnswer(np.full((4, 2), 0.5, np.float32), NAMES, 0.05, POLICY, "arm@0011", seed=7)
LOCAL_FAILURE = InferenceError("the graph raised")

Ask = Callable[[Request, float], CloudAnswer]


@dataclass
class Elsewhere:
    """The other server, played: `says` answers, `requests` keeps what it got."""

    says: Ask = field(default_factory=lambda: answering(GOOD))
    healthy: bool = False
    requests: list[tuple[Request, float]] = field(default_factory=list)
    probes: int = 0
    closed: bool = False

    def ask(self, request: Request, left_s: float) -> CloudAnswer:
        self.requests.append((request, left_s))
        return self.says(request, left_s)

    def ready(self) -> bool:
        self.probes += 1
        return self.healthy

    def close(self) -> None:
        self.closed = True


def answering(answer: CloudAnswer) -> Ask:
    def say(request: Request, left_s: float) -> CloudAnswer:
        return answer

    return say


def refusing(reason: str) -> Ask:
    def say(request: Request, left_s: float) -> CloudAnswer:
        raise CloudError(reason, "no")

    return say


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def make(elsewhere: Elsewhere, metrics: Metrics) -> Iterator[Callable[..., Cloud]]:
    made: list[Cloud] = []

    def build(every_s: float = PATIENCE_S, **more: Any) -> Cloud:
        settings = {"timeout_ms": 60_000.0, "hedge_ms": 0.0} | more
        breaker = CloudBreaker(elsewhere.ready, every_s=every_s)
        made.append(
            Cloud(elsewhere, EXPECTED, metrics=metrics, embodiment="arm", breaker=breaker, **settings)
        )
        return made[-1]

    yield build
    for cloud in made:
        cloud.close()


def request(**more: Any) -> Request:
    return Request(Observation({}, None, "wave"), time.monotonic_ns(), "r-1", **more)


def hurried() -> Request:
    """Half of its budget is over, so that the cloud is asked at once, and there is more than enough left."""
    now = time.monotonic_ns()
    half = int(PATIENCE_S * 1e9)
    return replace(request(), received_ns=now - half - 1_000_000, deadline_ns=now + half)


def unhurried() -> Request:
    """With so much time left that the cloud is asked only when the policy has failed."""
    return replace(request(), deadline_ns=time.monotonic_ns() + int(2 * PATIENCE_S * 1e9))


def local(request: Request) -> Served:
    actions = np.zeros((4, 2), np.float32)
    return Served(
        ActionChunk(actions, NAMES, 0.05), actions, request.request_id, None, 0, "prod", "arm@1", Inference("onnx_cpu", 10, 10)
    )  # fmt: skip


def failing(error: BaseException = LOCAL_FAILURE) -> Callable[[Request], Served]:
    def proceed(request: Request) -> Served:
        raise error

    return proceed


def count(metrics: Metrics, reason: str) -> float:
    return value_of(metrics.cloud_failures.labels(reason))


def used(metrics: Metrics) -> float:
    return value_of(metrics.fallback_invocations.labels("arm", CLOUD))


def test_a_policy_that_answers_is_all_there_is(make: Any, elsewhere: Elsewhere, metrics: Metrics) -> None:
    assert make()(request(), local).chunk.source == POLICY
    assert not elsewhere.requests
    assert used(metrics) == 0


@pytest.mark.parametrize(
    "error", [LOCAL_FAILURE, NotReadyError("degraded"), MemoryError(), RuntimeError("a bug"), OSError(5, "io")]
)  # fmt: skip
def test_whatever_fails_here_is_answered_there(
    make: Any, elsewhere: Elsewhere, metrics: Metrics, error: Exception
) -> None:
    served = make()(request(episode_id="e", seed=3), failing(error))
    assert (served.chunk.source, served.model_version, served.slot) == (CLOUD, "cloud:arm@0011", CLOUD)
    assert (served.request_id, served.episode_id, served.seed) == ("r-1", "e", 7)
    assert (served.chunk.names, served.chunk.dt_s) == (NAMES, 0.05)
    np.testing.assert_array_equal(served.chunk.actions, GOOD.actions)
    assert served.inference.stages_ms["cloud_ms"] > 0
    assert elsewhere.requests[0][1] == 60.0
    assert used(metrics) == 1


def test_a_clients_mistake_is_nobodys_failure(make: Any, elsewhere: Elsewhere) -> None:
    for incoming in (request(), unhurried()):
        with pytest.raises(ObservationError):
            make()(incoming, failing(ObservationError("no image")))
    assert not elsewhere.requests


def test_a_frame_that_cannot_be_sent_is_the_clients_mistake_too(make: Any, elsewhere: Elsewhere) -> None:
    def damaged(request: Request, left_s: float) -> CloudAnswer:
        raise ObservationError("a damaged JPEG")

    elsewhere.says = damaged
    with pytest.raises(ObservationError, match="damaged"):
        make()(request(), failing())


def test_a_request_of_another_servers_cloud_wedge_is_not_sent_on(make: Any, elsewhere: Elsewhere) -> None:
    with pytest.raises(InferenceError):
        make()(request(forwarded=True), failing())
    assert not elsewhere.requests


@pytest.mark.parametrize("reason", [TIMEOUT, REFUSED, STATUS, INVALID])
def test_a_cloud_without_an_answer_leaves_everything_as_if_there_were_none(
    make: Any, elsewhere: Elsewhere, metrics: Metrics, reason: str
) -> None:
    elsewhere.says = refusing(reason)
    with pytest.raises(InferenceError) as caught:
        make()(request(), failing())
    assert caught.value is LOCAL_FAILURE
    assert count(metrics, reason) == 1
    assert used(metrics) == 0


def test_a_bug_in_the_sender_is_logged_and_counted(
    make: Any, elsewhere: Elsewhere, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(request: Request, left_s: float) -> CloudAnswer:
        raise KeyError("oops")

    elsewhere.says = explode
    with pytest.raises(InferenceError):
        make()(request(), failing())
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
    make: Any, elsewhere: Elsewhere, metrics: Metrics, lie: str
) -> None:
    elsewhere.says = answering(replace(GOOD, **LIES[lie]))
    with pytest.raises(InferenceError) as caught:
        make()(request(), failing())
    assert caught.value is LOCAL_FAILURE
    assert count(metrics, INVALID) == 1


def test_names_may_be_missing_and_a_longer_chunk_is_cut(make: Any, elsewhere: Elsewhere) -> None:
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    elsewhere.says = answering(replace(GOOD, actions=rows, names=()))
    served = make()(request(), failing())
    np.testing.assert_array_equal(served.chunk.actions, rows[:4])
    assert served.chunk.names == NAMES


def test_nan_from_the_policy_is_a_failure_too(make: Any, elsewhere: Elsewhere, metrics: Metrics) -> None:
    def bad(request: Request) -> Served:
        served = local(request)
        return replace(served, chunk=replace(served.chunk, actions=np.full((4, 2), np.nan, np.float32)))

    assert make()(request(), bad).chunk.source == CLOUD
    elsewhere.says = refusing(REFUSED)
    for incoming in (request(), unhurried()):  # the guard, outside, knows what to do with it
        assert np.isnan(make()(incoming, bad).chunk.actions).all()
    assert used(metrics) == 1


def test_three_failures_in_a_row_end_the_asking_until_health_is_ready(
    make: Any, elsewhere: Elsewhere, metrics: Metrics
) -> None:
    elsewhere.says = refusing(REFUSED)
    cloud = make(every_s=0.01)
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


def test_a_success_starts_the_count_again(make: Any, elsewhere: Elsewhere) -> None:
    cloud = make()
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


def test_too_little_time_is_not_the_clouds_fault(make: Any, elsewhere: Elsewhere, metrics: Metrics) -> None:
    cloud = make()
    over = replace(request(), deadline_ns=time.monotonic_ns() - 1)
    for _ in range(5):
        with pytest.raises(InferenceError):
            cloud(over, failing())
    assert not elsewhere.requests
    assert count(metrics, TIMEOUT) == 5
    assert cloud.reachable


def test_the_cloud_gets_what_is_left_of_the_deadline(make: Any, elsewhere: Elsewhere) -> None:
    incoming = replace(request(), deadline_ns=time.monotonic_ns() + 30_000_000_000)
    make()(incoming, failing())
    assert 0 < elsewhere.requests[0][1] < 30.0


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
    make: Any, elsewhere: Elsewhere, hanging: Hanging, metrics: Metrics
) -> None:
    def once_the_policy_hangs(request: Request, left_s: float) -> CloudAnswer:
        wait_for(lambda: hanging.request is not None)
        return GOOD

    elsewhere.says = once_the_policy_hangs
    assert make()(hurried(), hanging).chunk.source == CLOUD
    assert hanging.request is not None
    assert hanging.request.cancellation is not None
    assert hanging.request.cancellation.cancelled
    assert used(metrics) == 1


def test_without_a_deadline_the_cloud_is_not_asked_twice(
    make: Any, elsewhere: Elsewhere, hanging: Hanging
) -> None:
    answer = Background(lambda: make()(request(), hanging))
    wait_for(lambda: hanging.request is not None)
    hanging.let.set()
    assert answer.result().chunk.source == POLICY
    assert not elsewhere.requests


def test_a_hedge_is_sent_only_when_asked_for(make: Any, elsewhere: Elsewhere, hanging: Hanging) -> None:
    assert make(hedge_ms=1.0)(request(), hanging).chunk.source == CLOUD


def test_the_first_answer_wins_and_the_cloud_is_cancelled(
    make: Any, elsewhere: Elsewhere, hanging: Hanging, metrics: Metrics
) -> None:
    stopped = threading.Event()

    def wait_to_be_stopped(request: Request, left_s: float) -> CloudAnswer:
        assert request.cancellation is not None
        with request.cancellation.calling(stopped.set):
            hanging.let.set()
            assert stopped.wait(PATIENCE_S)
        raise CancelledError("not needed")

    elsewhere.says = wait_to_be_stopped
    cloud = make(hedge_ms=1.0)
    assert cloud(request(), hanging).chunk.source == POLICY
    assert stopped.wait(PATIENCE_S)
    assert cloud.reachable
    assert used(metrics) == 0


def test_a_cloud_that_fails_in_the_race_leaves_it_to_the_policy(
    make: Any, elsewhere: Elsewhere, hanging: Hanging
) -> None:
    def fail(request: Request, left_s: float) -> CloudAnswer:
        hanging.let.set()
        raise CloudError(REFUSED, "no")

    elsewhere.says = fail
    assert make(hedge_ms=1.0)(request(), hanging).chunk.source == POLICY


def test_when_both_fail_the_callers_error_is_the_policys(make: Any, elsewhere: Elsewhere) -> None:
    requested = threading.Event()

    def late(request: Request) -> Served:
        assert requested.wait(PATIENCE_S)
        raise LOCAL_FAILURE

    def fail(request: Request, left_s: float) -> CloudAnswer:
        requested.set()
        raise CloudError(STATUS, "no")

    elsewhere.says = fail
    with pytest.raises(InferenceError) as caught:
        make(hedge_ms=1.0)(request(), late)
    assert caught.value is LOCAL_FAILURE


def test_a_policy_that_fails_before_the_hedge_is_answered_for_at_once(
    make: Any, elsewhere: Elsewhere
) -> None:
    assert make(hedge_ms=60_000.0)(request(), failing(MemoryError())).chunk.source == CLOUD


def test_giving_up_ends_the_wait_though_nothing_can_be_interrupted(
    make: Any, elsewhere: Elsewhere, hanging: Hanging
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
            make(hedge_ms=1.0)(request(cancellation=cancellation), hanging)
        except CancelledError as error:
            errors.append(error)

    asking = Background(act)
    wait_for(lambda: elsewhere.requests)
    cancellation.cancel()
    wait_for(lambda: asking.done)
    assert errors
    let.set()


def test_an_abandoned_request_is_not_sent(make: Any, elsewhere: Elsewhere) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    for incoming in (request(), unhurried()):
        with pytest.raises(CancelledError):
            make()(replace(incoming, cancellation=cancellation), failing(CancelledError("over")))
    assert not elsewhere.requests


def test_a_cloud_too_far_away_for_the_budget_is_asked_only_after_a_failure(
    make: Any, elsewhere: Elsewhere, hanging: Hanging
) -> None:
    cloud = make()
    cloud._round_trips.add(2 * PATIENCE_S)
    answer = Background(lambda: cloud(hurried(), hanging))
    wait_for(lambda: hanging.request is not None)
    hanging.let.set()
    assert answer.result().chunk.source == POLICY
    assert not elsewhere.requests
    assert cloud(hurried(), failing()).chunk.source == CLOUD


def test_a_timeout_teaches_that_the_cloud_is_farther_away(make: Any, elsewhere: Elsewhere) -> None:
    elsewhere.says = refusing(TIMEOUT)
    cloud = make(timeout_ms=40.0)
    with pytest.raises(InferenceError):
        cloud(request(), failing())
    assert cloud._round_trips.usual_s(0.0) == pytest.approx(0.08)


def test_policies_that_hang_for_good_do_not_take_the_cloud_with_them(
    make: Any, elsewhere: Elsewhere, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "THREADS", 1)
    cloud = make(hedge_ms=1.0)
    for _ in range(3):
        assert cloud(request(), hanging).chunk.source == CLOUD
    elsewhere.says = refusing(REFUSED)
    with pytest.raises(InferenceError, match="hangs on 1 earlier"):
        cloud(request(), hanging)


def test_closing_ends_the_probe_and_the_connections(make: Any, elsewhere: Elsewhere) -> None:
    elsewhere.says = refusing(REFUSED)
    cloud = make(every_s=0.001)
    for _ in range(3):
        with pytest.raises(InferenceError):
            cloud(request(), failing())
    wait_for(lambda: elsewhere.probes)
    cloud.close()
    assert elsewhere.closed
    wait_for(lambda: not any(thread.name == "reflex-cloud-probe" for thread in threading.enumerate()))
