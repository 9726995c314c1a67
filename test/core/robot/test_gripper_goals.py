# SPDX-License-Identifier: Apache-2.0
"""When a gripper is sent a goal. On a clock that the test sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from grouped_robots import ARM, HAND, grouped

from reflex_core.robot.gripper import at_the_ends, ends_of
from reflex_core.robot.gripper_goals import GripperGoals
from reflex_core.robot.groups import GripperEnds
from reflex_core.values import Floats

MS = 1_000_000
ENDS = GripperEnds(open=0.04, closed=0.0)
DT_S = 0.05


def sent(goals: GripperGoals, rows: Floats, tick_ms: int = 10) -> list[tuple[int, float]]:
    """The goals of a column that is followed from 0 on, and when they are sent, in ms."""
    goals.follow(np.asarray(rows, np.float32), 0, 0, DT_S)
    found = []
    for now_ms in range(0, int(len(rows) * DT_S * 1e3) + 1, tick_ms):
        if (goal := goals.next_goal(now_ms * MS)) is not None:
            goals.sent(goal, now_ms * MS)
            found.append((now_ms, round(goal, 6)))
    return found


@pytest.mark.parametrize("middle", [0.0, 0.001, 0.0014, 0.01, 0.02, 0.0386, 0.04])
def test_noise_of_two_percent_is_one_goal_wherever_it_is(middle: float) -> None:
    noise = np.random.default_rng(3).uniform(-0.02, 0.02, 400) * 0.04
    assert len(sent(GripperGoals(ENDS), np.clip(middle + noise, 0.0, 0.04))) == 1


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("start", [0.0, 0.04])
def test_ten_seconds_of_noise_around_a_threshold_are_one_goal(
    tmp_path: Path, start: float, measured: bool
) -> None:
    """Forty chunks of a second at 20 Hz, each replaced after a quarter of it; the finger goes where it is commanded."""
    hand = HAND | {"gripper": HAND["gripper"] | {"close_threshold": 0.5}}
    ends = ends_of(grouped(tmp_path, groups=[ARM, hand]), np.arange(3))
    goals, finger, found = GripperGoals(ENDS), start, list[float]()
    generator = np.random.default_rng(5)
    for chunk in range(40):
        rows = np.full((20, 3), 0.02, np.float32)
        rows[:, 2] += generator.uniform(-0.02, 0.02, 20) * 0.04
        state = np.array([0.0, 0.0, finger], np.float32)
        begin_ns = chunk * 250 * MS
        goals.follow(at_the_ends(rows, ends, state if measured else None)[:, 2], begin_ns, 0, DT_S)
        for now_ns in range(begin_ns, begin_ns + 250 * MS, 10 * MS):
            if (goal := goals.next_goal(now_ns)) is not None:
                goals.sent(goal, now_ns)
                found.append(goal)
            finger += np.clip((found[-1] if found else finger) - finger, -0.001, 0.001)
    assert found == pytest.approx([start]) if measured else len(found) > 1


def test_a_column_that_flips_makes_five_goals_a_second_at_most_and_the_newest_wish_wins() -> None:
    rows = np.tile([0.0, 0.04], 100)  # 10 s at 20 Hz
    times = [now_ms for now_ms, _ in sent(GripperGoals(ENDS), rows)]
    assert len(times) <= 51
    assert min(np.diff(times)) >= 200
    flips = sent(GripperGoals(ENDS), np.array([0.0, 0.04, 0.01, 0.02, 0.03, 0.03, 0.03]))
    assert flips == [(50, 0.0), (250, 0.03)]


def test_an_end_is_meant_where_a_wish_is_near_it() -> None:
    assert sent(GripperGoals(ENDS), np.array([0.0003])) == [(50, 0.0)]
    assert sent(GripperGoals(ENDS), np.array([0.0399])) == [(50, 0.04)]


def test_a_goal_is_sent_when_its_row_is_due_and_not_before() -> None:
    goals = GripperGoals(ENDS)
    rows = np.array([0.04] * 10 + [0.0] * 10)
    assert sent(goals, rows) == [(50, 0.04), (550, 0.0)]


def test_after_a_stop_nothing_is_wished_for_and_a_goal_that_stands_is_not_sent_again() -> None:
    goals = GripperGoals(ENDS)
    assert sent(goals, np.array([0.0])) == [(50, 0.0)]
    goals.stop()
    assert goals.next_goal(10_000 * MS) is None
    goals.follow(np.array([0.0], np.float32), 10_000 * MS, 0, DT_S)
    assert goals.next_goal(10_060 * MS) is None
    goals.forget()
    assert goals.next_goal(10_060 * MS) == 0.0


def test_a_goal_that_was_not_taken_is_tried_again_later() -> None:
    goals = GripperGoals(ENDS)
    assert sent(goals, np.array([0.0])) == [(50, 0.0)]
    goals.forget(not_before_ns=1000 * MS)
    assert goals.next_goal(999 * MS) is None
    assert goals.next_goal(1000 * MS) == 0.0


def test_a_dead_band_of_its_own_counts_and_nan_is_no_goal() -> None:
    assert len(sent(GripperGoals(ENDS, dead_band=0.02), np.array([0.01, 0.029]))) == 1
    assert sent(GripperGoals(None), np.array([np.nan])) == []
