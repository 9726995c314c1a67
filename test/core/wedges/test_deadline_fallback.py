# SPDX-License-Identifier: Apache-2.0
"""What a missed deadline leaves behind: the fallback's fields, cancellations, and inferences that go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from http_client import wait_for
from wedge_requests import DT_S, HORIZON, MIDDLE, answer, count, counters, request

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import CancelledError, InferenceError
from reflex_core.reports import GuardReport
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, Floats, Request, Served
from reflex_core.wedges.deadline import FAILED, FIRST_CHUNK_S, GIVEN_UP, KEPT, LONGEST_S, Deadline, Late

MEASURED: Floats = (MIDDLE + 0.2).astype(np.float32)


class Bench:
    """A deadline of 100 ms around an inference that goes on until it is cancelled or let go."""

    def __init__(self, max_age_ms: float = 60_000.0, most_workers: int = 4) -> None:
        self.counts = counters("misses", LAST_KNOWN_GOOD, HOLD, "holds", KEPT, FAILED, GIVEN_UP)
        self.budget_ms, self.max_age_ms = 100.0, max_age_ms
        self.position: Floats | None = MEASURED
        self.deadline = Deadline(
            lambda: self.budget_ms, lambda: self.max_age_ms, lambda _: self.position, self.prototype,
            self.counts["misses"], self.counts, self.counts["holds"], most_workers, self.counts,
        )  # fmt: skip
        self.release = threading.Event()
        self.seen: list[Request] = []

    @staticmethod
    def prototype(request: Request) -> Served:
        dirty = GuardReport(True, 7, ("of another chunk",))
        return replace(answer(request), guard=dirty, seed=5, hold_reason="of another chunk")

    def slow(self, request: Request) -> Served:
        self.seen.append(request)
        assert request.cancellation is not None
        with request.cancellation.calling(self.release.set):
            self.release.wait(30)
        request.cancellation.check()
        return answer(request)

    def missed(self, request: Request) -> Served:
        return self.deadline(replace(request, received_ns=time.monotonic_ns()), self.slow)

    def counted(self, name: str) -> float:
        return count(self.counts[name])

    def idle(self) -> None:
        wait_for(lambda: self.deadline.busy == 0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(("seed", "seed_of_hold"), [(77, 77), (None, 0)])
def test_a_hold_says_nothing_that_is_of_another_answer(
    bench: Bench, seed: int | None, seed_of_hold: int
) -> None:
    incoming = replace(request("pick"), seed=seed)
    served = bench.missed(incoming)
    bench.release.set()
    assert (served.request_id, served.episode_id, served.seed) == (incoming.request_id, "pick", seed_of_hold)
    assert (served.hold_reason, served.fallback.deadline_exceeded, served.inference.denoise_steps) == (
        "deadline",
        True,
        0,
    )
    assert served.guard == GuardReport()
    assert (served.chunk.source, served.chunk.dt_s) == (HOLD, DT_S)
    assert served.chunk.actions.shape == (HORIZON, 7)
    assert served.chunk.actions.dtype == np.float32
    np.testing.assert_array_equal(served.raw_actions, served.chunk.actions)
    assert (bench.counted("holds"), bench.counted(HOLD), bench.deadline.misses) == (1, 1, 1)


def test_the_caller_may_cancel_the_inference(bench: Bench) -> None:
    """The deadline's cancellation is that of the request, where it has one."""
    bench.budget_ms = 60_000.0
    mine = Cancellation()
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            bench.deadline(replace(request(), cancellation=mine), bench.slow)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: bool(bench.seen))
    assert bench.seen[0].cancellation is mine
    mine.cancel()
    thread.join(10)
    assert len(caught) == 1
    assert (bench.counted("misses"), bench.deadline.late) == (0, 1)


def test_after_the_end_nothing_is_left_to_finish(bench: Bench) -> None:
    bench.deadline.close()
    bench.missed(request())
    bench.idle()
    assert (bench.counted(KEPT), bench.counted(GIVEN_UP), bench.deadline.late) == (0, 0, 1)


def test_at_the_end_what_is_left_to_finish_is_given_up(bench: Bench) -> None:
    bench.missed(request())
    assert bench.deadline.busy == 1
    bench.deadline.close()
    bench.idle()
    assert (bench.counted(KEPT), bench.counted(GIVEN_UP), bench.deadline.late) == (0, 1, 1)


def test_what_may_not_grow_older_than_a_moment_is_not_left_to_finish() -> None:
    """Its chunk could not stand in by the time it came."""
    bench = Bench(max_age_ms=10.0)
    bench.missed(request())
    bench.idle()
    assert (bench.counted(KEPT), bench.counted(GIVEN_UP), bench.counted(FAILED)) == (0, 0, 0)


def overdue_after_s(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> float:
    """For how long the inference of a missed request is left to finish."""
    waits: list[float] = []
    timers: list[threading.Timer] = []

    class Timer(threading.Timer):
        def __init__(self, interval: float, function: Callable[[], None]) -> None:
            waits.append(interval)
            super().__init__(interval, function)

        def start(self) -> None:
            assert self.daemon, "the process may end meanwhile"
            timers.append(self)
            super().start()

    monkeypatch.setattr("reflex_core.wedges.deadline.threading.Timer", Timer)
    bench.missed(request())
    bench.release.set()
    bench.idle()
    (wait,) = waits
    assert timers[0].finished.is_set(), "it has nothing to give up any more"
    return wait


@pytest.mark.parametrize(("max_age_ms", "longest_s"), [(3000.0, 3.0), (60_000.0, LONGEST_S)])
def test_a_late_inference_may_go_on_for_as_long_as_its_chunk_could_be_a_fallback(
    max_age_ms: float, longest_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = overdue_after_s(Bench(max_age_ms), monkeypatch)
    assert longest_s - 1.0 < wait <= longest_s - 0.02


def test_a_budget_is_one_however_short_it_is(bench: Bench) -> None:
    bench.budget_ms = 0.4
    assert bench.missed(request()).chunk.source == HOLD
    bench.release.set()
    bench.idle()


def test_how_long_a_caller_waits_is_what_is_documented() -> None:
    assert (LONGEST_S, FIRST_CHUNK_S) == (10.0, 0.5)


def test_no_budget_is_left_for_abandoned_requests(bench: Bench) -> None:
    late = request(received_ns=time.monotonic_ns() - 150_000_000)
    assert bench.deadline(late, bench.slow).chunk.source == HOLD
    wait_for(lambda: bool(bench.seen))
    assert bench.seen[0].deadline_ns is None
    assert bench.seen[0].cancellation is not None
    bench.release.set()
    wait_for(lambda: bench.counted(KEPT) == 1)


def test_where_every_worker_is_busy_another_robot_is_held_and_nothing_is_left_open() -> None:
    bench = Bench(most_workers=1)
    bench.missed(request("one"))
    late = request("two", received_ns=time.monotonic_ns() - 150_000_000)
    assert bench.deadline(late, bench.slow).chunk.source == HOLD
    assert bench.missed(request("three")).chunk.source == HOLD
    assert len(bench.seen) == 1
    bench.release.set()
    bench.idle()
    assert bench.counted(KEPT) == 1


def test_an_inference_for_which_there_is_no_worker_makes_room_for_the_next() -> None:
    bench = Bench(most_workers=1)
    bench.budget_ms = 60_000.0
    busy = threading.Thread(target=lambda: bench.deadline(request("one"), bench.slow))
    busy.start()
    wait_for(lambda: bench.deadline.busy == 1)
    bench.budget_ms = 100.0
    late = request("two", received_ns=time.monotonic_ns() - 150_000_000)
    assert bench.deadline(late, bench.slow).chunk.source == HOLD
    assert bench.counted(FAILED) == 1
    bench.release.set()
    busy.join(10)
    bench.idle()
    bench.release.clear()
    bench.missed(request("two"))
    bench.release.set()
    bench.idle()
    assert bench.counted(KEPT) == 1


def test_a_chunk_as_old_as_it_may_be_is_not_old_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it continued from rows that have not begun."""
    bench = Bench(max_age_ms=500.0)
    now_ns = time.monotonic_ns()
    incoming = request("pick", stamp_s=None, received_ns=now_ns)
    bench.budget_ms = 60_000.0
    bench.deadline(incoming, answer)
    good = bench.deadline._good.find(incoming)
    assert good is not None
    for age_ms, stands_in in ((500.0, True), (500.5, False)):
        later = replace(incoming, received_ns=now_ns + int(age_ms * 1e6))
        served = bench.deadline._continued(good, later, now_ns + int(age_ms * 1e6))
        assert (served is not None) is (stands_in and age_ms < HORIZON * DT_S * 1e3)
    early = replace(incoming, received_ns=now_ns + int(100e6))
    served = bench.deadline._continued(good, early, now_ns + int(100.4e6))
    assert served is not None
    assert len(served.chunk.actions) == HORIZON - 2
    assert served.fallback.age_ms == pytest.approx(100.4)


@pytest.fixture
def one_inference_that_detects(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long the newest inference took is all that counts."""
    monkeypatch.setattr("reflex_core.chunks.last_good.DURATIONS_KEPT", 1)


@pytest.mark.usefixtures("one_inference_that_detects")
def test_an_abandoned_inference_that_is_given_up_shows_how_slow_the_model_is(
    bench: Bench,
) -> None:
    late = request(received_ns=time.monotonic_ns() - 150_000_000)
    bench.deadline(late, bench.slow)
    wait_for(lambda: bool(bench.seen))
    bench.deadline.close()
    bench.idle()
    assert 0.0 < bench.deadline._durations.fastest_s(None) < 30.0


@pytest.mark.usefixtures("one_inference_that_detects")
def test_an_inference_that_its_caller_gave_up_shows_nothing_of_the_model(bench: Bench) -> None:
    bench.budget_ms = 60_000.0
    mine = Cancellation()

    def ask() -> None:
        with pytest.raises(CancelledError):
            bench.deadline(replace(request(), cancellation=mine), bench.slow)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: bool(bench.seen))
    mine.cancel()
    thread.join(10)
    bench.idle()
    assert bench.deadline._durations.fastest_s(None) == 0.0


@pytest.mark.usefixtures("one_inference_that_detects")
def test_how_long_an_inference_took_is_counted_from_when_it_began(bench: Bench) -> None:
    bench.budget_ms = 60_000.0
    bench.deadline(request(), answer)
    assert 0.0 < bench.deadline._durations.fastest_s(None) < 30.0


def failing(_: Request) -> Served:
    raise InferenceError("out of memory")


def test_a_failure_is_logged_where_no_caller_is_left_and_only_there(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.budget_ms = 60_000.0
    with pytest.raises(InferenceError):
        bench.deadline(request(), failing)
    assert caplog.records == []
    bench.budget_ms = 100.0

    def fails_late(request: Request) -> Served:
        assert request.cancellation is not None
        with request.cancellation.calling(bench.release.set):
            bench.release.wait(30)
        return failing(request)

    nobodys = replace(request(None, stamp_s=None), received_ns=time.monotonic_ns())
    assert bench.deadline(nobodys, fails_late).chunk.source == HOLD
    bench.idle()
    assert "1 late inferences failed" in caplog.text
    assert bench.counted(GIVEN_UP) == 0


@pytest.mark.parametrize("caller", ["", "peer:10.0.0.1"])
def test_where_a_late_chunk_could_be_no_fallback_it_is_not_left_to_finish(bench: Bench, caller: str) -> None:
    """Neither of a caller that says nothing of itself, nor of an address while there is a position to hold at."""
    bench.missed(replace(request(None, stamp_s=None), caller=caller))
    bench.idle()
    assert (bench.counted(KEPT), bench.counted(GIVEN_UP), bench.deadline.late) == (0, 0, 1)


def test_an_inference_that_ended_at_the_last_moment_keeps_no_place_for_itself(bench: Bench) -> None:
    """It ended between the deadline and the question whether to let it finish; its place would never be given up again."""
    incoming = replace(request(), received_ns=time.monotonic_ns())
    ended = Late(incoming)
    with pytest.raises(InferenceError):
        bench.deadline._infer(incoming, failing, ended)
    assert bench.deadline._left_to_finish(incoming, ended)
    bench.missed(incoming)
    assert bench.deadline.busy == 1, "this one is let finish"
    bench.release.set()
    bench.idle()
    assert bench.counted(KEPT) == 1


def test_a_caller_does_not_wait_for_a_first_chunk_that_is_not_on_its_way_to_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for that of the inference which was just too late, nor for another's, nor where there is none."""
    monkeypatch.setattr("reflex_core.wedges.deadline.FIRST_CHUNK_S", 60.0)
    bench.position, began_s = None, time.monotonic()
    for episode_id in ("one", "two"):
        with pytest.raises(InferenceError, match="neither a chunk of this episode nor a position"):
            bench.missed(request(episode_id))
    bench.release.set()
    bench.idle()
    bench.deadline.close()
    bench.release.clear()
    with pytest.raises(InferenceError, match="neither a chunk of this episode nor a position"):
        bench.missed(request("three"))
    assert time.monotonic() - began_s < 30.0
