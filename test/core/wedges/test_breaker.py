# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker: what opens it, whom it lets through, what closes it."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from servers import ExportDir
from wedge_requests import Arm, answer, ramp, request

from reflex_core.concurrency.circuit_breaker import CLOSED, HALF_OPEN, OPEN
from reflex_core.errors import CancelledError, InferenceError, NotReadyError, ObservationError
from reflex_core.values import HOLD, POLICY, Request, Served
from reflex_core.wedges.breaker import Breaker

THRESHOLD, COOLDOWN_S = 3, 60.0


@dataclass
class Bench:
    """A breaker on a clock that the test turns."""

    now: float = 1000.0
    changes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.breaker = Breaker(THRESHOLD, COOLDOWN_S, "a", self.changes.append, lambda: self.now)

    def succeed(self) -> Served:
        return self.breaker(request(), answer)

    def fail(self, error: BaseException | None = None) -> None:
        def proceed(_: Request) -> Served:
            raise error or InferenceError("broken")

        with pytest.raises(type(error) if error else InferenceError):
            self.breaker(request(), proceed)

    def open(self) -> None:
        for _ in range(THRESHOLD):
            self.fail()
        assert self.breaker.state == OPEN

    def refused(self) -> NotReadyError:
        def proceed(_: Request) -> Served:
            raise AssertionError("an open breaker must not run inference")

        with pytest.raises(NotReadyError) as caught:
            self.breaker(request(), proceed)
        return caught.value


@pytest.fixture
def bench() -> Bench:
    return Bench()


def spoiled(request: Request) -> Served:
    actions = ramp()
    actions[0, 0] = np.nan
    return answer(request, actions)


def test_it_opens_after_so_many_failures_in_a_row(bench: Bench) -> None:
    for failures in range(1, THRESHOLD):
        bench.fail()
        assert (bench.breaker.state, bench.breaker.consecutive_failures) == (CLOSED, failures)
    bench.fail(ValueError("any exception of the model counts"))
    assert (bench.breaker.state, bench.breaker.consecutive_failures) == (OPEN, THRESHOLD)


def test_a_success_in_between_starts_the_count_again(bench: Bench) -> None:
    for _ in range(4):
        bench.fail()
        bench.fail()
        bench.succeed()
    assert (bench.breaker.state, bench.breaker.consecutive_failures) == (CLOSED, 0)


def test_while_it_is_open_nothing_runs_and_the_caller_learns_when_to_come_back(bench: Bench) -> None:
    bench.open()
    bench.now += 18
    error = bench.refused()
    assert (error.state, error.slug, error.retry_after_s) == ("degraded", "server-degraded", 60)
    assert str(error) == "the policy in slot 'a' failed 3 times in a row; it is tried again in 42 s"
    assert not bench.breaker.probe_due


def test_the_header_rounds_the_cooldown_up() -> None:
    breaker = Breaker(1, 0.2, "a", clock=lambda: 0.0)
    with pytest.raises(ValueError, match="odd"):
        breaker(request(), odd)
    with pytest.raises(NotReadyError) as caught:
        breaker(request(), answer)
    assert caught.value.retry_after_s == 1


def odd(_: Request) -> Served:
    raise ValueError("odd")


@pytest.mark.parametrize("error", [ObservationError("bad"), NotReadyError("loading"), CancelledError("late")])
def test_what_the_model_is_not_to_blame_for_never_counts(bench: Bench, error: Exception) -> None:
    bench.fail()
    bench.fail()
    for _ in range(10):
        bench.fail(error)
    assert (bench.breaker.state, bench.breaker.consecutive_failures) == (CLOSED, 2)


def test_nan_counts_and_the_answer_goes_on_to_the_guard(bench: Bench) -> None:
    for _ in range(THRESHOLD):
        assert np.isnan(bench.breaker(request(), spoiled).chunk.actions[0, 0])
    assert bench.breaker.state == OPEN


def test_after_the_cooldown_one_success_closes_it(bench: Bench) -> None:
    bench.open()
    bench.now += COOLDOWN_S
    assert bench.breaker.probe_due
    bench.succeed()
    assert (bench.breaker.state, bench.breaker.consecutive_failures) == (CLOSED, 0)
    assert bench.changes == [OPEN, HALF_OPEN, CLOSED]


def test_a_probe_that_fails_opens_it_for_another_whole_cooldown(bench: Bench) -> None:
    bench.open()
    bench.now += COOLDOWN_S
    bench.fail()
    assert (bench.breaker.state, bench.breaker.consecutive_failures) == (OPEN, THRESHOLD + 1)
    bench.now += COOLDOWN_S - 0.1
    bench.refused()
    bench.now += 0.1
    bench.succeed()
    assert bench.breaker.state == CLOSED


def test_only_one_request_probes(bench: Bench) -> None:
    bench.open()
    bench.now += COOLDOWN_S

    def probe(request: Request) -> Served:
        assert bench.breaker.state == HALF_OPEN
        assert "another request is trying it now" in str(bench.refused())
        return answer(request)

    bench.breaker(request(), probe)
    assert bench.breaker.state == CLOSED


def test_of_many_callers_at_once_one_probes(bench: Bench) -> None:
    bench.open()
    bench.now += COOLDOWN_S
    refused = threading.Semaphore(0)
    probes, refusals = [], []

    def probe(request: Request) -> Served:
        probes.append(request)
        for _ in range(15):
            assert refused.acquire(timeout=30)
        return answer(request)

    def caller() -> None:
        try:
            bench.breaker(request(), probe)
        except NotReadyError as error:
            refusals.append(error)
            refused.release()

    threads = [threading.Thread(target=caller) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(probes), len(refusals)) == (1, 15)
    assert bench.breaker.state == CLOSED


@pytest.mark.parametrize("error", [ObservationError("bad"), CancelledError("late"), KeyboardInterrupt()])
def test_a_probe_that_shows_nothing_leaves_its_place_to_the_next(bench: Bench, error: BaseException) -> None:
    bench.open()
    bench.now += COOLDOWN_S
    bench.fail(error)
    assert (bench.breaker.state, bench.breaker.probe_due) == (HALF_OPEN, True)
    bench.succeed()
    assert bench.breaker.state == CLOSED


def test_a_probe_that_hangs_is_followed_by_another_after_a_cooldown(bench: Bench) -> None:
    bench.open()
    bench.now += COOLDOWN_S

    def hang(request: Request) -> Served:
        bench.now += COOLDOWN_S
        bench.succeed()
        raise InferenceError("the first probe fails at last")

    with pytest.raises(InferenceError):
        bench.breaker(request(), hang)
    assert (bench.breaker.state, bench.breaker.consecutive_failures) == (CLOSED, 0)


def test_what_began_before_it_opened_neither_closes_it_nor_keeps_it_open(bench: Bench) -> None:
    def slow_success(request: Request) -> Served:
        bench.open()
        return answer(request)

    bench.breaker(request(), slow_success)
    assert bench.breaker.state == OPEN
    bench.now += COOLDOWN_S
    bench.succeed()

    def slow_failure(_: Request) -> Served:
        bench.open()
        bench.now += COOLDOWN_S - 1
        raise InferenceError("broken")

    with pytest.raises(InferenceError):
        bench.breaker(request(), slow_failure)
    bench.now += 1
    bench.succeed()
    assert bench.breaker.state == CLOSED


def test_it_can_be_closed_by_hand(bench: Bench) -> None:
    bench.open()
    bench.breaker.reset()
    assert (bench.breaker.state, bench.breaker.consecutive_failures) == (CLOSED, 0)
    bench.succeed()


def test_a_threshold_of_zero_is_no_breaker() -> None:
    breaker = Breaker(0, COOLDOWN_S, "a")
    for _ in range(20):
        with pytest.raises(ValueError, match="odd"):
            breaker(request(), odd)
    assert breaker.state == CLOSED


def test_each_change_is_logged_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "reflex_core.wedges.breaker")
    bench.open()
    bench.refused()
    bench.refused()
    bench.now += COOLDOWN_S
    bench.fail(ObservationError("bad"))
    bench.succeed()
    assert [record.message for record in caplog.records] == [
        "breaker of slot 'a' is open: 3 failures in a row, the last: InferenceError: broken",
        "breaker of slot 'a' is half-open: the cooldown is over, one request probes the model",
        "breaker of slot 'a' is closed: the probe succeeded",
    ]


def test_errors_of_onnxruntime_open_it_and_a_request_that_works_closes_it(
    bench: Bench, export_dir: ExportDir
) -> None:
    arm = Arm(export_dir("failing_raise"))
    act = arm.middleware_chain(breaker=bench.breaker)
    for _ in range(THRESHOLD):
        with pytest.raises(InferenceError):
            act(arm.request(joint1=1.5))
    with pytest.raises(NotReadyError):
        act(arm.request())
    bench.now += COOLDOWN_S
    assert act(arm.request()).chunk.source == POLICY
    assert bench.breaker.state == CLOSED


def test_nan_of_a_model_is_held_by_the_guard_and_opens_it(bench: Bench, export_dir: ExportDir) -> None:
    arm = Arm(export_dir("failing_nan"))
    act = arm.middleware_chain(breaker=bench.breaker)
    for _ in range(THRESHOLD):
        assert act(arm.request(joint1=1.5)).chunk.source == HOLD
    with pytest.raises(NotReadyError):
        act(arm.request())


def test_what_a_caller_did_wrong_never_opens_it(bench: Bench, export_dir: ExportDir) -> None:
    arm = Arm(export_dir("mono_pi0_7"))
    act = arm.middleware_chain(breaker=bench.breaker)
    for _ in range(2 * THRESHOLD):
        with pytest.raises(ObservationError):
            act(request())  # no image
    assert (bench.breaker.state, bench.breaker.consecutive_failures) == (CLOSED, 0)
