# SPDX-License-Identifier: Apache-2.0
"""Inferences that are late: which are left to finish, which are not waited for, and who gets their chunk."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from deadline_bench import ENOUGH_MS, LONG_MS, MEASURED, SHORT_MS, Bench, Stubborn, until_cancelled
from http_client import wait_for
from servers import ExportDir
from wedge_requests import DT_S, Arm, answer, ramp, request

from reflex_core.chunks.last_good import DURATIONS_KEPT
from reflex_core.errors import CancelledError, InferenceError
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, POLICY, Request, Served
from reflex_core.wedges.deadline import FAILED, GIVEN_UP, KEPT
from reflex_core.wedges.wedge import Proceed


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_model_that_is_always_too_slow_makes_a_first_chunk_that_stands_in(bench: Bench) -> None:
    bench.position, bench.budget_ms = None, SHORT_MS
    slow = Stubborn()
    with pytest.raises(InferenceError):
        bench.deadline(request(stamp_s=0.0), slow)
    assert bench.deadline.busy == 1, "it goes on"
    slow.release.set()
    wait_for(lambda: bench.deadline.busy == 0)
    served = bench.missed(request(stamp_s=2.5 * DT_S))
    assert served.chunk.source == LAST_KNOWN_GOOD
    np.testing.assert_array_equal(served.chunk.actions, ramp()[2:])
    assert (bench.counted(KEPT), bench.deadline.late) == (1, 2)


def test_who_has_nothing_at_all_waits_a_moment_for_the_first_chunk_that_is_being_finished(
    bench: Bench,
) -> None:
    bench.position, bench.budget_ms = None, SHORT_MS
    slow = Stubborn(lambda request: answer(request, dt_s=3600.0))
    with pytest.raises(InferenceError):
        bench.deadline(request("one"), slow)
    threading.Timer(0.05, slow.release.set).start()
    assert bench.deadline(request("one"), until_cancelled).chunk.source == LAST_KNOWN_GOOD
    hanging = Stubborn()
    for episode_id in ("two", "three"):  # no caller waits for another's chunk
        with pytest.raises(InferenceError):
            bench.deadline(request(episode_id), hanging)
    bench.position = MEASURED
    assert bench.deadline(request("two"), until_cancelled).chunk.source == HOLD
    hanging.release.set()


def test_one_late_inference_at_a_time_is_left_to_finish(bench: Bench) -> None:
    bench.budget_ms = SHORT_MS
    slow = Stubborn()
    assert bench.deadline(request("one"), slow).chunk.source == HOLD
    assert bench.deadline(request("two"), until_cancelled).chunk.source == HOLD
    wait_for(lambda: bench.deadline.busy == 1)
    slow.release.set()
    wait_for(lambda: bench.deadline.busy == 0)
    again = Stubborn()
    bench.deadline(request("two"), again)
    again.release.set()
    wait_for(lambda: bench.deadline.busy == 0)
    assert bench.counted(KEPT) == 2


def test_a_chunk_at_half_its_age_is_made_anew_while_it_still_stands_in(bench: Bench) -> None:
    for age_ms, kept in ((20_000, 0), (40_000, 1)):
        episode_id = f"aged-{age_ms}"
        bench.good(request(episode_id, stamp_s=0.0, received_ns=time.monotonic_ns() - age_ms * 1_000_000))
        bench.budget_ms = SHORT_MS
        slow = Stubborn()
        incoming = replace(request(episode_id, stamp_s=DT_S), received_ns=time.monotonic_ns())
        assert bench.deadline(incoming, slow).chunk.source == LAST_KNOWN_GOOD
        slow.release.set()
        wait_for(lambda: bench.deadline.busy == 0)
        assert bench.counted(KEPT) == kept


def too_slow(bench: Bench, times: int = DURATIONS_KEPT) -> None:
    """So many inferences in a row are cut off at their deadline."""
    for _ in range(times):
        bench.missed(request("other"))


def tried(bench: Bench, request: Request) -> bool:
    """Whether an inference for the request was begun while a caller waited for it."""
    begun: list[Request] = []
    bench.budget_ms = SHORT_MS
    bench.deadline(
        replace(request, received_ns=time.monotonic_ns()), lambda own: begun.append(own) or answer(own)
    )
    wait_for(lambda: bench.deadline.busy == 0)
    return begun != []


def test_an_inference_that_cannot_be_in_time_is_not_waited_for(bench: Bench) -> None:
    good = bench.good(request("pick"))
    too_slow(bench)
    assert not tried(bench, request("pick"))
    served = bench.deadline(request("pick"), answer)
    assert (served.chunk.source, served.fallback.deadline_exceeded) == (LAST_KNOWN_GOOD, True)
    assert served.fallback.request_id == good.request_id
    assert (bench.counted("misses"), bench.counted(LAST_KNOWN_GOOD)) == (DURATIONS_KEPT + 2, 2)


def test_one_that_may_be_in_time_is_waited_for(bench: Bench) -> None:
    bench.good(request("pick"))
    too_slow(bench, DURATIONS_KEPT - 1)
    assert tried(bench, request("pick"))  # the one before those was in time
    too_slow(bench)
    assert tried(bench, replace(request("pick"), max_steps=2))  # with fewer steps nothing was tried yet
    assert not tried(bench, request("pick"))
    bench.budget_ms = ENOUGH_MS  # much longer than those were given
    assert bench.deadline(request("pick"), answer).chunk.source == POLICY


def test_who_has_no_last_good_chunk_waits_for_an_inference_that_was_always_too_slow(bench: Bench) -> None:
    too_slow(bench)
    assert tried(bench, request("pick"))


def test_after_a_failure_the_next_inference_is_waited_for(bench: Bench) -> None:
    bench.good(request("pick"))
    too_slow(bench)
    bench.budget_ms = ENOUGH_MS

    def failing(_: Request) -> Served:
        raise InferenceError("out of memory")

    with pytest.raises(InferenceError, match="out of memory"):
        bench.deadline(request("never answered"), failing)
    assert tried(bench, request("pick"))


def test_a_model_that_is_quick_again_is_waited_for_again(bench: Bench) -> None:
    """The chunk that stands in is made anew at half its age, and that inference tells how quick the model is."""
    aged_ns = int(0.7 * LONG_MS * 1e6)

    def is_quick_again() -> bool:
        bench.good(request("pick", stamp_s=0.0, received_ns=time.monotonic_ns() - aged_ns))
        too_slow(bench)
        kept = bench.counted(KEPT)
        assert tried(bench, request("pick", stamp_s=DT_S))  # no caller waited for this one
        assert bench.counted(KEPT) == kept + 1
        is_waited_for = tried(bench, request("pick", stamp_s=2 * DT_S))
        assert bench.counted(KEPT) == kept + 1
        return is_waited_for

    wait_for(is_quick_again)  # on a busy machine no inference is quick now and then


def test_a_late_inference_whose_chunk_would_be_too_old_is_given_up(bench: Bench) -> None:
    bench.budget_ms, bench.max_age_ms = SHORT_MS, 100.0
    began = time.monotonic()
    assert bench.deadline(request(), until_cancelled).chunk.source == HOLD
    wait_for(lambda: bench.deadline.busy == 0)
    assert time.monotonic() - began < 10.0
    assert (bench.counted(GIVEN_UP), bench.counted(KEPT)) == (1, 0)
    bench.max_age_ms = LONG_MS
    slow = Stubborn()
    bench.deadline(request(), slow)
    slow.release.set()
    wait_for(lambda: bench.counted(KEPT) == 1)


def test_a_late_inference_that_fails_makes_room_for_the_next(bench: Bench) -> None:
    def fail(_: Request) -> Served:
        raise InferenceError("out of memory")

    bench.budget_ms = SHORT_MS
    for ending in (fail, answer):
        slow = Stubborn(ending)
        bench.deadline(request(), slow)
        slow.release.set()
        wait_for(lambda: bench.deadline.busy == 0)
    assert (bench.counted(FAILED), bench.counted(KEPT)) == (1, 1)


def test_a_caller_whose_requests_always_come_over_their_budget_gets_a_first_chunk_too(bench: Bench) -> None:
    bench.position, bench.budget_ms = None, SHORT_MS

    def late() -> Request:
        return request(stamp_s=None, received_ns=time.monotonic_ns() - 50_000_000)

    aside = Stubborn(lambda request: answer(request, dt_s=3600.0))
    with pytest.raises(InferenceError):
        bench.deadline(late(), aside)
    aside.release.set()
    wait_for(lambda: bench.counted(KEPT) == 1)
    assert bench.deadline(late(), answer).chunk.source == LAST_KNOWN_GOOD


def test_the_late_inference_is_cancelled(bench: Bench) -> None:
    ended: list[BaseException] = []

    def proceed(request: Request) -> Served:
        try:
            return until_cancelled(request)
        except BaseException as error:
            ended.append(error)
            raise

    bench.good(request(stamp_s=0.0))
    bench.budget_ms = ENOUGH_MS
    assert bench.deadline(request(stamp_s=DT_S), proceed).chunk.source == LAST_KNOWN_GOOD
    wait_for(lambda: bench.deadline.busy == 0)
    assert isinstance(ended[0], CancelledError)
    assert bench.deadline.late == 1


def test_a_late_answer_stands_in_for_the_next_request_of_its_episode(bench: Bench) -> None:
    stubborn = Stubborn(lambda request: answer(request, ramp(0.1)))
    bench.budget_ms = ENOUGH_MS
    assert bench.deadline(request(stamp_s=0.0), stubborn).chunk.source == HOLD
    stubborn.release.set()
    wait_for(lambda: bench.deadline.busy == 0)
    assert bench.deadline.late == 1
    np.testing.assert_array_equal(bench.missed(request(stamp_s=2.5 * DT_S)).chunk.actions, ramp(0.1)[2:])


def test_a_late_error_reaches_only_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Request) -> Served:
        raise InferenceError("out of memory")

    stubborn = Stubborn(fail)
    bench.budget_ms = ENOUGH_MS
    assert bench.deadline(request(), stubborn).fallback.deadline_exceeded
    stubborn.release.set()
    wait_for(lambda: bench.deadline.busy == 0)
    assert bench.deadline.late == 1
    assert "1 late inferences failed" in caplog.text


def test_inferences_that_do_not_stop_cannot_pile_up() -> None:
    bench = Bench(budget_ms=ENOUGH_MS, most_workers=2)
    stubborn = Stubborn()
    for _ in range(6):
        assert bench.deadline(request(), stubborn).fallback.deadline_exceeded
    assert (stubborn.calls, bench.deadline.busy) == (2, 2)
    stubborn.release.set()
    wait_for(lambda: bench.deadline.busy == 0)
    assert bench.good(request()).chunk.source == POLICY


def burning(arm: Arm, bench: Bench) -> Proceed:
    """The arm's policy behind the deadline; above 1 rad it computes for seconds."""
    bench.deadline._hold_position = arm.guard.hold_position
    return arm.middleware_chain(deadline=bench.deadline)


def test_a_model_that_does_not_end_is_stopped_inside_onnxruntime_and_the_next_request_is_served(
    bench: Bench, export_dir: ExportDir
) -> None:
    arm = Arm(export_dir("burning"))
    act = burning(arm, bench)
    good = act(arm.request(stamp_s=0.0))
    bench.budget_ms = ENOUGH_MS
    missed = act(arm.request(stamp_s=2.5 * DT_S, joint1=1.5))
    assert (missed.chunk.source, missed.fallback.deadline_exceeded) == (LAST_KNOWN_GOOD, True)
    np.testing.assert_array_equal(missed.chunk.actions, good.chunk.actions[2:])
    wait_for(lambda: bench.deadline.busy == 0)
    bench.budget_ms = LONG_MS
    again = act(arm.request(stamp_s=0.0))
    assert (again.chunk.source, again.fallback.deadline_exceeded) == (POLICY, False)
    assert again.chunk.actions.tobytes() == good.chunk.actions.tobytes()


def test_requests_that_wait_for_a_model_that_does_not_end_leave_its_queue(
    bench: Bench, export_dir: ExportDir
) -> None:
    arm = Arm(export_dir("burning"))
    act = burning(arm, bench)
    bench.budget_ms = ENOUGH_MS
    sources: list[str] = []
    threads = [
        threading.Thread(target=lambda: sources.append(act(arm.request(joint1=1.5)).chunk.source))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sources == [HOLD] * 8
    wait_for(lambda: bench.deadline.busy == 1)  # the one whose chunk is needed
    bench.give_up()
    bench.budget_ms = LONG_MS
    assert act(arm.request()).chunk.source == POLICY
