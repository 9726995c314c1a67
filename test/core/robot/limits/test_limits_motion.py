# SPDX-License-Identifier: Apache-2.0
"""Where a chunk is taken to begin: what was commanded, what is measured, and on whose clock."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reflex_core.robot.limits.history import Commanded, Moment
from reflex_core.robot.limits.limits import Limits, effective_limits
from reflex_core.robot.limits.reachable import TRACKING_S, Motion, motion
from reflex_core.robot.presets import load_preset
from reflex_core.values import Floats

ARM = load_preset("franka").without_gripper()
FOUND = effective_limits(ARM.joint_names, ARM, None)
assert FOUND is not None
LIMITS: Limits = FOUND
MIDDLE = ((LIMITS.position_min + LIMITS.position_max) / 2).astype(np.float32)
DT_S = 0.05
SECOND_NS = 10**9
# 20 rows that begin in the middle and move by 0.02 rad a row
ROWS = (MIDDLE + np.arange(21, dtype=np.float32)[:, None] * 0.02).astype(np.float32)
COMMANDED = Commanded(ROWS, DT_S, Moment(0, SECOND_NS))


def begun(
    measured: Floats | None, after_s: float, latency_s: float = 0.0, commanded: Commanded | None = COMMANDED
) -> Motion:
    """The motion of a stamped chunk whose observation is `after_s` after that of `COMMANDED`."""
    zero_ns = int(after_s * SECOND_NS)
    moment = Moment(zero_ns, SECOND_NS + zero_ns)
    return motion(commanded, measured, moment, zero_ns + int(latency_s * SECOND_NS), LIMITS, 50, DT_S)


def test_an_arm_that_trails_its_command_starts_between_both() -> None:
    measured = ROWS[4]
    start = begun(measured, after_s=0.4).start
    assert start is not None
    assert start.step is not None
    np.testing.assert_allclose(start.low, measured, atol=1e-6)
    np.testing.assert_allclose(start.high, ROWS[8], atol=1e-6)
    np.testing.assert_allclose(start.step, 0.02, atol=1e-6)


def test_an_arm_that_is_not_where_it_was_commanded_to_be_starts_where_it_is() -> None:
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
    found = motion(
        COMMANDED, measured, Moment(10 * SECOND_NS, 11 * SECOND_NS), 10 * SECOND_NS, limits, 50, DT_S
    )
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
    assert begun(MIDDLE, after_s=0.0, latency_s=0.04, commanded=None).splice is None


def test_a_chunk_that_is_over_before_it_comes_is_joined_at_its_last_row() -> None:
    splice = begun(ROWS[8], after_s=0.4, latency_s=99.0).splice
    assert splice is not None
    assert splice.row == 49


def test_a_robot_that_was_never_commanded_is_at_rest() -> None:
    found = begun(MIDDLE, after_s=0.0, latency_s=0.12, commanded=None)
    assert found.start is not None
    assert found.splice is not None
    np.testing.assert_array_equal(found.start.step, np.zeros(7))
    np.testing.assert_array_equal(found.splice.path(), [MIDDLE, MIDDLE])


def test_without_command_or_measurement_nothing_is_known() -> None:
    assert begun(None, after_s=0.0, commanded=None) == Motion()


def test_a_clock_that_jumped_back_makes_the_command_before_worthless() -> None:
    found = begun(ROWS[3], after_s=-0.5)
    assert found.start is not None
    np.testing.assert_array_equal(found.start.low, ROWS[3])
    np.testing.assert_array_equal(found.start.high, ROWS[3])


@pytest.mark.parametrize("lag_s", [0.0, TRACKING_S / 2, TRACKING_S])
def test_an_arm_may_trail_its_command_by_the_tracking_time(lag_s: float) -> None:
    after_s = 0.6
    trusted = begun(COMMANDED.at(np.array([after_s - lag_s]))[0].astype(np.float32), after_s).trusted
    assert trusted is not None
    assert trusted.all()


FAST_ROWS = (MIDDLE + np.arange(21, dtype=np.float32)[:, None] * 0.1).astype(np.float32)
FAST = Commanded(FAST_ROWS, DT_S, Moment(0, SECOND_NS))
ONE_STEP = LIMITS.velocity_max * DT_S


def trusted_at(place: Floats, after_s: float, commanded: Commanded) -> list[bool]:
    trusted = begun(place.astype(np.float32), after_s, commanded=commanded).trusted
    assert trusted is not None
    return [bool(joint) for joint in trusted]


def test_further_behind_or_ahead_than_that_it_is_not_where_it_was_commanded_to_be() -> None:
    after_s = 0.6
    behind, ahead = FAST.at(np.array([after_s - TRACKING_S, after_s]))
    for share, is_trusted in ((0.9, True), (1.1, False)):
        assert trusted_at(behind - share * ONE_STEP, after_s, FAST) == [is_trusted] * 7
        assert trusted_at(ahead + share * ONE_STEP, after_s, FAST) == [is_trusted] * 7


def test_an_arm_that_trails_a_turn_may_be_at_the_turning_point() -> None:
    """Commanded to go 0.5 rad away and back within the tracking time: it may be anywhere in between."""
    rows = np.tile(MIDDLE, (21, 1)).astype(np.float32)
    rows[10] += 0.5
    commanded = Commanded(rows, DT_S, Moment(0, SECOND_NS))
    assert trusted_at(rows[10], 10 * DT_S + TRACKING_S / 2, commanded) == [True] * 7
    assert trusted_at(rows[10], 20 * DT_S, commanded) == [False] * 7


def test_in_another_episode_a_joint_without_a_limit_of_speed_is_where_it_is_measured() -> None:
    speed = LIMITS.velocity_max.copy()
    speed[3] = np.inf
    limits = dataclasses.replace(LIMITS, velocity_max=speed)
    measured = ROWS[-1] + np.float32(0.05)
    moment = Moment(10 * SECOND_NS, 11 * SECOND_NS)
    others = [True] * 3 + [False] + [True] * 3
    for same_episode, trusted in ((True, [True] * 7), (False, others)):
        found = motion(
            COMMANDED, measured, moment, 10 * SECOND_NS, limits, 50, DT_S, same_episode=same_episode
        ).trusted
        assert found is not None
        assert found.tolist() == trusted
    default = motion(COMMANDED, measured, moment, 10 * SECOND_NS, limits, 50, DT_S).trusted
    assert default is not None
    assert default.all()
    there = motion(COMMANDED, ROWS[-1], moment, 10 * SECOND_NS, limits, 50, DT_S, same_episode=False).trusted
    assert there is not None
    assert there.all()


def test_two_answers_to_one_observation_continue_each_other() -> None:
    found = begun(None, after_s=0.0)
    assert found.start is not None
    np.testing.assert_array_equal(found.start.low, ROWS[0])


def test_where_nothing_is_measured_the_command_is_all_there_is() -> None:
    found = begun(None, after_s=0.4, latency_s=0.17)
    assert found.start is not None
    assert found.splice is not None
    assert found.trusted is None
    np.testing.assert_allclose(found.start.low, ROWS[8], atol=1e-6)
    np.testing.assert_allclose(found.start.high, ROWS[8], atol=1e-6)
    np.testing.assert_allclose(found.splice.path(), ROWS[9:12], atol=1e-6)
    assert found.start.step is not None
    np.testing.assert_allclose(found.start.step, 0.02, atol=1e-6)
    np.testing.assert_allclose(found.splice.end, ROWS[11], atol=1e-6)


def test_while_it_waits_a_joint_that_is_not_where_it_should_be_stays_where_it_is() -> None:
    measured = ROWS[8].copy()
    measured[2] += 0.7
    found = begun(measured, after_s=0.4, latency_s=0.17)
    assert found.splice is not None
    expected = ROWS[9:12].copy()
    expected[:, 2] = measured[2]
    np.testing.assert_allclose(found.splice.path(), expected, atol=1e-6)
    np.testing.assert_allclose(found.splice.end, expected[-1], atol=1e-6)
    assert found.splice.step[2] == 0.0
    assert found.splice.commanded is not None, "what is commanded now, whether it does it or not"
    np.testing.assert_allclose(found.splice.commanded, ROWS[11], atol=1e-6)


@pytest.mark.parametrize("commanded", [COMMANDED, None])
def test_a_chunk_without_a_stamp_is_played_from_its_first_row(commanded: Commanded | None) -> None:
    found = motion(commanded, ROWS[8], Moment(400_000_000, 0), SECOND_NS, LIMITS, 50, DT_S)
    assert found.start is not None
    assert found.splice is None
    assert (found.start.step is None) == (
        commanded is None
    )  # without a command it is unknown whether it moves


@pytest.mark.parametrize("commanded", [COMMANDED, None])
def test_rows_without_a_period_are_played_from_the_first(commanded: Commanded | None) -> None:
    elsewhere = ROWS[8] + np.float32(2.0)
    found = motion(commanded, elsewhere, Moment(0, SECOND_NS), 9 * SECOND_NS, LIMITS, 50, 0.0)
    assert found.splice is None
    # how far it may have moved is unknown
    assert commanded is None or (found.trusted is not None and found.trusted.all())


TRACKING = np.full(7, 0.2)


def published(
    measured: Floats | None,
    after_s: float,
    latency_s: float = 0.0,
    *,
    commanded: Commanded | None = FAST,
    tracking: Floats | None = TRACKING,
    row: int | None = None,
    newest: Floats | None = None,
    limits: Limits = LIMITS,
) -> Motion:
    """The motion of the robot whose commands are known to be those published."""
    zero_ns = int(after_s * SECOND_NS)
    return motion(
        commanded, measured, Moment(zero_ns, SECOND_NS + zero_ns), zero_ns + round(latency_s * SECOND_NS), limits, 50, DT_S,
        tracking=tracking, row=row, newest=newest,
    )  # fmt: skip


@pytest.mark.parametrize(("row", "joined"), [(7, 7), (0, None), (-3, None), (49, 49), (50, 49), (99, 49)])
def test_a_chunk_is_joined_at_the_row_that_will_be_executed_where_that_is_known(
    row: int, joined: int | None
) -> None:
    """Whatever the clock says: the row that is due by then is another one."""
    splice = published(None, 0.4, latency_s=0.17, tracking=None, row=row).splice
    assert (None if splice is None else splice.row) == joined
    assert splice is None or len(splice.path()) == joined


@pytest.mark.parametrize(
    ("latency_s", "row", "joined_s"),
    [
        (0.0, None, 0.0), (0.04, None, 0.04), (0.17, None, 0.17), (0.17, 3, 0.17), (0.17, 5, 0.25), (0.17, 2, 0.15),
        (0.17, 0, 0.05), (-0.3, None, 0.0), (0.04, 0, 0.04),
    ],
)  # fmt: skip
def test_the_published_chunk_is_joined_to_the_command_of_this_very_moment(
    latency_s: float, row: int | None, joined_s: float
) -> None:
    """As far as its first row is not further from it than one step, one way or the other."""
    after_s = 0.4
    measured = FAST.at(np.array([after_s]))[0].astype(np.float32)
    for known in (None, measured):
        splice = published(known, after_s, latency_s, row=row).splice
        assert splice is not None
        np.testing.assert_allclose(splice.end, FAST.at(np.array([after_s + joined_s]))[0], atol=1e-5)
        np.testing.assert_allclose(splice.step, 0.1, atol=1e-5)
        # what is commanded by then; of a chunk that the sensor's clock put into the future, what is commanded now
        commanded_s = latency_s if latency_s < 0.0 else joined_s
        np.testing.assert_allclose(splice.commanded, FAST.at(np.array([after_s + commanded_s]))[0], atol=1e-5)


def test_what_was_published_goes_on_for_an_observation_from_before_it() -> None:
    """A hold that begins now, and a picture that was taken before: the hold is commanded all the same."""
    found = published(None, -0.1)
    assert found.start is not None
    np.testing.assert_allclose(found.start.low, FAST_ROWS[0])
    assert published(None, -0.1, tracking=None) == Motion()


def test_a_published_command_may_be_led_as_well_as_trailed() -> None:
    """The clock of the sensor may be behind by as much as an arm trails."""
    after_s = 0.6
    for at_s, share, trusted in (
        (0.2, 0.9, True), (0.2, 1.1, False), (-0.2, -0.9, True), (-0.2, -1.1, False),
    ):  # fmt: skip
        place = FAST.at(np.array([after_s + at_s]))[0] + share * TRACKING
        found = published(place.astype(np.float32), after_s)
        assert found.trusted is not None
        assert found.trusted.tolist() == [trusted] * 7, (at_s, share)


def test_an_arm_commanded_to_turn_may_be_at_the_turning_point_already() -> None:
    rows = np.tile(MIDDLE, (21, 1)).astype(np.float32)
    rows[10] += 0.5
    commanded = Commanded(rows, DT_S, Moment(0, SECOND_NS))
    for seconds, trusted in (
        (10 * DT_S - TRACKING_S / 2, True), (10 * DT_S + TRACKING_S / 2, True), (10 * DT_S + 2 * TRACKING_S, False),
    ):  # fmt: skip
        found = published(rows[10], seconds, commanded=commanded, tracking=np.full(7, 0.01))
        assert found.trusted is not None
        assert found.trusted.tolist() == [trusted] * 7


@pytest.mark.parametrize(("tracking", "most"), [(0.05, "step"), (0.3, "tracking")])
def test_how_far_from_its_command_a_joint_follows_it(tracking: float, most: str) -> None:
    """One step or the setting, whichever is more; the setting alone where no speed is known."""
    speed = LIMITS.velocity_max.copy()
    speed[3] = np.inf
    limits = dataclasses.replace(LIMITS, velocity_max=speed)
    margin = np.where(np.isfinite(speed), np.fmax(ONE_STEP, tracking), tracking)
    assert (margin[0] == tracking) == (most == "tracking")
    for share, trusted in ((0.99, True), (1.01, False)):
        place = (ROWS[-1] + share * margin).astype(np.float32)
        found = published(place, 10.0, commanded=COMMANDED, tracking=np.full(7, tracking), limits=limits)
        assert found.trusted is not None
        assert found.trusted.tolist() == [trusted] * 7


def test_where_the_robot_is_by_now_counts_more_than_where_it_was_seen() -> None:
    """The command of now and of the tracking time before, not that of the observation."""
    seen, latency_s = FAST_ROWS[0], 0.6
    for at_s, share, trusted in (
        (0.6, 0.9, True), (0.6, 1.1, False), (0.4, -0.9, True), (0.4, -1.1, False), (0.5, 0.0, True),
    ):  # fmt: skip
        newest = (FAST.at(np.array([at_s]))[0] + share * TRACKING).astype(np.float32)
        found = published(seen, 0.0, latency_s, newest=newest)
        assert found.trusted is not None
        assert found.start is not None
        assert found.splice is not None
        assert found.trusted.tolist() == [trusted] * 7, (at_s, share)
        if not trusted:
            np.testing.assert_allclose(found.start.low, newest)
            np.testing.assert_allclose(found.splice.end, newest)
    program = published(seen, 0.0, latency_s, newest=FAST_ROWS[12], tracking=None)
    assert program.start is not None
    np.testing.assert_allclose(program.start.high, seen)


def test_where_the_sensors_clock_is_ahead_the_command_of_now_counts_and_not_that_of_the_stamp() -> None:
    ahead_s, now_s = 0.17, 0.5
    for at_s, share, trusted in ((now_s, 0.9, True), (now_s, 1.1, False), (now_s - TRACKING_S, -0.9, True)):
        newest = (FAST.at(np.array([at_s]))[0] + share * TRACKING).astype(np.float32)
        found = published(None, now_s + ahead_s, -ahead_s, newest=newest)
        assert found.trusted is not None
        assert found.splice is not None
        assert found.trusted.tolist() == [trusted] * 7, (at_s, share)
        np.testing.assert_allclose(found.splice.commanded, FAST.at(np.array([now_s]))[0], atol=1e-5)


def test_a_joint_whose_path_tolerance_is_judged_elsewhere_follows_wherever_it_is() -> None:
    tracking = np.where(np.arange(7) == 0, np.inf, 0.2)
    found = published((FAST_ROWS[6] + 9.0).astype(np.float32), 0.6, tracking=tracking)
    assert found.trusted is not None
    assert found.trusted.tolist() == [True, *[False] * 6]


def test_an_arm_that_turned_meanwhile_may_still_be_at_the_turning_point() -> None:
    rows = np.tile(MIDDLE, (21, 1)).astype(np.float32)
    rows[10] += 0.5
    commanded = Commanded(rows, DT_S, Moment(0, SECOND_NS))
    tracking = np.full(7, 0.01)
    found = published(
        MIDDLE, 0.0, 10 * DT_S + TRACKING_S / 2, commanded=commanded, tracking=tracking, newest=rows[10]
    )
    assert found.trusted is not None
    assert found.trusted.all()


@pytest.mark.parametrize(("now_s", "most"), [(0.04, 2.8), (0.05, 3.0), (0.08, 3.0)])
def test_a_row_that_is_due_later_is_no_further_from_the_command_of_now_than_a_joint_gets_by_then(
    now_s: float, most: float
) -> None:
    """What was joined in the midst of a period is approached at twice the limit until that is over, and no longer."""
    steps = np.array([0.0, 2.0, 3.0, 4.0])[:, None] * ONE_STEP
    commanded = Commanded((MIDDLE + steps).astype(np.float32), DT_S, Moment(0, SECOND_NS))
    splice = published(None, 0.1, now_s - 0.1, commanded=commanded).splice
    assert splice is not None
    np.testing.assert_allclose(splice.end, MIDDLE + most * ONE_STEP, atol=1e-5)
