# SPDX-License-Identifier: Apache-2.0
"""Between, before and after the points the simulated controller is where the real one's own unit tests expect it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from reflex_ros.demo.controllers.interpolate import between, upsampled
from reflex_ros.demo.controllers.points import Point, State, Trajectory
from reflex_ros.demo.controllers.running import RunningTrajectory

S = 1_000_000_000
NOW = 1000 * S


def state(*fields: float | None) -> State:
    """One joint: position, velocity, acceleration."""
    return State(*(None if field is None else np.array([field], float) for field in fields))


def begun(states: Sequence[State], before: State, *, splines: bool = True) -> RunningTrajectory:
    """A trajectory whose points are 1 s apart, begun at NOW by its stamp of 0."""
    trajectory = RunningTrajectory(0, [S * (i + 1) for i in range(len(states))], states, splines=splines)
    trajectory.begin(NOW, NOW, before)
    return trajectory


def assert_state(actual: State, *expected: float) -> None:
    fields = (actual.positions, actual.velocities, actual.accelerations)
    for field, value in zip(fields, expected, strict=False):
        assert field == pytest.approx(value, abs=1e-6)


POSITIONS = [state(1.0), state(2.0), state(3.0)]


@pytest.mark.parametrize(
    ("at_s", "position", "velocity", "segment"),
    [
        (0, 0, 1, (0, 0)), (0.5, 0.5, 1, (0, 0)), (1, 1, 1, (0, 1)), (1.5, 1.5, 1, (0, 1)),
        (2.5, 2.5, 1, (1, 2)), (3, 3, 0, (2, 3)), (3.125, 3, 0, (2, 3)), (30, 3, 0, (2, 3)),
    ],
)  # fmt: skip
def test_positions_alone_are_joined_by_lines(
    at_s: float, position: float, velocity: float, segment: tuple[int, int]
) -> None:
    sample = begun(POSITIONS, state(0.0)).sample(NOW + round(at_s * S))
    assert sample is not None
    assert_state(sample.state, position, velocity, 0.0)
    assert sample.segment == segment


def test_there_is_no_state_before_the_trajectory_begins() -> None:
    assert begun(POSITIONS, state(0.0)).sample(NOW - S // 2) is None


@pytest.mark.parametrize(
    ("at_s", "expected"), [(0, (0, -2, 0)), (math.sqrt(2), (0, 4, 6 * math.sqrt(2))), (2, (4, 10, 12))]
)
def test_positions_and_velocities_are_joined_by_a_cubic(
    at_s: float, expected: tuple[float, float, float]
) -> None:
    # x^3 - 2x; an acceleration that only one end has is not used
    start, end = state(0, -2), state(4, 10, 0)
    assert_state(between(S, start, 3 * S, end, S + round(at_s * S)), *expected)


@pytest.mark.parametrize(("at_s", "expected"), [(0, (0, 24, -100)), (1, (0, -6, 10)), (2, (0, 4, 0))])
def test_accelerations_too_make_it_a_quintic(at_s: int, expected: tuple[float, float, float]) -> None:
    start, end = state(0, 24, -100), state(0, 4, 0)
    assert_state(between(S, start, 3 * S, end, S + at_s * S), *expected)


def test_accelerations_without_velocities_leave_the_output_at_0() -> None:
    assert_state(between(0, state(1, None, 1), S, state(2, None, 1), S // 2), 0, 0, 0)


@pytest.mark.parametrize("before", [state(0, 0), state(0)], ids=["resting", "velocity unknown"])
@pytest.mark.parametrize(
    ("at_s", "expected"),
    [
        (0, (0, 0, 1)), (0.5, (0.125, 0.5, 1)), (1, (0.5, 1, 1)), (1.5, (1.125, 1.5, 1)), (2, (2, 2, -1)),
        (2.5, (2.875, 1.5, -1)), (3, (3.5, 1, 0)), (3.125, (3.5, 1, 0)),
    ],
)  # fmt: skip
def test_positions_are_deduced_from_velocities(
    before: State, at_s: float, expected: tuple[float, float, float]
) -> None:
    sample = begun([state(None, 1), state(None, 2), state(None, 1)], before).sample(NOW + round(at_s * S))
    assert sample is not None
    assert_state(sample.state, *expected)


def test_positions_and_velocities_are_deduced_from_accelerations() -> None:
    sample = begun([state(None, None, 1.0)], state(0)).sample(NOW + S)
    assert sample is not None
    assert_state(sample.state, 0.25, 0.5, 1.0)  # Heun, from an acceleration of 0


def test_a_segment_that_no_update_met_is_deduced_too() -> None:
    trajectory = begun([state(None, 1), state(None, 1)], state(0, 0))
    for at_ns in (0, S // 2):
        trajectory.sample(NOW + at_ns)
    sample = trajectory.sample(NOW + 5 * S)
    assert sample is not None
    assert_state(sample.state, 1.5)


def test_after_the_last_point_velocity_and_acceleration_are_as_written() -> None:
    sample = begun([state(1, 0.5, 0.25)], state(0, 0)).sample(NOW + 9 * S)
    assert sample is not None
    assert_state(sample.state, 1, 0.5, 0.25)


def test_without_splines_each_time_the_next_point_is_commanded() -> None:
    trajectory = begun(POSITIONS, state(0.0), splines=False)
    samples = [trajectory.sample(NOW + round(at_s * S)) for at_s in (0.5, 1.0, 1.9, 2.5, 9.0)]
    assert [one.state.positions.item() for one in samples if one and one.state.positions is not None] == [
        0, 2, 2, 3, 3,
    ]  # fmt: skip


def message(times_s: Sequence[float], positions: Sequence[Sequence[float]]) -> Trajectory:
    points = [Point(round(time * S), np.array(row, float)) for time, row in zip(times_s, positions, strict=True)]  # fmt: skip
    return Trajectory(0, ("a",) * len(positions[0]), tuple(points))


def velocities(trajectory: Trajectory) -> list[list[float] | None]:
    return [None if point.velocities is None else point.velocities.tolist() for point in trajectory.points]


def test_upsampling_gives_positions_the_velocities_of_a_spline_at_rest_at_both_ends() -> None:
    found = upsampled(message([0, 0.1, 0.2], [[0], [0.1], [0.3]]), 0.0)
    np.testing.assert_allclose(np.array(velocities(found))[:, 0], [0, 2.25, 0], atol=1e-9)


def test_upsampling_of_two_points_begins_and_ends_at_rest() -> None:
    assert velocities(upsampled(message([0, 0.1], [[0], [0.5]]), 0.0)) == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("times_s", "positions"), [([0.0], [[0.3]]), ([0.0, 0.0], [[0.0], [0.1]]), ([0.1, 0.0], [[0.0], [0.1]])]
)
def test_upsampling_leaves_what_it_cannot_join(times_s: list[float], positions: list[list[float]]) -> None:
    assert velocities(upsampled(message(times_s, positions), 0.0)) == [None] * len(positions)


def test_upsampling_leaves_trajectories_with_velocities_and_none_at_all() -> None:
    empty = Trajectory(0, (), ())
    assert upsampled(empty, 10.0) is empty
    given = Trajectory(0, ("a",), (Point(0, np.zeros(1), np.ones(1)), Point(S, np.zeros(1), np.zeros(1))))
    assert upsampled(given, 10.0) is given


def test_upsampling_spreads_points_without_times_at_the_policys_frequency() -> None:
    found = upsampled(message([0, 0, 0], [[0], [0.1], [0.3]]), 20.0)
    assert [point.time_from_start_ns for point in found.points] == [50_000_000, 100_000_000, 150_000_000]
    assert velocities(found)[1] == pytest.approx([4.5])


@pytest.mark.parametrize("joint", [0, 1])
@pytest.mark.parametrize("knot", [1, 2, 3, 4, 5])
def test_the_acceleration_of_an_upsampled_trajectory_is_continuous(joint: int, knot: int) -> None:
    times_s = [0.1 * i for i in range(7)]
    rows = [[0.1 + 0.4 * math.sin(math.pi * 0.1 * i), 0.5 - 0.1 * i] for i in range(7)]
    points = upsampled(message(times_s, rows), 0.0).points
    at_ns = points[knot].time_from_start_ns
    sides = []
    for start, end in pairwise(points[knot - 1 : knot + 2]):
        ends = (State(start.positions, start.velocities), State(end.positions, end.velocities))
        found = between(start.time_from_start_ns, ends[0], end.time_from_start_ns, ends[1], at_ns)
        assert found.accelerations is not None
        sides.append(found.accelerations[joint])
    assert sides[0] == pytest.approx(sides[1], abs=1e-6)
