# SPDX-License-Identifier: Apache-2.0
"""What can be known of clocks: that this machine's was set, and how far the sensors' are from it."""

from __future__ import annotations

import pytest

from reflex_core.robot.clocks import STEP_S, WINDOW_S, ClockSteps, StampLags

SECOND_NS = 10**9


class Clocks:
    """A monotonic and a wall clock; reading one takes `slow_ns`."""

    def __init__(self) -> None:
        self.monotonic_ns, self.wall_ns, self.slow_ns = 5 * SECOND_NS, 10**18, 0

    def passes(self, seconds: float) -> None:
        self.monotonic_ns += int(seconds * SECOND_NS)
        self.wall_ns += int(seconds * SECOND_NS)

    def monotonic(self) -> int:
        self.monotonic_ns += self.slow_ns
        return self.monotonic_ns


@pytest.mark.parametrize("step_s", [30.0, -30.0, 0.2, -0.2])
def test_a_step_is_seen_once_with_its_size(step_s: float) -> None:
    clocks = Clocks()
    steps = ClockSteps(lambda: clocks.wall_ns, clocks.monotonic)
    clocks.passes(1.0)
    assert steps.step_s() == 0.0
    clocks.wall_ns += int(step_s * SECOND_NS)
    clocks.passes(0.02)
    assert steps.step_s() == pytest.approx(step_s)
    assert steps.step_s() == 0.0


def test_a_clock_that_is_slewed_is_not_set() -> None:
    clocks = Clocks()
    steps = ClockSteps(lambda: clocks.wall_ns, clocks.monotonic)
    for _ in range(1000):
        clocks.passes(1.0)
        clocks.wall_ns += int(STEP_S * SECOND_NS) // 2
        assert steps.step_s() == 0.0


def test_a_thread_that_was_away_while_it_read_the_clocks_says_nothing() -> None:
    clocks = Clocks()
    steps = ClockSteps(lambda: clocks.wall_ns, clocks.monotonic)
    clocks.slow_ns = SECOND_NS
    assert steps.step_s() == 0.0
    clocks.slow_ns = 0
    clocks.wall_ns += 3 * SECOND_NS  # as much as the monotonic clock went on, less what it read at first
    assert abs(steps.step_s()) == pytest.approx(1.0)


def test_the_least_age_of_each_stream_is_kept_over_two_windows() -> None:
    lags = StampLags()
    window_ns = int(WINDOW_S * SECOND_NS)
    for now_ns, age_ms in ((0, 7), (1, -80), (window_ns, 5), (window_ns + 1, 9)):
        lags.note("state", age_ms * 10**6, now_ns)
    lags.note("camera", 30 * 10**6, 0)
    assert lags.smallest_s() == {"state": pytest.approx(-0.08), "camera": pytest.approx(0.03)}
    lags.note("state", 6 * 10**6, 2 * window_ns)
    assert lags.smallest_s()["state"] == pytest.approx(0.005), "what is long ago is forgotten"
    lags.clear()
    assert lags.smallest_s() == {}


@pytest.mark.parametrize(("away_ns", "seen"), [(4_000_000, True), (6_000_000, False)])
def test_clocks_that_are_read_some_milliseconds_apart_say_nothing(away_ns: int, seen: bool) -> None:
    clocks = Clocks()
    steps = ClockSteps(lambda: clocks.wall_ns, clocks.monotonic)
    clocks.wall_ns += SECOND_NS
    clocks.slow_ns = away_ns
    assert (steps.step_s() != 0.0) is seen


def test_a_thread_that_was_away_from_the_beginning_knows_of_no_step() -> None:
    clocks = Clocks()
    clocks.slow_ns = SECOND_NS
    steps = ClockSteps(lambda: clocks.wall_ns, clocks.monotonic)
    clocks.slow_ns = 0
    assert steps.step_s() == 0.0
    clocks.wall_ns += SECOND_NS
    assert steps.step_s() == pytest.approx(1.0)
