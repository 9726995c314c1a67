# SPDX-License-Identifier: Apache-2.0
"""Where a chunk is taken to begin: what was commanded, what is measured, and on whose clock."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reflex_core.embodiment import load_preset
from reflex_core.limits.history import EPISODES_KEPT, CommandHistory, Moment, Told, moment_of
from reflex_core.limits.motion import TRACKING_S, Motion, motion
from reflex_core.limits.values import Limits, effective_limits
from reflex_core.values import Floats, Observation, Request

ARM = load_preset("franka").without_gripper()
FOUND = effective_limits(ARM.joint_names, ARM, None)
assert FOUND is not None
LIMITS: Limits = FOUND
MIDDLE = ((LIMITS.position_min + LIMITS.position_max) / 2).astype(np.float32)
DT_S = 0.05
SECOND_NS = 10**9
# 20 rows that begin in the middle and move by 0.02 rad a row
ROWS = (MIDDLE + np.arange(21, dtype=np.float32)[:, None] * 0.02).astype(np.float32)
TOLD = Told(ROWS, DT_S, Moment(0, SECOND_NS))


def begun(
    measured: Floats | None, after_s: float, latency_s: float = 0.0, told: Told | None = TOLD
) -> Motion:
    """The motion of a stamped chunk whose observation is `after_s` after that of `TOLD`."""
    zero_ns = int(after_s * SECOND_NS)
    moment = Moment(zero_ns, SECOND_NS + zero_ns)
    return motion(told, measured, moment, zero_ns + int(latency_s * SECOND_NS), LIMITS, 50, DT_S)


def test_commands_between_rows_lie_on_the_line_between_them() -> None:
    np.testing.assert_allclose(TOLD.at(np.array([0.125]))[0], MIDDLE + 0.05, atol=1e-6)
    np.testing.assert_allclose(TOLD.at(np.array([-1.0]))[0], MIDDLE)
    np.testing.assert_allclose(TOLD.at(np.array([99.0]))[0], ROWS[-1])


def test_the_target_is_the_row_that_is_being_approached() -> None:
    for seconds, row in ((0.0, 1), (0.049, 1), (0.051, 2), (99.0, 20)):
        np.testing.assert_array_equal(TOLD.target(seconds), ROWS[row])


def test_an_arm_that_trails_its_command_starts_between_both() -> None:
    measured = ROWS[4]
    start = begun(measured, after_s=0.4).start
    assert start is not None
    assert start.step is not None
    np.testing.assert_allclose(start.low, measured, atol=1e-6)
    np.testing.assert_allclose(start.high, ROWS[8], atol=1e-6)
    np.testing.assert_allclose(start.step, 0.02, atol=1e-6)


def test_an_arm_that_is_not_where_it_was_told_to_be_starts_where_it_is() -> None:
    measured = MIDDLE.copy()
    measured[2] += 0.7
    found = begun(measured, after_s=10.0)
    assert found.trusted is not None
    assert found.start is not None
    assert not found.trusted[2]
    assert found.start.low[2] == found.start.high[2] == measured[2]


def test_a_gripper_may_stay_away_from_its_command() -> None:
    """It has an object between its fingers."""
    gripper = np.zeros(7, np.bool_)
    gripper[2] = True
    limits = dataclasses.replace(LIMITS, gripper=gripper)
    measured = ROWS[-1].copy()
    measured[2] += 0.7
    found = motion(TOLD, measured, Moment(10 * SECOND_NS, 11 * SECOND_NS), 10 * SECOND_NS, limits, 50, DT_S)
    assert found.trusted is not None
    assert found.trusted.all()


def test_elapsed_rows_are_those_that_were_commanded_meanwhile() -> None:
    splice = begun(ROWS[8], after_s=0.4, latency_s=0.17).splice
    assert splice is not None
    assert splice.row == 3
    np.testing.assert_allclose(splice.path(), ROWS[9:12], atol=1e-6)
    np.testing.assert_allclose(splice.step, 0.02, atol=1e-6)


def test_nothing_is_joined_midway_when_nothing_has_elapsed() -> None:
    assert begun(ROWS[8], after_s=0.4, latency_s=0.04).splice is None


def test_a_chunk_that_is_over_before_it_comes_is_joined_at_its_last_row() -> None:
    splice = begun(ROWS[8], after_s=0.4, latency_s=99.0).splice
    assert splice is not None
    assert splice.row == 49


def test_a_robot_that_nobody_has_commanded_is_at_rest() -> None:
    found = begun(MIDDLE, after_s=0.0, latency_s=0.12, told=None)
    assert found.start is not None
    assert found.splice is not None
    np.testing.assert_array_equal(found.start.step, np.zeros(7))
    np.testing.assert_array_equal(found.splice.path(), [MIDDLE, MIDDLE])


def test_without_command_or_measurement_nothing_is_known() -> None:
    assert begun(None, after_s=0.0, told=None) == Motion()


def test_a_clock_that_jumped_back_makes_the_command_before_worthless() -> None:
    found = begun(ROWS[3], after_s=-0.5)
    assert found.start is not None
    np.testing.assert_array_equal(found.start.low, ROWS[3])
    np.testing.assert_array_equal(found.start.high, ROWS[3])


def test_simulated_time_counts_where_it_is_known() -> None:
    """A simulator at a tenth of the speed: ten of our seconds are one of the robot's."""
    slow = Moment(10 * SECOND_NS, 2 * SECOND_NS)
    assert slow.seconds_since(TOLD.moment) == 1.0
    assert Moment(10 * SECOND_NS, 0).seconds_since(TOLD.moment) == 10.0


def test_a_chunk_begins_when_its_observation_was_taken_and_not_when_it_came() -> None:
    observation = Observation({}, None, "reach", stamp_ns=7, age_ms=30.0)
    moment = moment_of(Request(observation, SECOND_NS, "request-1"))
    assert moment == Moment(SECOND_NS - 30_000_000, 7)


def test_the_history_is_bounded_and_keeps_the_newest() -> None:
    history = CommandHistory()
    for number in range(EPISODES_KEPT + 5):
        history.remember(f"episode-{number}", TOLD)
    assert history.recall("episode-0") is None
    later = dataclasses.replace(TOLD, moment=Moment(5, 0))
    history.remember("one", later)
    history.remember("one", TOLD)
    assert history.recall("one") is later
    history.remember(None, TOLD)
    assert history.recall(None) is None


@pytest.mark.parametrize("lag_s", [0.0, TRACKING_S / 2, TRACKING_S])
def test_an_arm_may_trail_its_command_by_the_tracking_time(lag_s: float) -> None:
    after_s = 0.6
    trusted = begun(TOLD.at(np.array([after_s - lag_s]))[0].astype(np.float32), after_s).trusted
    assert trusted is not None
    assert trusted.all()
