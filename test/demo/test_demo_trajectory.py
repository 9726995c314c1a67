# SPDX-License-Identifier: Apache-2.0
"""The simulated robot follows joint trajectories the way joint_trajectory_controller does."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from reflex_ros.demo.trajectory import TrajectoryFollower, TrajectoryRefused

JOINTS = ("shoulder", "elbow")
START = (0.5, -0.5)


@pytest.fixture
def follower() -> TrajectoryFollower:
    return TrajectoryFollower(JOINTS, START)


def ramp(first: float, last: float, count: int, period_s: float) -> list[tuple[float, list[float]]]:
    return [((i + 1) * period_s, [value, -value]) for i, value in enumerate(np.linspace(first, last, count))]


def assert_close(actual: ArrayLike, expected: ArrayLike) -> None:
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_holds_the_start_pose_before_any_trajectory(follower: TrajectoryFollower) -> None:
    assert follower.command(0.0).tolist() == list(START)
    assert follower.command(1e9).tolist() == list(START)


def test_stamp_zero_means_now(follower: TrajectoryFollower) -> None:
    follower.set(100.0, 0.0, JOINTS, [(1.0, [1.5, 0.5])])
    assert_close(follower.command(100.5), [1.0, 0.0])


def test_interpolates_linearly_between_points(follower: TrajectoryFollower) -> None:
    follower.set(10.0, 10.0, JOINTS, [(1.0, [1.0, 0.0]), (2.0, [2.0, 4.0])])
    assert_close(follower.command(11.25), [1.25, 1.0])


def test_starts_from_the_commanded_point_without_a_jump(follower: TrajectoryFollower) -> None:
    follower.set(10.0, 10.0, JOINTS, [(1.0, [1.5, 0.5])])
    assert_close(follower.command(10.0), START)


def test_holds_at_the_end_of_the_trajectory(follower: TrajectoryFollower) -> None:
    follower.set(10.0, 10.0, JOINTS, [(1.0, [1.0, 2.0])])
    assert follower.command(11.0).tolist() == [1.0, 2.0]
    assert follower.command(500.0).tolist() == [1.0, 2.0]
    assert follower.ends_at_s() == 11.0


def test_skips_points_whose_time_has_passed(follower: TrajectoryFollower) -> None:
    follower.set(10.12, 10.0, JOINTS, ramp(1.0, 5.0, 5, 0.05))
    assert_close(follower.command(10.12), START)
    assert_close(follower.command(10.15), [3.0, -3.0])


def test_goes_straight_from_the_command_to_the_first_future_point(follower: TrajectoryFollower) -> None:
    follower.set(10.10, 10.0, JOINTS, [(0.05, [9.0, 9.0]), (0.20, [1.5, 0.5])])
    assert_close(follower.command(10.15), [1.0, 0.0])


def test_new_trajectory_replaces_the_old_one_by_stamp(follower: TrajectoryFollower) -> None:
    follower.set(10.0, 10.0, JOINTS, [(1.0, [1.5, 0.5]), (2.0, [9.0, 9.0])])
    follower.set(10.5, 10.4, JOINTS, [(0.05, [7.0, 7.0]), (0.6, [0.0, 0.0])])
    assert_close(follower.command(10.5), [1.0, 0.0])
    assert_close(follower.command(10.75), [0.5, 0.0])
    assert_close(follower.command(12.0), [0.0, 0.0])


def test_same_trajectory_sent_again_changes_nothing(follower: TrajectoryFollower) -> None:
    points = ramp(0.6, 2.0, 40, 0.05)
    follower.set(10.0, 10.0, JOINTS, points)
    other = TrajectoryFollower(JOINTS, START)
    other.set(10.0, 10.0, JOINTS, points)
    other.set(10.77, 10.0, JOINTS, points)
    for now_s in (10.78, 11.0, 11.5, 13.0):
        assert_close(other.command(now_s), follower.command(now_s))


def test_trajectory_that_starts_later_is_approached_from_now(follower: TrajectoryFollower) -> None:
    follower.set(10.0, 11.0, JOINTS, [(1.0, [2.5, 1.5])])
    assert_close(follower.command(11.0), [1.5, 0.5])


def test_empty_trajectory_holds_what_is_commanded_now(follower: TrajectoryFollower) -> None:
    follower.set(10.0, 10.0, JOINTS, [(1.0, [1.5, 0.5])])
    follower.set(10.5, 10.5, JOINTS, [])
    assert_close(follower.command(10.5), [1.0, 0.0])
    assert_close(follower.command(20.0), [1.0, 0.0])


def test_hold_stops_where_the_command_is(follower: TrajectoryFollower) -> None:
    follower.set(10.0, 10.0, JOINTS, [(1.0, [1.5, 0.5])])
    follower.hold(10.25)
    assert_close(follower.command(99.0), [0.75, -0.25])


def test_joints_are_matched_by_name(follower: TrajectoryFollower) -> None:
    follower.set(0.0, 0.0, ("elbow", "shoulder"), [(1.0, [7.0, 3.0])])
    assert follower.command(1.0).tolist() == [3.0, 7.0]


def test_single_point_at_zero_seconds_is_taken_at_once(follower: TrajectoryFollower) -> None:
    follower.set(10.0, 0.0, JOINTS, [(0.0, [1.0, 2.0])])
    assert follower.command(10.0).tolist() == [1.0, 2.0]


def test_clock_that_jumps_back_holds(follower: TrajectoryFollower) -> None:
    follower.set(10.0, 10.0, JOINTS, [(1.0, [1.5, 0.5])])
    assert follower.command(3.0).tolist() == list(START)


def test_returned_command_is_a_copy(follower: TrajectoryFollower) -> None:
    follower.command(0.0)[:] = 99.0
    assert follower.command(0.0).tolist() == list(START)


@pytest.mark.parametrize(
    ("joint_names", "points", "says"),
    [
        (("shoulder", "wrist"), [(1.0, [0.0, 0.0])], r"unknown \['wrist'\], missing \['elbow'\]"),
        (("shoulder",), [(1.0, [0.0])], r"missing \['elbow'\]"),
        (("shoulder", "elbow", "elbow"), [(1.0, [0.0, 0.0, 0.0])], "once"),
        (("shoulder", "elbow", "wrist"), [(1.0, [0.0, 0.0, 0.0])], r"unknown \['wrist'\]"),
        (JOINTS, [(1.0, [0.0])], "Expected 2 positions at point 0, got 1"),
        (
            JOINTS,
            [(1.0, [0.0, 0.0]), (2.0, [0.0, float("nan")])],
            r"point 1, got NaN or infinity for \['elbow'\]",
        ),
        (JOINTS, [(1.0, [float("inf"), 0.0])], r"\['shoulder'\]"),
        (JOINTS, [(1.0, [0.0, 0.0]), (1.0, [0.0, 0.0])], "increase"),
        (JOINTS, [(-0.1, [0.0, 0.0])], "at least 0 s"),
        (JOINTS, [(float("nan"), [0.0, 0.0])], "time_from_start"),
    ],
)
def test_refuses_and_keeps_following_the_old_trajectory(
    follower: TrajectoryFollower,
    joint_names: tuple[str, ...],
    points: list[tuple[float, list[float]]],
    says: str,
) -> None:
    follower.set(10.0, 10.0, JOINTS, [(1.0, [1.5, 0.5])])
    with pytest.raises(TrajectoryRefused, match=says):
        follower.set(10.1, 10.1, joint_names, points)
    assert_close(follower.command(10.5), [1.0, 0.0])


def test_refuses_a_trajectory_that_has_ended(follower: TrajectoryFollower) -> None:
    with pytest.raises(TrajectoryRefused, match=r"ended 3\.000 s ago"):
        follower.set(14.0, 10.0, JOINTS, [(1.0, [1.0, 1.0])])
    assert follower.command(14.0).tolist() == list(START)


def test_start_pose_must_fit_the_joints() -> None:
    with pytest.raises(ValueError, match="Expected 2 finite start angles"):
        TrajectoryFollower(JOINTS, [0.0])
