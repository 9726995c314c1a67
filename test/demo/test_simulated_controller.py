# SPDX-License-Identifier: Apache-2.0
"""What the simulated joint_trajectory_controller does when a message meets a running one, at its end, and on a timeout.

One joint at 1 kHz unless said otherwise: chunk 1 is the path x = t from 0, and chunk 2 comes after 0.25 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from reflex_ros.demo.controllers.options import BLEND, ERAS, LEGACY, ControllerOptions
from reflex_ros.demo.controllers.points import Floats, Point, Trajectory, rows
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController

S, MS = 1_000_000_000, 1_000_000
NOW = 1000 * S
NEW_CHUNK_MS = 250
AGE_S = 0.1  # of the observation that chunk 2 was made from
BOTH = pytest.mark.parametrize("desired", [False, True], ids=["measured state", "desired state"])


def controller(
    start: Sequence[float] = (0.0,), period_ns: int = MS, **options: Any
) -> JointTrajectoryController:
    names = ("a", "b", "c")[: len(start)]
    return JointTrajectoryController(names, start, period_ns, ControllerOptions(**options))


def trajectory(
    stamp_ns: int, times_s: Sequence[float], positions: Sequence[float], velocities: Sequence[float] | None = None
) -> Trajectory:  # fmt: skip
    points = [Point(round(time_s * S), np.array([position])) for time_s, position in zip(times_s, positions, strict=True)]  # fmt: skip
    if velocities is not None:
        points = [
            Point(point.time_from_start_ns, point.positions, np.array([velocity]))
            for point, velocity in zip(points, velocities, strict=True)
        ]
    return Trajectory(stamp_ns, ("a",), tuple(points))


PATH = trajectory(NOW, [0.05 * (i + 1) for i in range(20)], [0.05 * (i + 1) for i in range(20)])
DUE_S = np.arange(1, 21) * 0.05
LEFT = DUE_S > AGE_S


def chunk_2(stamp: str, *, cut: bool = True, anchored: bool = False) -> Trajectory:
    """The same path again, from an observation AGE_S old: without its elapsed rows, or with them."""
    at_ns = NOW + NEW_CHUNK_MS * MS
    due_s, path = (DUE_S[LEFT], DUE_S[LEFT]) if cut else (DUE_S, DUE_S)
    positions = NEW_CHUNK_MS * 1e-3 - AGE_S + path
    if stamp == "observation":
        return trajectory(at_ns - round(AGE_S * S), due_s.tolist(), positions.tolist())
    times_s = due_s - AGE_S
    if anchored:
        times_s, positions = np.append(0.0, times_s), np.append(NEW_CHUNK_MS * 1e-3, positions)
    return trajectory(0 if stamp == "0" else at_ns, times_s.tolist(), positions.tolist())


def driven(
    model: JointTrajectoryController,
    second: Trajectory | None,
    *,
    lag_s: float = 0.0,
    at_ms: int = NEW_CHUNK_MS,
) -> Floats:
    """The commands of 600 ms, one per millisecond; the joint lags behind them by lag_s."""
    model.set(NOW, PATH)
    commands, measured = [], 0.0
    for tick in range(600):
        now_ns = NOW + tick * MS
        if tick == at_ms and second is not None:
            model.set(now_ns, second)
        command = float(model.sample(now_ns, [measured])[0][0])
        commands.append(command)
        measured += (command - measured) * (1e-3 / lag_s if lag_s else 1.0)
    return np.array(commands)


ON_PATH = np.arange(1, 601) * 1e-3


def test_it_holds_where_it_starts_until_a_trajectory_comes() -> None:
    model = controller([0.5, -0.5])
    for at_ns in (0, NOW, NOW + 500 * S):
        positions, velocities = model.sample(at_ns, [9.0, 9.0])
        assert positions.tolist() == [0.5, -0.5]
        assert velocities.tolist() == [0.0, 0.0]


def test_each_update_commands_what_is_due_at_the_next_one() -> None:
    np.testing.assert_allclose(driven(controller(), None), ON_PATH, atol=1e-9)


def test_an_update_may_be_for_another_time_than_the_next_period() -> None:
    model = controller()
    model.set(NOW, PATH)
    assert model.sample(NOW, [0.0], period_ns=7 * MS)[0] == pytest.approx([0.007])
    assert model.sample(NOW + 7 * MS, [0.0])[0] == pytest.approx([0.008])


def test_a_slower_speed_scaling_makes_the_trajectory_later_than_its_stamps() -> None:
    model = controller()
    model.speed_scaling = 0.5
    model.set(NOW, PATH)
    model.sample(NOW, [0.0])
    assert model.sample(NOW + 100 * MS, [0.0])[0] == pytest.approx([0.051])


def test_of_two_messages_between_updates_the_later_counts() -> None:
    model = controller()
    model.set(NOW, PATH)
    model.set(NOW, trajectory(NOW, [1.0], [-1.0]))
    assert model.sample(NOW, [0.0])[0] == pytest.approx([-0.001])


def test_joints_are_matched_by_name() -> None:
    model = controller([0.0, 0.0])
    model.set(NOW, rows(0, ("b", "a"), [[7.0, 3.0]], 1.0))
    model.sample(NOW, [0.0, 0.0])
    assert model.sample(NOW + 2 * S, [0.0, 0.0])[0].tolist() == [3.0, 7.0]


def test_what_is_returned_is_a_copy() -> None:
    model = controller()
    model.sample(NOW, [0.0])[0][:] = 99.0
    assert model.sample(NOW + MS, [0.0])[0].tolist() == [0.0]


# What the same path costs by its stamp: worst error in mrad against x = t (facts 1.3).
@pytest.mark.parametrize(
    ("era", "stamp", "cut", "least_mrad", "most_mrad"),
    [
        (LEGACY, "observation", False, 0, 1.01), (LEGACY, "observation", True, 0, 1.01),
        (LEGACY, "publish", True, 0, 1.01), (LEGACY, "0", True, 0, 1.01),
        (BLEND, "observation", False, 99, 101), (BLEND, "observation", True, 66, 101),
        (BLEND, "publish", True, 0, 1.01), (BLEND, "0", True, 0, 1.01),
    ],
)  # fmt: skip
def test_a_stamp_in_the_past_plays_the_chunk_late_where_trajectories_are_blended(
    era: str, stamp: str, cut: bool, least_mrad: float, most_mrad: float
) -> None:
    commands = driven(controller(era=era, interpolate_from_desired_state=True), chunk_2(stamp, cut=cut))
    worst_mrad = 1e3 * np.abs(commands - ON_PATH)[NEW_CHUNK_MS:].max()
    assert least_mrad <= worst_mrad <= most_mrad


def test_with_measured_state_a_new_trajectory_jumps_back_to_where_the_joint_is() -> None:
    commands = driven(controller(), chunk_2("publish"), lag_s=0.05)
    jump_mrad = 1e3 * (commands[NEW_CHUNK_MS] - commands[NEW_CHUNK_MS - 1])
    assert -50 < jump_mrad < -40


def test_with_desired_state_the_first_tick_moves_two_ticks_worth() -> None:
    commands = driven(controller(interpolate_from_desired_state=True), chunk_2("publish"), lag_s=0.05)
    steps_mrad = 1e3 * np.diff(commands)
    # The last command counts as of a tick earlier, so the way to the first point is begun a tick ago.
    assert steps_mrad[NEW_CHUNK_MS - 1] == pytest.approx(1.96, abs=0.01)
    assert np.delete(steps_mrad, NEW_CHUNK_MS - 1).max() == pytest.approx(1.0, abs=0.02)


@BOTH
def test_an_anchor_at_the_publish_time_makes_the_state_setting_irrelevant(desired: bool) -> None:
    commands = driven(
        controller(interpolate_from_desired_state=desired), chunk_2("publish", anchored=True), lag_s=0.05
    )
    np.testing.assert_allclose(commands, ON_PATH, atol=1e-9)


@BOTH
def test_blending_stands_still_for_a_tick_and_needs_no_measured_state(desired: bool) -> None:
    model = controller(era=BLEND, interpolate_from_desired_state=desired)
    commands = driven(model, chunk_2("publish"), lag_s=0.05)
    assert np.abs(np.diff(commands)).max() * 1e3 < 1.1
    assert commands[NEW_CHUNK_MS] - commands[NEW_CHUNK_MS - 1] == pytest.approx(0.0, abs=5e-5)


@BOTH
@pytest.mark.parametrize("era", ERAS)
def test_elapsed_points_are_passed_and_the_command_is_on_the_path_at_once(era: str, desired: bool) -> None:
    model = controller(era=era, interpolate_from_desired_state=desired)
    model.set(NOW, trajectory(NOW - S // 10, DUE_S.tolist(), DUE_S.tolist()))
    commands = [model.sample(NOW + tick * MS, [0.0])[0].item() for tick in range(10)]
    assert commands[-1] == pytest.approx(0.11)


def test_a_stamp_in_the_future_begins_the_way_to_the_first_point_at_once() -> None:
    model = controller()
    model.set(NOW, trajectory(NOW + S, [1.0], [2.0]))
    model.sample(NOW, [0.0])
    assert model.sample(NOW + S, [0.0])[0] == pytest.approx([1.0], abs=2e-3)


def test_blending_runs_the_old_trajectory_until_a_stamp_in_the_future() -> None:
    later = trajectory(NOW + 350 * MS, [0.1], [0.0])
    commands = driven(controller(era=BLEND, interpolate_from_desired_state=True), later)
    np.testing.assert_allclose(commands[251:349], ON_PATH[251:349], atol=1.1e-3)
    assert commands[448] == pytest.approx(0.0, abs=5e-3)


def test_with_measured_state_a_blended_stamp_in_the_future_jumps_to_the_measured_position() -> None:
    later = trajectory(NOW + 360 * MS, [0.1], [0.0])
    commands = driven(controller(era=BLEND), later, lag_s=0.05, at_ms=260)
    assert commands[260] - commands[259] < -0.04


@pytest.mark.parametrize("stamp", ["publish", "0"])
def test_a_new_trajectory_after_one_point_or_a_hold_is_not_blended(stamp: str) -> None:
    blend, legacy = (controller(era=era, interpolate_from_desired_state=True) for era in (BLEND, LEGACY))
    for model in (blend, legacy):
        model.set(NOW, trajectory(NOW, [0.1], [1.0]))
        model.sample(NOW, [0.0])
        model.set(NOW + MS, PATH)
    np.testing.assert_array_equal(blend.sample(NOW + MS, [0.0]), legacy.sample(NOW + MS, [0.0]))


@pytest.mark.parametrize(("velocity_state", "velocity"), [(True, 1.0), (False, 0.0)])
def test_measured_velocities_count_where_the_hardware_has_them(velocity_state: bool, velocity: float) -> None:
    model = controller(velocity_state=velocity_state)
    model.set(NOW, trajectory(NOW, [1.0], [0.0], [0.0]))
    velocities = model.sample(NOW, [0.0], [1.0])[1]
    assert velocities == pytest.approx([velocity], abs=0.01)


@pytest.mark.parametrize("era", ERAS)
def test_joints_that_a_partial_goal_lacks_stay_or_go_on_with_the_old_trajectory(era: str) -> None:
    model = controller([0.0, 0.0], era=era, allow_partial_joints_goal=True, interpolate_from_desired_state=True)  # fmt: skip
    model.set(NOW, rows(NOW, ("a", "b"), [[1.0, 1.0], [2.0, 2.0]], 1.0))
    for tick in range(501):
        model.sample(NOW + tick * MS, [0.0, 0.0])
    model.set(NOW + 501 * MS, rows(NOW + 501 * MS, ("a",), [[5.0]], 1.0))
    for tick in range(501, 1600):
        positions, _ = model.sample(NOW + tick * MS, [0.0, 0.0])
    assert positions == pytest.approx([5.0, 0.501 if era == LEGACY else 1.501], abs=3e-3)


def test_a_joint_that_turns_without_end_goes_the_short_way() -> None:
    model = controller([6.0], continuous=frozenset({"a"}))
    model.set(NOW, trajectory(NOW, [1.0], [0.0]))
    assert model.sample(NOW, [6.0])[0] == pytest.approx([6.0 - 2 * np.pi], abs=1e-2)


@BOTH
def test_a_controller_that_upsamples_gives_positions_a_velocity(desired: bool) -> None:
    model = controller(upsampling=True, interpolate_from_desired_state=desired)
    model.set(NOW, PATH)
    for tick in range(500):
        _, velocities = model.sample(NOW + tick * MS, [tick * 1e-3])
    assert velocities == pytest.approx([1.0], abs=0.02)


@pytest.mark.parametrize(("timeout_s", "command"), [(0.0, 1.0), (0.2, 0.7)])
def test_a_timeout_counts_from_the_end_of_the_trajectory_and_holds_where_the_joint_was_measured(
    timeout_s: float, command: float
) -> None:
    model = controller(cmd_timeout_s=timeout_s)
    model.set(NOW, PATH)
    for tick in range(1199):
        assert model.sample(NOW + tick * MS, [0.7])[0] != pytest.approx([0.7]) or tick < 710
    for tick in range(1199, 1210):
        positions, _ = model.sample(NOW + tick * MS, [0.7])
    assert positions == pytest.approx([command])


def test_a_cancelled_trajectory_is_held_where_the_joint_was_measured() -> None:
    model = controller()
    model.set(NOW, PATH)
    model.sample(NOW + 500 * MS, [0.4])
    model.hold()
    assert model.sample(NOW + 501 * MS, [0.41])[0] == pytest.approx([0.4])
    assert model.sample(NOW + 900 * MS, [0.3])[0] == pytest.approx([0.4])


def test_a_message_after_a_cancel_counts() -> None:
    model = controller()
    model.hold()
    model.set(NOW, PATH)
    assert model.sample(NOW, [0.0])[0] == pytest.approx([0.001])


@pytest.mark.parametrize(("start", "says"), [([0.0, 0.0], "Expected 1 finite"), ([float("nan")], "Expected 1 finite")])  # fmt: skip
def test_a_start_that_does_not_fit_is_refused(start: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        JointTrajectoryController(("a",), start, MS)


def test_an_unknown_era_is_refused() -> None:
    with pytest.raises(ValueError, match="legacy, blend"):
        ControllerOptions(era="jazzy")


def test_its_ros_parameters_are_those_of_its_release() -> None:
    legacy, blend = (ControllerOptions(era=era, upsampling=True).parameters(("a",)) for era in ERAS)
    assert legacy["joints"] == blend["joints"] == ["a"]
    assert blend["allow_trajectory_replacement"] is True
    assert blend["positions_upsampling.enable"] is True
    assert not [name for name in legacy if name.startswith(("allow_trajectory", "positions_upsampling"))]
