# SPDX-License-Identifier: Apache-2.0
"""How one chunk takes over from another: what the robot is to follow from then on, and what a controller is given of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from reflex_core.chunks.handover import CLOSEST_S, LEAD_S, MOST_LEAD_S, Handover, bounds_of
from reflex_core.chunks.interpolation import FASTER, Bounds, Spline
from reflex_core.export.binding import Binding
from reflex_core.robot.groups import BASE, VELOCITY, Group
from reflex_core.robot.limits.hold import STREAM, Hold
from reflex_core.robot.limits.limits import effective_limits
from reflex_core.robot.presets import load_preset
from reflex_core.values import ActionChunk, Floats

DT_S, STEP_NS = 0.05, 50_000_000
NOW_NS = 1_700_000_000 * 10**9
MOST = 2.0


@dataclass
class Robot:
    """Two joints and a gripper in range (-1, 1), at most 2 rad/s; at rest at 0."""

    fade_s: float = 0.3
    place: Sequence[float] | None = (0.0, 0.0, 0.0)
    measured: Sequence[float] | None = None
    own_fade_s: Sequence[float] = (np.nan, np.nan, np.nan)
    handover: Handover = field(init=False)

    def __post_init__(self) -> None:
        one = np.ones(3)
        bounds = Bounds(-one, one, MOST * one, np.array([True, True, False]), np.array(self.own_fade_s))
        self.handover = Handover(
            bounds, lambda _: None if self.place is None else np.array(self.place), lambda: self.fade_s,
            lambda _: None if self.measured is None else np.array(self.measured),
        )  # fmt: skip

    def takes(
        self, rows: Floats, now_ns: int, stamp_ns: int | None = None, start: int = 0
    ) -> tuple[ActionChunk, Spline]:
        """The chunk as it is executed from `now_ns` on, and the motion through it."""
        stamp_ns = now_ns if stamp_ns is None else stamp_ns
        chunk = self.handover.led(ActionChunk(rows, ("a", "b", "g"), DT_S), stamp_ns, start, now_ns)
        return chunk, self.handover.take_over(chunk, stamp_ns, start, now_ns)

    def moving(self) -> Spline:
        """A motion of 0.4 rad/s that began long ago, so that it is known where it is."""
        _, motion = self.takes(ramp(0.4), NOW_NS - 10 * STEP_NS)
        return motion


def ramp(speed: float, begin: float = 0.0, count: int = 40) -> Floats:
    column = begin + speed * DT_S * np.arange(1, count + 1)
    return np.clip(np.stack([column, -column, column], axis=1), -1.0, 1.0).astype(np.float32)


def steps(motion: Spline) -> NDArray[np.float64]:
    """Speeds of joint a between the knots."""
    speeds: NDArray[np.float64] = np.diff(motion.positions[:, 0]) / (np.diff(motion.times_ns) * 1e-9)
    return speeds


def test_a_motion_begins_where_the_running_one_is_and_as_fast() -> None:
    robot = Robot()
    before = robot.moving()
    _, motion = robot.takes(ramp(0.4, 0.05), NOW_NS + 7_000_000)
    position, velocity = before.at(NOW_NS + 7_000_000)
    assert motion.anchored
    assert motion.times_ns[0] == NOW_NS + 7_000_000
    assert motion.positions[0].tolist() == position.tolist()
    assert motion.velocities[0].tolist() == velocity.tolist()
    assert not motion.velocities[-1].any()


def test_the_motion_leads_through_the_rows_that_are_executed_when_each_is_due() -> None:
    robot = Robot()
    robot.moving()
    chunk, motion = robot.takes(ramp(0.4, 0.05), NOW_NS, NOW_NS - STEP_NS - 20_000_000, start=1)
    assert motion.positions[1:].astype(np.float32).tolist() == chunk.actions[1:].tolist()
    assert (np.diff(motion.times_ns[1:]) == STEP_NS).all()
    assert motion.times_ns[1] == NOW_NS + STEP_NS - 20_000_000
    assert chunk.actions[0].tolist() == ramp(0.4, 0.05)[0].tolist(), "what has elapsed stays"


def test_the_first_rows_are_faded_into_the_running_motion_and_the_grippers_are_not() -> None:
    robot = Robot()
    before = robot.moving()
    rows = ramp(0.4, 0.25)
    chunk, motion = robot.takes(rows, NOW_NS)
    due_ns = NOW_NS + np.arange(1, 6) * STEP_NS
    shares = [(s * s * (3 - 2 * s)) for s in (5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)]
    expected = [row + (old - row) * share for row, old, share in zip(rows[:5, 0], before.sampled(due_ns)[:, 0], shares, strict=True)]  # fmt: skip
    np.testing.assert_allclose(chunk.actions[:5, 0], expected, atol=1e-6)
    assert chunk.actions[5:].tolist() == rows[5:].tolist()
    assert chunk.actions[:, 2].tolist() == rows[:, 2].tolist()
    assert (np.abs(steps(motion)) <= MOST).all()


def test_a_group_may_be_faded_for_a_time_of_its_own() -> None:
    robot = Robot(own_fade_s=(np.nan, 0.0, 0.5))
    robot.moving()
    rows = ramp(0.4, 0.25)
    chunk, _ = robot.takes(rows, NOW_NS)
    assert (chunk.actions[:5, 0] != rows[:5, 0]).all()
    assert chunk.actions[5:, 1].tolist() == rows[5:, 1].tolist()
    assert abs(chunk.actions[0, 1] - rows[0, 1]) < abs(chunk.actions[0, 0] - rows[0, 0]), (
        "only as slow as it may be"
    )
    assert chunk.actions[:, 2].tolist() == rows[:, 2].tolist(), "a gripper never"


def test_a_chunk_that_agrees_with_the_running_motion_stays_as_it_is() -> None:
    robot = Robot()
    _, before = robot.takes(ramp(0.4), NOW_NS - 10 * STEP_NS)
    rows = before.sampled(NOW_NS + np.arange(1, 20) * STEP_NS).astype(np.float32)
    chunk = ActionChunk(rows, ("a", "b", "g"), DT_S)
    assert robot.handover.led(chunk, NOW_NS, 0, NOW_NS) is chunk


def test_a_chunk_that_is_not_finite_is_the_guards() -> None:
    robot = Robot()
    robot.moving()
    rows = ramp(0.4)
    rows[3, 1] = np.nan
    chunk = ActionChunk(rows, ("a", "b", "g"), DT_S)
    assert robot.handover.led(chunk, NOW_NS, 0, NOW_NS) is chunk


def test_without_a_fade_a_jump_takes_as_long_as_the_joint_needs() -> None:
    robot = Robot(fade_s=0.0)
    robot.moving()
    chunk, motion = robot.takes(ramp(0.4, 0.6), NOW_NS, NOW_NS - 40_000_000)
    assert motion.times_ns[1] == NOW_NS + 10_000_000
    assert (np.abs(steps(motion)) <= MOST * (1 + 1e-5)).all()
    assert chunk.actions[-1].tolist() == ramp(0.4, 0.6)[-1].tolist()


def test_a_row_that_is_due_at_once_is_left_out() -> None:
    robot = Robot()
    robot.moving()
    _, motion = robot.takes(ramp(0.4, 0.2), NOW_NS, NOW_NS - STEP_NS + 4_000_000)
    assert motion.times_ns[1] - NOW_NS == STEP_NS + 4_000_000
    robot.moving()
    _, motion = robot.takes(ramp(0.4, 0.2), NOW_NS, NOW_NS - STEP_NS + int(CLOSEST_S * 1e9))
    assert motion.times_ns[1] - NOW_NS == int(CLOSEST_S * 1e9)


@pytest.mark.parametrize("left_ns", [1, 3_000_000, STEP_NS])
def test_the_last_row_is_always_sent_and_times_increase(left_ns: int) -> None:
    robot = Robot()
    robot.moving()
    _, motion = robot.takes(ramp(0.4, 0.2, count=3), NOW_NS, NOW_NS - 3 * STEP_NS + left_ns, start=2)
    assert len(motion.times_ns) == 2
    assert (np.diff(motion.times_ns) > 0).all()


def test_a_robot_at_rest_gets_time_for_the_way_to_its_first_row_and_no_anchor() -> None:
    robot = Robot(place=(0.1, -0.1, 0.0))
    rows = ramp(0.8, 0.1)
    chunk, motion = robot.takes(rows, NOW_NS, NOW_NS - 30_000_000)
    assert not motion.anchored
    assert LEAD_S * 1e9 <= motion.times_ns[1] - NOW_NS < LEAD_S * 1e9 + STEP_NS
    assert motion.positions[0].tolist() == [0.1, -0.1, 0.0]
    assert not motion.velocities[0].any()
    left_out = len(rows) - len(motion.times_ns) + 1
    assert left_out == 4
    due_ns = NOW_NS - 30_000_000 + np.arange(1, left_out + 1) * STEP_NS
    np.testing.assert_allclose(chunk.actions[:left_out, :2], motion.sampled(due_ns)[:, :2], atol=1e-6)
    assert (chunk.actions[:left_out, 0] < rows[:left_out, 0]).all(), "it sets out slowly"
    assert chunk.actions[:left_out, 2].tolist() == rows[:left_out, 2].tolist()
    assert chunk.actions[left_out:].tolist() == rows[left_out:].tolist()


def test_no_joint_is_faster_than_its_limit_on_the_way_from_rest() -> None:
    """The policy asks for the limit from the beginning: a cubic from rest is half as fast again in its midst."""
    robot = Robot(place=(-1.0, 1.0, 0.0))
    chunk, motion = robot.takes(ramp(MOST, -1.0), NOW_NS)
    grid = np.arange(NOW_NS, NOW_NS + 8 * STEP_NS, 1_000_000)
    assert np.abs(np.diff(motion.sampled(grid)[:, 0])).max() <= MOST * 1e-3 * (FASTER + 1e-6)
    assert chunk.actions[-1, 0] == 1.0


def test_while_the_first_row_is_still_to_come_the_next_chunk_has_no_anchor_either() -> None:
    robot = Robot()
    _, begun = robot.takes(ramp(0.4), NOW_NS)
    now_ns, known_ns = NOW_NS + 80_000_000, int(begun.times_ns[1])
    chunk, motion = robot.takes(ramp(0.4, 0.1), now_ns)
    assert not motion.anchored
    assert motion.times_ns[1] >= known_ns
    assert motion.positions[0].tolist() == begun.at(now_ns)[0].tolist()
    due_ns = now_ns + np.arange(1, 40) * STEP_NS
    np.testing.assert_allclose(chunk.actions[:39, 0], motion.sampled(due_ns)[:, 0], atol=1e-6)
    _, motion = robot.takes(ramp(0.4, 0.1), int(motion.times_ns[1]))
    assert motion.anchored


@pytest.mark.parametrize("every_ms", [7, 20, 30, 70])
def test_a_policy_that_is_asked_out_of_step_with_its_rows_puts_nothing_off(every_ms: int) -> None:
    robot = Robot()
    motions = [
        robot.takes(ramp(0.4, 0.4 * since_ms * 1e-3), NOW_NS + since_ms * 1_000_000)[1]
        for since_ms in range(0, 400, every_ms)
    ]
    known_ns = motions[0].times_ns[1]
    for motion in motions[1:]:
        assert motion.anchored or motion.times_ns[1] >= known_ns
        assert motion.anchored or motion.times_ns[0] < known_ns + CLOSEST_S * 1e9


def test_where_nothing_is_known_of_the_robot_its_first_row_stands_for_it() -> None:
    robot = Robot(place=None)
    rows = ramp(0.4, 0.5)
    chunk, motion = robot.takes(rows, NOW_NS)
    assert chunk.actions is rows
    assert motion.positions[0].tolist() == rows[0].astype(np.float64).tolist()
    assert motion.times_ns[1] - NOW_NS >= LEAD_S * 1e9


def held(*rows: float, start: int = 0, origin: float = 0.2) -> Hold:
    column = np.array(rows, np.float32)
    return Hold(
        np.stack([column, -column, column], axis=1), DT_S, start, STREAM, np.array([origin, -origin, origin])
    )


def test_a_hold_brakes_from_the_running_motion_and_ends_at_rest() -> None:
    robot = Robot()
    before = robot.moving()
    place, speed = before.at(NOW_NS)
    motion = robot.handover.hold(held(0.215, 0.22, origin=float(place[0]) + 0.002), NOW_NS)
    assert motion.anchored
    assert motion.positions[0].tolist() == place.tolist()
    assert motion.velocities[0].tolist() == speed.tolist()
    assert not motion.velocities[-1].any()
    assert motion.positions[-1, 0] == pytest.approx(0.22)
    _, after = robot.takes(ramp(0.4, 0.22), NOW_NS + 400_000_000)
    assert not after.anchored, "nothing is known for sure after it"


def test_a_hold_begins_where_what_is_added_on_the_way_has_led() -> None:
    robot = Robot()
    place, speed = robot.moving().at(NOW_NS)
    added = (np.array([0.01, -0.01, 0.0]), np.array([0.1, 0.0, 0.0]))
    motion = robot.handover.hold(held(0.225, 0.23, origin=float(place[0]) + 0.01), NOW_NS, added)
    assert motion.anchored
    np.testing.assert_allclose(motion.positions[0], place + added[0])
    np.testing.assert_allclose(motion.velocities[0], speed + added[1])


def test_a_hold_upon_a_hold_goes_on_braking() -> None:
    robot = Robot()
    robot.moving()
    braking = robot.handover.hold(held(0.215, 0.22, origin=0.2), NOW_NS)
    again_ns = NOW_NS + 20_000_000
    position, speed = braking.at(again_ns)
    motion = robot.handover.hold(held(0.22, origin=float(position[0])), again_ns)
    assert motion.anchored
    assert motion.positions[0].tolist() == position.tolist()
    assert motion.velocities[0].tolist() == speed.tolist()
    robot.handover.forget()
    assert not robot.handover.hold(held(0.22, origin=0.22), again_ns).anchored


def test_a_hold_upon_one_without_an_anchor_has_none_either() -> None:
    robot = Robot()
    robot.handover.hold(held(0.7, origin=0.6), NOW_NS)
    assert not robot.handover.hold(held(0.7, origin=0.6), NOW_NS + 20_000_000).anchored


def test_an_anchor_is_inside_the_range_to_the_last_bit() -> None:
    robot = Robot()
    beyond = np.full((2, 3), 1.0 + 2e-7)
    robot.handover._running = Spline(np.array([NOW_NS - STEP_NS, NOW_NS + STEP_NS]), beyond, np.zeros((2, 3)))
    _, motion = robot.takes(ramp(0.0, 0.99), NOW_NS)
    assert motion.anchored
    assert motion.positions.max() <= 1.0


def test_a_hold_of_a_robot_that_is_elsewhere_has_no_anchor() -> None:
    robot = Robot()
    robot.moving()
    motion = robot.handover.hold(held(0.7, origin=0.6), NOW_NS)
    assert not motion.anchored
    assert motion.positions[0, 0] == 0.6
    assert not motion.velocities[0].any()


def test_a_hold_on_the_way_to_the_first_row_has_no_anchor_and_two_periods_more() -> None:
    robot = Robot()
    robot.takes(ramp(0.4), NOW_NS)
    motion = robot.handover.hold(held(0.02, origin=0.01), NOW_NS + 100_000_000)
    assert not motion.anchored
    assert motion.times_ns[1] - motion.times_ns[0] == 3 * STEP_NS


def since_forgotten(place: float = 0.0) -> Robot:
    """A robot whose last motion ended at 0.8 rad, and which is measured elsewhere after a stop: something was in its way."""
    robot = Robot()
    robot.moving()
    robot.handover.forget()
    robot.place = (place, -place, place)
    return robot


def test_after_a_stop_the_first_row_is_reached_from_where_the_last_motion_ended_too() -> None:
    robot, later_ns = since_forgotten(), NOW_NS + 5 * 10**9
    _, motion = robot.takes(ramp(0.4), later_ns)
    assert not motion.anchored
    first_s = (motion.times_ns[1] - later_ns) * 1e-9
    assert first_s == pytest.approx(0.5)
    assert 1.5 * np.abs(motion.positions[1, :2] - [0.8, -0.8]).max() <= MOST * first_s
    assert since_forgotten(0.8).takes(ramp(0.4, 0.8), later_ns)[1].times_ns[1] - later_ns == int(LEAD_S * 1e9)


def test_a_way_from_there_that_takes_too_long_is_not_waited_for() -> None:
    robot, later_ns = since_forgotten(-1.0), NOW_NS + 5 * 10**9
    _, motion = robot.takes(ramp(0.0, -1.0), later_ns)
    assert motion.times_ns[1] - later_ns == int(MOST_LEAD_S * 1e9)


def test_a_hold_on_that_way_gives_the_controller_time_and_keeps_no_joint_that_follows_waiting() -> None:
    robot, later_ns = since_forgotten(), NOW_NS + 5 * 10**9
    robot.takes(ramp(0.4), later_ns)
    _, again = robot.takes(ramp(0.4, 0.02), later_ns + STEP_NS)
    assert (again.times_ns[1] - later_ns) * 1e-9 == pytest.approx(0.5), "nothing is put off"
    early = robot.handover.hold(held(0.05, origin=0.04), later_ns + 100_000_000)
    assert (early.times_ns[1] - early.times_ns[0]) * 1e-9 == pytest.approx(LEAD_S), "it is still near 0.8 rad"
    upon = robot.handover.hold(held(0.05, origin=0.05), later_ns + 110_000_000)
    assert (upon.times_ns[1] - upon.times_ns[0]) * 1e-9 == pytest.approx(LEAD_S)
    rested = robot.handover.hold(held(0.05, origin=0.05), upon.end_ns + 10**9)
    assert rested.times_ns[1] - rested.times_ns[0] == STEP_NS


def test_a_gripper_under_way_puts_off_no_hold_of_the_arm() -> None:
    robot = Robot()
    robot.takes(np.tile(np.float32([0.0, 0.0, 1.0]), (40, 1)), NOW_NS - 20 * 10**9)
    robot.handover.forget()
    robot.takes(np.tile(np.float32([0.0, 0.0, -1.0]), (40, 1)), NOW_NS)
    motion = robot.handover.hold(held(0.0, origin=0.0), NOW_NS + 100_000_000)
    assert motion.times_ns[1] - motion.times_ns[0] == 3 * STEP_NS


def test_a_joint_that_was_moved_since_the_robot_was_held_is_commanded_by_others() -> None:
    robot, later_ns = Robot(), NOW_NS + 60 * 10**9
    robot.moving()
    robot.measured = (0.2, -0.2, 0.2)
    robot.handover.hold(held(0.215, 0.22, origin=0.2), NOW_NS)
    robot.handover.forget()
    robot.place = (-0.8, 0.8, 0.2)
    _, motion = robot.takes(ramp(0.4, -0.8), later_ns)
    assert motion.times_ns[1] - later_ns == int(LEAD_S * 1e9)


def test_a_robot_that_was_never_commanded_is_nowhere_else() -> None:
    """The end of the chunk that it follows is not where its controller was."""
    robot = Robot()
    robot.takes(ramp(0.4), NOW_NS)
    robot.takes(ramp(0.4, 0.02), NOW_NS + STEP_NS)
    motion = robot.handover.hold(held(0.05, origin=0.04), NOW_NS + 100_000_000)
    assert motion.times_ns[1] - motion.times_ns[0] == 3 * STEP_NS


def test_no_joint_is_hurried_by_a_hold() -> None:
    robot = Robot()
    motion = robot.handover.hold(held(0.3, 0.3, start=1, origin=0.0), NOW_NS)
    grid = np.arange(NOW_NS, motion.end_ns, 1_000_000)
    assert np.abs(np.diff(motion.sampled(grid)[:, 0])).max() <= MOST * 1e-3 * (1 + 1e-6)
    assert motion.positions[-1, 0] == pytest.approx(0.3)


def test_a_hold_without_a_period_takes_one_of_its_own() -> None:
    motion = Robot().handover.hold(replace(held(0.1, origin=0.1), dt_s=0.0), NOW_NS)
    assert (motion.end_ns - NOW_NS) == 100_000_000


def test_a_motion_that_is_forgotten_is_no_anchor() -> None:
    robot = Robot()
    robot.moving()
    robot.handover.forget()
    _, motion = robot.takes(ramp(0.4), NOW_NS)
    assert not motion.anchored


def test_which_columns_move_like_joints() -> None:
    robot = load_preset("franka")
    names = tuple(robot.joint_names)
    binding = Binding(
        cameras={}, state_names=names, state_dim=8, state_statistics=None, action_names=names, action_statistics=None,
        columns=np.arange(8), hold_columns=np.arange(8), horizon=50, dt_s=DT_S, embodiment=robot,
        groups=(Group("arm", tuple(range(6)), names[:6], options={"fade_s": 0.1}), Group("base", (6,), names[6:7], BASE, VELOCITY)),
    )  # fmt: skip
    bounds = bounds_of(binding, effective_limits(names, robot, None))
    assert bounds.smooth.tolist() == [True] * 6 + [False, False], "neither a base nor a gripper"
    assert bounds.fade_s[:6].tolist() == [0.1] * 6
    assert np.isnan(bounds.fade_s[6:]).all()
    unlimited = bounds_of(binding, None)
    assert unlimited.smooth.tolist() == [True] * 6 + [False, True]
    assert np.isinf(unlimited.velocity_max).all()


def test_a_row_that_was_due_before_a_motion_began_is_no_way_back() -> None:
    robot = Robot()
    robot.moving()
    chunk, _ = robot.takes(ramp(0.4, 0.05), NOW_NS, NOW_NS - 4 * STEP_NS)
    there = robot.handover.led(chunk, NOW_NS - 4 * STEP_NS, 0, NOW_NS).actions[:, 0]
    assert there[0] == pytest.approx(0.2, abs=1e-6)
    assert (np.diff(there) >= -1e-6).all()
