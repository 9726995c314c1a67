# SPDX-License-Identifier: Apache-2.0
"""Which answer may be the fallback for a late one, and from which row: by made-up stamps and times of receipt."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from wedge_requests import DT_S, answer, ramp, request

from reflex_core.chunks.last_good import (
    CUT_OFF,
    DURATIONS_KEPT,
    EPISODES_KEPT,
    STEPS_KEPT,
    Good,
    LastGood,
    RecentDurations,
    key_of,
)
from reflex_core.values import CLOUD, HOLD, LAST_KNOWN_GOOD, POLICY, Request

SECOND_NS = 10**9


def make_request(
    episode_id: str | None = "pick", *, stamp_s: float | None = 0.0, received_s: float = 0.0
) -> Request:
    return request(episode_id, stamp_s=stamp_s, received_ns=10 * SECOND_NS + round(received_s * SECOND_NS))


def good(of: Request, dt_s: float = DT_S) -> Good:
    seen = of.observation
    return Good(answer(of, dt_s=dt_s), of.received_ns, seen.stamp_ns, seen.instruction)


def remembered(*requests: Request) -> LastGood:
    known = LastGood()
    for each in requests:
        assert known.remember(each, answer(each))
    return known


def found(known: LastGood, later: Request) -> str:
    """Whose answer stands in."""
    one = known.find(later)
    return one.served.request_id if one is not None else ""


def test_poses_that_were_not_reached_are_no_fallback() -> None:
    late = make_request()
    assert not LastGood().remember(late, dataclasses.replace(answer(late), unreached="row 3"))


def test_rows_are_over_by_the_stamps_where_both_are_known() -> None:
    """Not by the times of receipt: a simulator may be slower than we are."""
    began = good(make_request(stamp_s=0.0))
    assert began.elapsed_rows(make_request(stamp_s=3.5 * DT_S, received_s=9.0)) == 3
    assert began.elapsed_rows(make_request(stamp_s=-3.5 * DT_S, received_s=9.0)) == -3


def test_rows_are_over_as_the_caller_counts_them_of_an_answer_that_it_names() -> None:
    """A robot that was paused, or a slow simulator, has executed less than the clock says."""
    known, first = LastGood(), make_request(stamp_s=None)
    known.remember(first, answer(first))

    def over(rows: float, of: str) -> int:
        counted = replace(
            make_request(stamp_s=None, received_s=8 * DT_S), elapsed_rows=rows, previous_request_id=of
        )
        found = known.find(counted)
        assert found is not None
        return found.elapsed_rows(counted)

    assert (over(3.5, first.request_id), over(3.5, ""), over(3.5, "another")) == (3, 8, 8)
    second, began = make_request(stamp_s=None, received_s=3 * DT_S), known.find(first)
    assert began is not None
    known.continues(began, second, 3)
    assert (over(2.0, second.request_id), over(4.0, first.request_id)) == (5, 4)


@pytest.mark.parametrize(("first", "second"), [(0.0, None), (None, 0.0), (None, None)])
def test_rows_are_over_by_the_times_of_receipt_otherwise(first: float | None, second: float | None) -> None:
    began = good(make_request(stamp_s=first, received_s=1.0))
    assert began.elapsed_rows(make_request(stamp_s=second, received_s=1.0 + 4.5 * DT_S)) == 4


@pytest.mark.parametrize("dt_s", [0.0, -1.0])
def test_of_rows_without_a_rate_none_is_over(dt_s: float) -> None:
    assert good(make_request(), dt_s).elapsed_rows(make_request(stamp_s=99.0)) == 0


def test_only_finite_answers_of_a_model_are_kept() -> None:
    known, later = LastGood(), make_request()
    for source, kept in ((POLICY, True), (CLOUD, True), (HOLD, False), (LAST_KNOWN_GOOD, False)):
        assert known.remember(later, answer(later, source=source)) is kept
    spoiled = ramp()
    spoiled[9, 6] = np.inf
    assert not known.remember(later, answer(later, spoiled))
    assert not known.remember(make_request(None), answer(make_request(None)))
    assert known.find(make_request(None)) is None


def test_of_two_answers_the_one_to_the_newer_request_is_kept() -> None:
    newer, older = make_request(received_s=2.0), make_request(received_s=1.0)
    known = remembered(newer)
    assert not known.remember(older, answer(older))
    assert found(known, make_request()) == newer.request_id
    again = make_request(received_s=2.0)
    assert known.remember(again, answer(again))
    assert found(known, make_request()) == again.request_id


def test_the_episode_answered_last_is_forgotten_last() -> None:
    requests = [make_request(f"episode-{number}") for number in range(EPISODES_KEPT)]
    known = remembered(*requests)
    assert found(known, make_request("episode-0")) == requests[0].request_id
    again, more = make_request("episode-0", received_s=1.0), make_request("one more")
    for each in (again, more):
        assert known.remember(each, answer(each))
    assert found(known, make_request("episode-0")) == again.request_id
    assert known.find(make_request("episode-1")) is None
    assert found(known, make_request("episode-2")) == requests[2].request_id


def test_what_the_robot_does_not_follow_is_forgotten_and_nothing_else() -> None:
    robot, program, other = make_request("pick"), make_request("pick", stamp_s=None), make_request("place")
    known = remembered(robot, program, other)
    known.forget("pick")
    known.forget("never known")
    assert known.find(robot) is None
    assert found(known, program) == program.request_id
    assert found(known, other) == other.request_id


def test_what_is_kept_is_for_the_same_words_of_the_same_robot() -> None:
    first = make_request("pick")
    known = remembered(first)
    assert found(known, first) == first.request_id
    observation = dataclasses.replace(first.observation, instruction="put it back")
    assert known.find(dataclasses.replace(first, observation=observation)) is None
    assert known.find(dataclasses.replace(first, caller="arm-2")) is None


def test_who_names_neither_itself_nor_an_episode_is_known_by_where_it_asks_from() -> None:
    here, there = (dataclasses.replace(make_request(None), caller=f"peer:10.0.0.{host}") for host in (1, 2))
    known = remembered(here)
    assert found(known, here) == here.request_id
    assert known.find(there) is None
    assert known.find(make_request(None)) is None
    assert [key is not None and key.anonymous for key in map(key_of, (here, make_request("pick")))] == [
        True,
        False,
    ]


def took(*durations_s: float, max_steps: int | None = None) -> RecentDurations:
    known = RecentDurations()
    for duration_s in durations_s:
        known.add(max_steps, duration_s)
    return known


def test_how_quick_the_newest_inferences_were_is_said_once_there_are_enough() -> None:
    known = took(*[0.5] * (DURATIONS_KEPT - 1))
    assert known.fastest_s(None) == 0.0, "anything may be in time"
    known.add(None, 0.25)
    assert known.fastest_s(None) == 0.25
    for _ in range(DURATIONS_KEPT):
        assert known.fastest_s(None) == 0.25
        known.add(None, 0.5)
    assert known.fastest_s(None) == 0.5, "the quick one is too long ago"
    known.clear()
    assert known.fastest_s(None) == 0.0


def test_what_was_cut_off_would_have_taken_longer() -> None:
    assert CUT_OFF == 1.25
    known = took(*[0.75] * (DURATIONS_KEPT - 1))
    known.add_cut_off(None, 0.5)
    assert known.fastest_s(None) == 0.625


def test_inferences_of_other_numbers_of_steps_say_nothing_and_few_are_kept() -> None:
    known = RecentDurations()
    for steps in range(STEPS_KEPT):
        for _ in range(DURATIONS_KEPT):
            known.add(steps, 1.0 + steps)
    assert [known.fastest_s(steps) for steps in (0, STEPS_KEPT - 1, None)] == [1.0, float(STEPS_KEPT), 0.0]
    known.add(0, 0.5)
    known.add(None, 9.0)
    assert known.fastest_s(0) == 0.5, "used again"
    assert [known.fastest_s(steps) for steps in (1, 2)] == [0.0, 3.0]


def test_a_chunk_of_an_earlier_episode_is_none_in_one_of_the_same_name() -> None:
    own, one, other = (
        replace(make_request(stamp_s=stamp_s), caller=caller)
        for caller, stamp_s in (("", 0.0), ("arm-1", None), ("arm-2", None))
    )
    known = remembered(own, one, other)
    known.begins("pick", "arm-1")
    assert [known.find(each) is None for each in (own, one, other)] == [False, True, False]
    known.begins("pick")
    assert [known.find(each) is None for each in (own, one, other)] == [True, True, True]
