# SPDX-License-Identifier: Apache-2.0
"""Which goals may still be under way, and which are to be cancelled. On a clock that the test sets."""

from __future__ import annotations

from reflex_core.robot.goals_under_way import AGAIN_S, ANSWER_S, AT_ONCE, KEPT, GoalsUnderWay

S = 1_000_000_000


def goals(*answers: bool) -> GoalsUnderWay[str]:
    """Goals that were accepted (True) or rejected, sent at 0."""
    found: GoalsUnderWay[str] = GoalsUnderWay()
    for accepted in answers:
        number = found.send(0)
        if accepted:
            found.accept(number, f"goal {number}")
        else:
            found.end(number)
    return found


def cancelled(found: GoalsUnderWay[str], now_ns: int = 0) -> list[str]:
    return [each.handle for each in found.cancel(now_ns)]


def test_a_goal_is_kept_whatever_becomes_of_later_ones_until_it_has_ended() -> None:
    found = goals(True, False, True)
    found.send(0)
    assert (found.moving, found.unwanted, cancelled(found)) == (True, False, [])
    found.void()
    assert cancelled(found) == ["goal 3", "goal 1"]
    assert cancelled(found) == []  # they are asked
    for number in (1, 3):
        assert found.unwanted
        found.settle(number)
    assert found.unwanted  # the one that has no answer
    found.end(4)
    assert (found.unwanted, found.moving) == (False, False)


def test_a_goal_that_is_accepted_after_the_hold_is_to_be_cancelled_and_a_newer_one_is_not() -> None:
    found = goals()
    first = found.send(0)
    found.void()
    second = found.send(0)
    assert found.give_up(int(ANSWER_S * S)) == []
    assert found.give_up(int(ANSWER_S * S) + 1) == [first, second]
    assert (found.unwanted, found.wanted) == (False, False)
    found.accept(first, "first")
    found.accept(second, "second")
    assert (found.unwanted, found.wanted) == (True, True)
    assert cancelled(found) == ["first"]


def test_what_a_server_had_accepted_before_it_went_is_asked_for_when_there_is_one() -> None:
    found = goals(True)
    found.void()
    assert cancelled(found) == ["goal 1"]
    found.leave()
    assert (found.away, found.unwanted, found.moving) == (True, True, False)
    found.come_back()
    assert cancelled(found) == ["goal 1"]
    found.end(1)
    assert not found.unwanted


def test_goals_whose_end_is_never_known_are_bounded_and_asked_for_a_few_at_a_time() -> None:
    found = goals(*[True] * (KEPT + 5))
    found.void()
    due = []
    while some := found.cancel(0):
        assert len(some) <= AT_ONCE
        due += [each.number for each in some]
        for each in some:
            found.settle(each.number)
    assert due == list(range(KEPT + 5, 5, -1))


def test_goals_whose_cancellation_is_never_answered_keep_no_other_goal_from_being_asked_for() -> None:
    found = goals(*[True] * (AT_ONCE + 2))
    found.void()
    assert cancelled(found) == [f"goal {number}" for number in range(AT_ONCE + 2, 2, -1)]
    assert cancelled(found, int(ANSWER_S * S))[:2] == ["goal 2", "goal 1"]


def test_a_cancellation_that_is_refused_or_not_answered_is_due_again_later() -> None:
    found = goals(True)
    found.void()
    assert [each.unanswered for each in found.cancel(0)] == [False]
    assert found.refuse(1, 0)
    assert found.cancel(int(AGAIN_S * S) - 1) == []
    assert [each.unanswered for each in found.cancel(int(AGAIN_S * S))] == [False]
    later_ns = int((AGAIN_S + ANSWER_S) * S)
    assert found.cancel(later_ns - 1) == []
    assert [each.unanswered for each in found.cancel(later_ns)] == [True]
    assert found.settle(1)
    assert not found.refuse(1, later_ns)
    assert not found.unwanted
