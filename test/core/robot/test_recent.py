# SPDX-License-Identifier: Apache-2.0
"""What a policy of several observations looks back at: one control period apart, however often values come."""

from __future__ import annotations

import pytest

from reflex_core.robot.recent import Recent

PERIOD = 100


def filled(*at: int, steps: int = 3) -> Recent[int]:
    recent: Recent[int] = Recent(PERIOD, steps)
    for moment in at:
        recent.add(moment, moment)
    return recent


def looked_back(recent: Recent[int], at: int) -> list[int]:
    return [moment.value for moment in recent.before(at)]


def test_values_one_period_apart_are_taken_oldest_first() -> None:
    assert looked_back(filled(0, 100, 200), 300) == [100, 200]


def test_of_many_values_the_nearest_are_taken() -> None:
    recent = filled(*range(0, 1000, 10))
    found = looked_back(recent, 995)
    assert found == pytest.approx([795, 895], abs=PERIOD / 4)
    assert len(recent.values) <= 4 * 3 + 2


def test_one_value_stands_for_one_step_only() -> None:
    assert looked_back(filled(250), 300) == [250]


def test_at_an_episodes_start_there_are_fewer() -> None:
    assert looked_back(filled(), 300) == []
    assert looked_back(filled(200), 300) == [200]


@pytest.mark.parametrize(("age", "taken"), [(1, True), (200, True), (201, False)])
def test_what_is_older_than_two_periods_is_no_neighbour(age: int, taken: bool) -> None:
    assert looked_back(filled(1000 - age, steps=2), 1000) == ([1000 - age] if taken else [])


def test_after_a_gap_nothing_older_is_taken() -> None:
    assert looked_back(filled(0, 100, 400), 500) == [400]


def test_the_moment_itself_is_not_its_own_past() -> None:
    assert looked_back(filled(200, 300), 300) == [200]


def test_a_value_that_comes_late_changes_nothing() -> None:
    assert filled(200, 300, 250).values == (200, 300)


def test_a_clock_that_is_set_back_begins_anew() -> None:
    recent = filled(10_000, 10_100, 50)
    assert recent.values == (50,)
    assert looked_back(recent, 150) == [50]


def test_old_values_are_dropped() -> None:
    assert filled(0, 100, 200, 300, 400, 500).values == (200, 300, 400, 500)


def test_an_unusable_value_is_forgotten() -> None:
    recent = filled(100, 200)
    recent.remove_at(200)
    assert looked_back(recent, 300) == [100]
    recent.clear()
    assert looked_back(recent, 300) == []
