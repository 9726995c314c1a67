# SPDX-License-Identifier: Apache-2.0
"""The deadline: who answers when the model does not, with which rows, and what becomes of the late inference."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from http_client import wait_for
from servers import ExportDir
from wedge_requests import DT_S, HORIZON, MIDDLE, Arm, answer, count, counters, ramp, request

from reflex_core.chunks.last_good import DURATIONS_KEPT, EPISODES_KEPT
from reflex_core.errors import CancelledError, InferenceError, NotReadyError, ObservationError
from reflex_core.text.rate_limit import RateLimit
from reflex_core.values import CLOUD, HOLD, LAST_KNOWN_GOOD, POLICY, Floats, Request, Served
from reflex_core.wedges.deadline import FAILED, GIVEN_UP, KEPT, Deadline, reserve_ms
from reflex_core.wedges.wedge import Proceed

SHORT_MS, LONG_MS = 20.0, 60_000.0
ENOUGH_MS = 300.0  # for an inference to begin on a busy machine
MEASURED: Floats = (MIDDLE + 0.2).astype(np.float32)


@dataclass
class Bench:
    """A deadline whose budget a test may change, and the counters it counts with."""

    budget_ms: float = LONG_MS
    max_age_ms: float = LONG_MS
    position: Floats | None = field(default_factory=lambda: MEASURED)
    most_workers: int = 32

    def __post_init__(self) -> None:
        self.counts = counters("misses", LAST_KNOWN_GOOD, HOLD, "holds", KEPT, FAILED, GIVEN_UP)
        self.deadline = Deadline(
            lambda: self.budget_ms,
            lambda: self.max_age_ms,
            lambda _: self.position,
            lambda _: answer(request()),
            self.counts["misses"],
            self.counts,
            self.counts["holds"],
            self.most_workers,
            self.counts,
        )

    def good(self, request: Request, actions: Floats | None = None, source: str = POLICY) -> Served:
        self.budget_ms = LONG_MS
        return self.deadline(request, lambda bounded: answer(bounded, actions, source=source))

    def missed(self, request: Request) -> Served:
        """The answer to a request whose inference goes on until it is cancelled, which it is by now."""
        self.budget_ms = SHORT_MS
        try:
            return self.deadline(replace(request, received_ns=time.monotonic_ns()), until_cancelled)
        finally:
            self.give_up()

    def give_up(self) -> None:
        """End what is left to finish."""
        self.deadline.close()
        wait_for(lambda: self.deadline.busy == 0)
        self.deadline._closed = False

    def counted(self, name: str) -> float:
        return count(self.counts[name])


def until_cancelled(request: Request) -> Served:
    assert request.cancellation is not None
    stopped = threading.Event()
    with request.cancellation.calling(stopped.set):
        stopped.wait(30)
    request.cancellation.check()
    raise AssertionError("the inference was not cancelled")


class Stubborn:
    """An inference that no cancellation reaches; it ends when the test says so."""

    def __init__(self, ending: Callable[[Request], Served] = answer) -> None:
        self.ending = ending
        self.calls = 0
        self.release = threading.Event()

    def __call__(self, request: Request) -> Served:
        self.calls += 1
        self.release.wait(30)
        return self.ending(request)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_without_a_budget_it_stays_on_the_callers_thread_and_changes_nothing(bench: Bench) -> None:
    bench.budget_ms = 0.0
    incoming = request()
    made = answer(incoming)
    threads: list[int] = []

    def proceed(given: Request) -> Served:
        threads.append(threading.get_ident())
        assert given is incoming
        return made

    assert bench.deadline(incoming, proceed) is made
    assert threads == [threading.get_ident()]


def test_inside_the_budget_the_answer_is_the_policys(bench: Bench) -> None:
    incoming = request()
    served = bench.good(incoming)
    assert (served.chunk.source, served.fallback.deadline_exceeded, served.fallback.age_ms) == (
        POLICY,
        False,
        0.0,
    )
    assert served.request_id == incoming.request_id
    assert bench.counted("misses") == 0


def test_the_rest_of_the_chain_learns_when_the_answer_must_be_there(bench: Bench) -> None:
    bench.budget_ms = 1000.0
    seen: list[Request] = []

    def proceed(given: Request) -> Served:
        seen.append(given)
        return answer(given)

    incoming = request()
    bench.deadline(incoming, proceed)
    assert seen[0].deadline_ns == incoming.received_ns + 999_000_000
    assert seen[0].cancellation is not None


@pytest.mark.parametrize(("budget_ms", "reserved_ms"), [(1000.0, 1.0), (33.0, 1.0), (5.0, 0.5)])
def test_some_of_the_budget_is_kept_for_the_reply(budget_ms: float, reserved_ms: float) -> None:
    assert reserve_ms(budget_ms) == reserved_ms


def test_an_earlier_deadline_of_the_request_itself_counts(bench: Bench) -> None:
    incoming = replace(request(), deadline_ns=time.monotonic_ns() + 10_000_000)
    assert bench.deadline(incoming, until_cancelled).fallback.deadline_exceeded


def test_over_the_deadline_the_last_good_chunk_goes_on_from_the_row_that_is_due(bench: Bench) -> None:
    bench.good(request(stamp_s=0.0))
    incoming = request(stamp_s=3.4 * DT_S)
    served = bench.missed(incoming)
    np.testing.assert_array_equal(served.chunk.actions, ramp()[3:])
    np.testing.assert_array_equal(served.raw_actions, ramp()[3:])
    assert (served.chunk.source, served.chunk.start_index) == (LAST_KNOWN_GOOD, 0)
    assert served.fallback.deadline_exceeded
    assert served.fallback.age_ms >= SHORT_MS - reserve_ms(SHORT_MS)
    assert (served.request_id, served.episode_id, served.inference.denoise_steps) == (
        incoming.request_id,
        "pick",
        0,
    )
    assert (bench.counted("misses"), bench.counted(LAST_KNOWN_GOOD), bench.counted(HOLD)) == (1, 1, 0)


def test_without_stamps_the_times_of_receipt_say_which_row_is_due(bench: Bench) -> None:
    now = time.monotonic_ns()
    bench.good(request(stamp_s=None, received_ns=now - int(4.5 * DT_S * 1e9)))
    bench.budget_ms = SHORT_MS
    served = bench.deadline(request(stamp_s=None, received_ns=now), until_cancelled)
    np.testing.assert_array_equal(served.chunk.actions, ramp()[4:])


def test_each_miss_goes_on_from_the_good_chunk_itself(bench: Bench) -> None:
    bench.good(request(stamp_s=0.0))
    for row in (1, 2, 7):
        served = bench.missed(request(stamp_s=(row + 0.5) * DT_S))
        np.testing.assert_array_equal(served.chunk.actions, ramp()[row:])


def test_once_the_tail_is_spent_the_robot_holds(bench: Bench) -> None:
    bench.good(request(stamp_s=0.0))
    served = bench.missed(request(stamp_s=(HORIZON + 0.5) * DT_S))
    assert (served.chunk.source, served.hold_reason) == (HOLD, "deadline")
    assert served.fallback.deadline_exceeded
    np.testing.assert_array_equal(served.chunk.actions, np.tile(MEASURED, (HORIZON, 1)))
    assert (bench.counted(HOLD), bench.counted("holds"), bench.counted(LAST_KNOWN_GOOD)) == (1, 1, 0)


def test_a_tail_that_ended_while_the_request_waited_is_spent(bench: Bench) -> None:
    bench.good(request(stamp_s=0.0))
    bench.budget_ms = 1.0
    late = request(stamp_s=8.5 * DT_S, received_ns=time.monotonic_ns() - int(3 * DT_S * 1e9))
    assert bench.deadline(late, until_cancelled).chunk.source == HOLD


def test_a_chunk_older_than_the_limit_is_not_executed(bench: Bench) -> None:
    bench.good(request(stamp_s=0.0))
    bench.max_age_ms = 1.0
    assert bench.missed(request(stamp_s=0.0)).chunk.source == HOLD


def test_a_chunk_from_after_the_request_is_not_executed(bench: Bench) -> None:
    bench.good(request(stamp_s=5.0))
    assert bench.missed(request(stamp_s=1.0)).chunk.source == HOLD


def test_another_episodes_chunk_is_never_used(bench: Bench) -> None:
    bench.good(request("pick"))
    assert bench.missed(request("place")).chunk.source == HOLD


def test_a_chunk_for_another_instruction_is_never_used(bench: Bench) -> None:
    incoming = request("ep")
    bench.good(incoming)
    other = replace(incoming, observation=replace(incoming.observation, instruction="put it back"))
    assert bench.missed(other).chunk.source == HOLD


def test_a_client_that_names_the_robots_episode_is_no_fallback_for_it(bench: Bench) -> None:
    """The robot's observations are stamped, those of programs over HTTP are not."""
    incoming = request("ep")
    stamped = replace(incoming, observation=replace(incoming.observation, stamp_ns=10**18))
    bench.good(incoming)
    assert bench.missed(stamped).chunk.source == HOLD
    bench.good(stamped)
    assert bench.missed(stamped).chunk.source == LAST_KNOWN_GOOD


def test_what_the_robot_does_not_follow_is_no_fallback(bench: Bench) -> None:
    incoming = request("ep")
    stamped = replace(incoming, observation=replace(incoming.observation, stamp_ns=10**18))
    bench.good(stamped)
    bench.deadline.forget("ep")
    assert bench.missed(stamped).chunk.source == HOLD


def test_a_fallback_says_whose_answer_it_was(bench: Bench) -> None:
    incoming = request("ep")
    good = bench.good(incoming)
    assert bench.missed(replace(incoming, request_id="later")).fallback.request_id == good.request_id


def test_requests_without_an_episode_never_get_anybodys_chunk(bench: Bench) -> None:
    bench.good(request(None))
    bench.good(request("pick"))
    assert bench.missed(request(None)).chunk.source == HOLD


def test_what_is_not_finite_or_not_inferred_is_not_a_good_chunk(bench: Bench) -> None:
    spoiled = ramp()
    spoiled[2, 3] = np.nan
    bench.good(request("nan"), spoiled)
    bench.good(request("hold"), source=HOLD)
    assert bench.missed(request("nan")).chunk.source == HOLD
    assert bench.missed(request("hold")).chunk.source == HOLD
    bench.good(request("cloud"), source=CLOUD)
    assert bench.missed(request("cloud")).chunk.source == LAST_KNOWN_GOOD


def test_a_chunk_of_unknown_rate_stands_in_from_its_first_row_with_its_age(bench: Bench) -> None:
    bench.deadline(request(stamp_s=0.0), lambda request: answer(request, dt_s=0.0))
    served = bench.missed(request(stamp_s=5 * DT_S))
    np.testing.assert_array_equal(served.chunk.actions, ramp())
    assert (served.chunk.source, served.fallback.deadline_exceeded) == (LAST_KNOWN_GOOD, True)
    assert served.fallback.age_ms >= SHORT_MS - reserve_ms(SHORT_MS)
    bench.max_age_ms = 1.0
    assert bench.missed(request(stamp_s=6 * DT_S)).chunk.source == HOLD


def test_an_older_answer_that_comes_late_does_not_replace_a_newer_one(bench: Bench) -> None:
    newer = request(stamp_s=2 * DT_S)
    bench.good(newer, ramp(0.1))
    bench.good(request(stamp_s=0.0, received_ns=newer.received_ns - 1_000_000), ramp())
    served = bench.missed(request(stamp_s=2.5 * DT_S))
    np.testing.assert_array_equal(served.chunk.actions, ramp(0.1))


def test_the_episodes_it_remembers_are_bounded(bench: Bench) -> None:
    for number in range(EPISODES_KEPT + 1):
        bench.good(request(f"episode-{number}"))
    assert bench.missed(request("episode-0")).chunk.source == HOLD
    assert bench.missed(request("episode-1")).chunk.source == LAST_KNOWN_GOOD


def test_with_nowhere_to_hold_it_is_an_error(bench: Bench) -> None:
    bench.position = None
    with pytest.raises(InferenceError, match="neither a chunk of this episode nor a position") as caught:
        bench.missed(request())
    assert caught.value.slug == "deadline-exceeded"
    assert bench.counted("misses") == 1


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
    bench.good(request("pick", stamp_s=0.0, received_ns=time.monotonic_ns() - aged_ns))
    too_slow(bench)
    assert tried(bench, request("pick", stamp_s=DT_S))  # no caller waited for this one
    assert bench.counted(KEPT) == 1
    assert tried(bench, request("pick", stamp_s=2 * DT_S))
    assert bench.counted(KEPT) == 1


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


def test_who_gives_no_name_gets_the_chunk_of_its_address_only_where_nothing_can_be_held(bench: Bench) -> None:
    incoming = replace(request(None, stamp_s=None), caller="peer:10.0.0.1")
    bench.good(incoming)
    assert bench.missed(incoming).chunk.source == HOLD
    bench.position = None
    assert bench.missed(incoming).chunk.source == LAST_KNOWN_GOOD
    with pytest.raises(InferenceError):
        bench.missed(replace(incoming, caller="peer:10.0.0.2"))


def test_robots_that_share_an_episode_never_get_each_others_chunk(bench: Bench) -> None:
    incoming = request("shared", stamp_s=None)
    bench.good(replace(incoming, caller="arm-1"))
    assert bench.missed(replace(incoming, caller="arm-2")).chunk.source == HOLD
    assert bench.missed(incoming).chunk.source == HOLD
    assert bench.missed(replace(incoming, caller="arm-1")).chunk.source == LAST_KNOWN_GOOD


def test_a_request_that_comes_over_its_budget_is_answered_without_inference(bench: Bench) -> None:
    bench.good(request())
    bench.budget_ms = SHORT_MS
    stubborn = Stubborn()
    served = bench.deadline(request(received_ns=time.monotonic_ns() - 50_000_000), stubborn)
    assert (served.chunk.source, stubborn.calls) == (LAST_KNOWN_GOOD, 0)


@pytest.mark.parametrize(
    "error", [InferenceError("broken"), NotReadyError("degraded"), ObservationError("bad"), ValueError("odd")]
)
def test_an_error_inside_the_budget_is_the_callers(bench: Bench, error: Exception) -> None:
    def proceed(_: Request) -> Served:
        raise error

    with pytest.raises(type(error)) as caught:
        bench.deadline(request(), proceed)
    assert caught.value is error
    assert (bench.counted("misses"), bench.deadline.late) == (0, 0)


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


def test_misses_are_logged_together_lest_every_request_writes_a_line(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        bench.missed(request())
        bench.good(request())
    assert caplog.text.count("the deadline was missed 1 times, the last by request") == 1
    assert len(caplog.records) == 1


def test_what_happens_often_is_spoken_of_seldom() -> None:
    always, once = RateLimit(quiet_s=0.0), RateLimit(quiet_s=3600.0)
    assert [always.times() for _ in range(3)] == [1, 1, 1]
    assert [once.times() for _ in range(3)] == [1, 0, 0]


def test_sixteen_callers_at_once_get_their_own_answers(bench: Bench) -> None:
    bench.budget_ms = LONG_MS
    served: dict[str, Served] = {}

    def caller(episode_id: str) -> None:
        for _ in range(50):
            incoming = request(episode_id)
            served[episode_id] = bench.deadline(incoming, answer)
            assert served[episode_id].request_id == incoming.request_id

    threads = [threading.Thread(target=caller, args=(f"episode-{number}",)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {name: one.episode_id for name, one in served.items()} == {name: name for name in served}
    assert len(served) == 16


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


def test_before_the_first_good_chunk_it_holds_where_the_robot_is(bench: Bench, export_dir: ExportDir) -> None:
    arm = Arm(export_dir("burning"))
    act = burning(arm, bench)
    bench.budget_ms = ENOUGH_MS
    incoming = arm.request(joint1=1.5)
    served = act(incoming)
    bench.give_up()
    assert served.chunk.source == HOLD
    assert incoming.observation.state is not None
    np.testing.assert_array_equal(served.chunk.actions, np.tile(incoming.observation.state, (HORIZON, 1)))
