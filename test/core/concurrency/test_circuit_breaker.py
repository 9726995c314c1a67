# SPDX-License-Identifier: Apache-2.0
"""The state machine of both circuit breakers, with a clock that the test moves."""

from __future__ import annotations

import math

import pytest

from reflex_core.concurrency.circuit_breaker import CLOSED, HALF_OPEN, OPEN, CircuitBreaker, Refused

COOLDOWN_S = 10.0


class Bench:
    """A breaker that opens at the second failure, its clock, and the states that it went through."""

    def __init__(self, cooldown_s: float = COOLDOWN_S) -> None:
        self.now_s = 100.0
        self.changes: list[tuple[str, str]] = []
        self.breaker = CircuitBreaker(
            2, cooldown_s, lambda state, reason: self.changes.append((state, reason)), lambda: self.now_s
        )

    def opened(self) -> int:
        """Open it; returns the term in which it was closed."""
        term = self.entered()
        for _ in range(2):
            self.breaker.failed("broken", term)
        assert self.breaker.state == OPEN
        return term

    def entered(self) -> int:
        term = self.breaker.enter()
        assert isinstance(term, int)
        return term


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_failures_in_a_row_open_it_and_a_success_between_them_begins_the_row_again(bench: Bench) -> None:
    bench.breaker.failed("one")
    bench.breaker.succeeded()
    bench.breaker.failed("two")
    assert (bench.breaker.state, bench.breaker.failures, bench.changes) == (CLOSED, 1, [])
    bench.breaker.failed("three")
    assert bench.changes == [(OPEN, "2 failures in a row, the last: three")]


def test_nothing_passes_until_the_cooldown_is_over_and_then_one_at_a_time(bench: Bench) -> None:
    bench.opened()
    assert (bench.breaker.enter(), bench.breaker.probe_due) == (Refused(COOLDOWN_S, False, 2), False)
    bench.now_s += COOLDOWN_S
    assert bench.breaker.probe_due
    bench.entered()
    assert bench.breaker.state == HALF_OPEN
    assert bench.breaker.enter() == Refused(COOLDOWN_S, True, 2)
    bench.now_s += COOLDOWN_S  # the probe hangs
    bench.entered()


@pytest.mark.parametrize(("ends", "state", "failures"), [("succeeded", CLOSED, 0), ("failed", OPEN, 3)])
def test_a_probe_decides(bench: Bench, ends: str, state: str, failures: int) -> None:
    bench.opened()
    bench.now_s += COOLDOWN_S
    term = bench.entered()
    bench.breaker.succeeded(term) if ends == "succeeded" else bench.breaker.failed("still", term)
    assert (bench.breaker.state, bench.breaker.failures) == (state, failures)
    assert isinstance(bench.breaker.enter(), int) == (state == CLOSED)


def test_a_probe_that_showed_nothing_makes_room_for_the_next(bench: Bench) -> None:
    bench.opened()
    bench.now_s += COOLDOWN_S
    bench.breaker.undecided(bench.entered())
    assert (bench.breaker.state, bench.breaker.probe_due) == (HALF_OPEN, True)
    bench.entered()


def test_what_began_in_an_earlier_term_says_nothing(bench: Bench) -> None:
    before = bench.opened()
    bench.now_s += COOLDOWN_S
    probe = bench.entered()
    bench.breaker.succeeded(before)
    bench.breaker.failed("late", before)
    bench.breaker.undecided(before)
    assert (bench.breaker.state, bench.breaker.failures, bench.breaker.probe_due) == (HALF_OPEN, 2, False)
    bench.breaker.succeeded(probe)
    assert bench.breaker.state == CLOSED


def test_without_a_cooldown_only_half_opening_lets_calls_pass_again() -> None:
    bench = Bench(math.inf)
    bench.opened()
    bench.now_s += 1e9
    assert isinstance(bench.breaker.enter(), Refused)
    bench.breaker.succeeded()  # of a call that was under way
    assert bench.breaker.state == OPEN
    bench.breaker.half_open("it says that it is well")
    bench.breaker.half_open("it says so again")
    assert bench.changes[1:] == [(HALF_OPEN, "it says that it is well")]
    bench.breaker.failed("it is not")
    assert bench.breaker.state == OPEN


def test_it_can_be_closed_by_hand_whatever_the_calls_say(bench: Bench) -> None:
    bench.breaker.failed("one")
    bench.breaker.close("by hand")
    assert (bench.breaker.failures, bench.changes) == (0, [])
    bench.opened()
    bench.breaker.close("by hand")
    assert (bench.breaker.state, bench.breaker.failures) == (CLOSED, 0)
    assert bench.changes[-1] == (CLOSED, "by hand")
