# SPDX-License-Identifier: Apache-2.0
"""The deadline: who answers when the model does not, and with which rows."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from deadline_bench import ENOUGH_MS, LONG_MS, MEASURED, SHORT_MS, Bench, Stubborn, until_cancelled
from servers import ExportDir
from wedge_requests import DT_S, HORIZON, Arm, answer, ramp, request

from reflex_core.chunks.last_good import EPISODES_KEPT
from reflex_core.errors import InferenceError, NotReadyError, ObservationError
from reflex_core.text.rate_limit import RateLimit
from reflex_core.values import CLOUD, HOLD, LAST_KNOWN_GOOD, POLICY, Request, Served
from reflex_core.wedges.deadline import RESERVE_MS, reserve_ms
from reflex_core.wedges.wedge import Proceed


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


class Starved:
    """A task whose waiting thread is given no processor before the budget is over."""

    def __init__(self, task: Any, until_ns: int) -> None:
        self._task, self._until_ns = task, until_ns

    def wait(self, timeout_s: float) -> bool:
        there = self._task.wait(60.0)
        while time.monotonic_ns() <= self._until_ns:
            time.sleep(0.001)
        return bool(there)

    def outcome(self) -> Served:
        found: Served = self._task.outcome()
        return found


def test_an_answer_that_waited_for_a_processor_beyond_the_budget_says_that_it_is_late(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.budget_ms = ENOUGH_MS
    incoming = request()
    until_ns = incoming.received_ns + int((ENOUGH_MS + 100 * RESERVE_MS) * 1e6)
    start = bench.deadline._workers.start
    monkeypatch.setattr(bench.deadline._workers, "start", lambda work: Starved(start(work), until_ns))
    rows = ramp()
    served = bench.deadline(incoming, lambda given: answer(given, rows))
    assert served.fallback.deadline_exceeded
    assert served.chunk.source == LAST_KNOWN_GOOD
    np.testing.assert_array_equal(served.chunk.actions, rows)
    assert bench.counted("misses") == 1


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


def test_the_deadline_of_a_request_counts_where_there_is_no_budget(bench: Bench) -> None:
    bench.budget_ms = 0.0
    incoming = replace(request(), deadline_ns=time.monotonic_ns() + 10_000_000)
    assert bench.deadline(incoming, until_cancelled).fallback.deadline_exceeded
    assert bench.counted("misses") == 1


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
