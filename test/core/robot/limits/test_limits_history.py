# SPDX-License-Identifier: Apache-2.0
"""What a robot was commanded and when: between rows, beyond them, on two clocks, and for how many episodes it is kept."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reflex_core.robot.limits.history import EPISODES_KEPT, Commanded, CommandHistory, Moment, moment_of
from reflex_core.values import Floats, Observation, Request

MIDDLE = np.zeros(7, np.float32)
DT_S = 0.05
SECOND_NS = 10**9
# 20 rows that begin in the middle and move by 0.02 rad a row
ROWS: Floats = (MIDDLE + np.arange(21, dtype=np.float32)[:, None] * 0.02).astype(np.float32)
COMMANDED = Commanded(ROWS, DT_S, Moment(0, SECOND_NS))


def test_commands_between_rows_lie_on_the_line_between_them() -> None:
    np.testing.assert_allclose(COMMANDED.at(np.array([0.125]))[0], MIDDLE + 0.05, atol=1e-6)
    np.testing.assert_allclose(COMMANDED.at(np.array([-1.0]))[0], MIDDLE)
    np.testing.assert_allclose(COMMANDED.at(np.array([99.0]))[0], ROWS[-1])


def test_the_target_is_the_row_that_is_being_approached() -> None:
    for seconds, row in ((0.0, 1), (0.049, 1), (0.051, 2), (99.0, 20)):
        np.testing.assert_array_equal(COMMANDED.target(seconds), ROWS[row])


@pytest.mark.parametrize("before_s", [0.01, 0.05, 0.17])
def test_what_begins_in_the_future_is_led_to_in_a_straight_line_from_now(before_s: float) -> None:
    at = MIDDLE.astype(np.float64) - 0.3
    led = COMMANDED.led_from(at, before_s)
    since_s = Moment(0, SECOND_NS).seconds_since(led.moment)
    np.testing.assert_allclose(led.at(np.array([since_s - before_s]))[0], at, atol=1e-6)
    between = led.at(np.array([since_s + (DT_S - before_s) / 2]))[0]
    np.testing.assert_allclose(between, (at + ROWS[1]) / 2, atol=1e-6)
    later_s = np.array([0.05, 0.125, 9.0])
    np.testing.assert_allclose(led.at(since_s + later_s), COMMANDED.at(later_s), atol=1e-6)
    np.testing.assert_allclose(
        led.step(since_s - before_s / 2), (ROWS[1] - at) / (before_s + DT_S) * DT_S, atol=1e-6
    )
    assert Moment(0, 0).seconds_since(led.moment) == pytest.approx(since_s), "on both clocks"


def test_simulated_time_counts_where_it_is_known() -> None:
    """A simulator at a tenth of the speed: ten of our seconds are one of the robot's."""
    slow = Moment(10 * SECOND_NS, 2 * SECOND_NS)
    assert slow.seconds_since(COMMANDED.moment) == 1.0
    assert Moment(10 * SECOND_NS, 0).seconds_since(COMMANDED.moment) == 10.0


def test_a_chunk_begins_when_its_observation_was_taken_and_not_when_it_came() -> None:
    observation = Observation({}, None, "reach", stamp_ns=7, age_ms=30.0)
    moment = moment_of(Request(observation, SECOND_NS, "request-1"))
    assert moment == Moment(SECOND_NS - 30_000_000, 7)


def test_the_history_is_bounded_and_keeps_the_newest() -> None:
    history = CommandHistory()
    for number in range(EPISODES_KEPT + 5):
        history.remember(f"episode-{number}", COMMANDED)
    assert history.recall("episode-0") is None
    later = dataclasses.replace(COMMANDED, moment=Moment(5, 0))
    history.remember("one", later)
    history.remember("one", COMMANDED)
    assert history.recall("one") is later
    history.remember(None, COMMANDED)
    assert history.recall(None) is None


def test_of_rows_without_a_period_the_last_is_the_command() -> None:
    commanded = Commanded(ROWS, 0.0, Moment(0, SECOND_NS))
    np.testing.assert_allclose(commanded.at(np.array([-1.0, 0.0, 9.0])), [ROWS[-1]] * 3, atol=1e-6)
    np.testing.assert_array_equal(commanded.target(0.0), ROWS[-1])


def test_before_its_first_row_is_due_a_chunk_leads_there() -> None:
    np.testing.assert_array_equal(COMMANDED.target(-0.5), ROWS[1])
    single = Commanded(ROWS[:2], DT_S, Moment(0, SECOND_NS))
    np.testing.assert_array_equal(single.target(99.0), ROWS[1])
    np.testing.assert_allclose(single.at(np.array([0.025, 9.0])), [MIDDLE + 0.01, MIDDLE + 0.02], atol=1e-6)


def test_one_stamp_alone_says_nothing_about_the_time_between() -> None:
    ours = Moment(3 * SECOND_NS, 0)
    assert ours.seconds_since(COMMANDED.moment) == 3.0
    assert Moment(3 * SECOND_NS, 9 * SECOND_NS).seconds_since(ours) == 0.0


def test_a_late_answer_does_not_replace_a_newer_one_but_a_second_one_does() -> None:
    history = CommandHistory()
    first, second = dataclasses.replace(COMMANDED, dt_s=0.1), dataclasses.replace(COMMANDED, dt_s=0.2)
    history.remember("one", first)
    history.remember("one", second)
    assert history.recall("one") is second


def test_the_episode_that_was_answered_last_is_forgotten_last() -> None:
    history = CommandHistory()
    for number in range(EPISODES_KEPT):
        history.remember(f"episode-{number}", COMMANDED)
    history.remember(None, COMMANDED)  # takes no other's place
    assert history.recall("episode-0") is COMMANDED
    history.remember("episode-0", COMMANDED)
    history.remember("one more", COMMANDED)
    assert history.recall("episode-0") is COMMANDED
    assert history.recall("episode-1") is None


def test_what_is_forgotten_is_gone_and_nothing_else() -> None:
    history = CommandHistory()
    history.remember("one", COMMANDED)
    history.remember("two", COMMANDED)
    history.forget("one")
    history.forget("never known")
    assert history.recall("one") is None
    assert history.recall("two") is COMMANDED


def test_the_move_under_way_is_that_between_two_rows() -> None:
    rows = np.cumsum(np.arange(5, dtype=np.float32)[:, None] * np.ones(7, np.float32), axis=0)
    commanded = Commanded(rows, 0.25, Moment(0, 0))  # moves of 1, 2, 3 and 4, four a second
    for periods, move in ((-0.1, 0), (0.0, 1), (0.9, 1), (1.1, 2), (3.9, 4), (4.0, 0), (99.0, 0)):
        np.testing.assert_array_equal(commanded.step(periods * 0.25), np.full(7, float(move)))
    assert commanded.step(0.3).dtype == np.float64
    np.testing.assert_array_equal(dataclasses.replace(commanded, dt_s=0.0).step(0.5), np.zeros(7))
