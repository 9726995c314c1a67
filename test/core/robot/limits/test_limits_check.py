# SPDX-License-Identifier: Apache-2.0
"""The mathematics of the limits: what leaves is inside every limit, whatever came in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from reflex_core.robot.limits.check import LINES_KEPT, Check, Checked
from reflex_core.robot.limits.limits import Limits, effective_limits
from reflex_core.robot.limits.reachable import Motion, Splice, Start
from reflex_core.robot.limits.safety_config import CLIP, REJECT, SCALE
from reflex_core.robot.limits.walk import stoppable
from reflex_core.robot.presets import load_preset
from reflex_core.values import Floats

ARM = load_preset("franka").without_gripper()
FOUND = effective_limits(ARM.joint_names, ARM, None)
assert FOUND is not None
assert ARM.acceleration_max is not None
LIMITS: Limits = dataclasses.replace(FOUND, acceleration_max=ARM.acceleration_max)  # as a safety file may say
NO_ACCELERATION: Limits = FOUND
MIDDLE = (LIMITS.position_min + LIMITS.position_max) / 2
STILL = np.zeros(7)
DT_S = 0.05
ROUNDING_RAD = 2e-6
HORIZON = 50


def start_at(position: Floats) -> Motion:
    return Motion(Start(position, position, STILL))


def smooth() -> Floats:
    return (MIDDLE + 0.3 * (1 - np.cos(np.arange(1, HORIZON + 1)[:, None] / 25))).astype(np.float32)


def random_chunks(number: int, seed: int) -> Iterator[tuple[Floats, Motion]]:
    """From a tremor to leaps through the whole range and out of it, from anywhere; every other one joined midway."""
    generator = np.random.default_rng(seed)
    for index in range(number):
        size = 10.0 ** generator.uniform(-3, 1)
        walk = np.cumsum(generator.normal(size=(HORIZON, 7)), axis=0) * size * 0.1
        noise = generator.normal(size=(HORIZON, 7)) * size * generator.random()
        where = generator.uniform(LIMITS.position_min, LIMITS.position_max)
        motion = start_at(where)
        if index % 2:
            row = int(generator.integers(1, HORIZON))
            motion = Motion(motion.start, Splice(row, where, STILL, partial(np.tile, where, (row, 1))))
        yield (where + walk + noise).astype(np.float32), motion


def travelled(checked: Checked, motion: Motion) -> Floats:
    """(n + 1, 7) float64: where the robot is, then what it is commanded from there on."""
    assert checked.actions is not None
    assert motion.start is not None
    first = motion.splice.row if motion.splice is not None else 0
    return np.vstack([motion.start.low, checked.actions[first:].astype(np.float64)])


@pytest.mark.parametrize("mode", [CLIP, SCALE])
@pytest.mark.parametrize("limits", [NO_ACCELERATION, LIMITS], ids=["velocity", "acceleration"])
def test_no_random_chunk_leaves_any_limit(limits: Limits, mode: str) -> None:
    check = Check(limits, DT_S, mode)
    dirty = 0
    for actions, motion in random_chunks(300, seed=11):
        checked = check(actions, motion)
        dirty += not checked.clean
        path = travelled(checked, motion)
        assert (path[1:] >= limits.position_min).all()
        assert (path[1:] <= limits.position_max).all()
        moves = np.diff(path, axis=0)
        assert (np.abs(moves) <= limits.velocity_max * DT_S + ROUNDING_RAD).all()
        changes = np.diff(np.vstack([STILL, moves]), axis=0)
        assert (np.abs(changes) <= limits.acceleration_max * DT_S**2 + 2 * ROUNDING_RAD).all()
    assert 100 < dirty < 300  # both ways through the code were taken


@pytest.mark.parametrize("mode", [CLIP, SCALE])
def test_what_left_is_clean_when_it_comes_again(mode: str) -> None:
    check = Check(LIMITS, DT_S, mode)
    for actions, motion in random_chunks(100, seed=12):
        once = check(actions, motion)
        assert once.actions is not None
        again = check(once.actions, motion)
        assert again.clean
        assert again.actions is once.actions


@pytest.mark.parametrize("mode", [CLIP, SCALE, REJECT])
def test_a_clean_chunk_comes_back_as_the_same_array(mode: str) -> None:
    actions = smooth()
    checked = Check(LIMITS, DT_S, mode)(actions, start_at(MIDDLE))
    assert checked.clean
    assert checked.actions is actions


def test_rows_at_exactly_the_largest_speed_are_clean() -> None:
    actions = (MIDDLE + LIMITS.velocity_max * DT_S * np.arange(1, 9)[:, None]).astype(np.float32)
    assert Check(NO_ACCELERATION, DT_S, CLIP)(actions, start_at(MIDDLE)).clean


def test_clip_mode_slows_only_the_joint_that_is_too_fast() -> None:
    actions = smooth()
    actions[20:, 4] += 1.0
    checked = Check(NO_ACCELERATION, DT_S, CLIP)(actions, start_at(MIDDLE))
    assert checked.actions is not None
    others = [0, 1, 2, 3, 5, 6]
    np.testing.assert_array_equal(checked.actions[:, others], actions[:, others])
    np.testing.assert_array_equal(checked.actions[:20], actions[:20])
    assert checked.kinds == ("velocity_clamp",)


def test_clip_mode_catches_up_with_the_chunk() -> None:
    actions = smooth()
    actions[20:, 4] += 0.3
    checked = Check(NO_ACCELERATION, DT_S, CLIP)(actions, start_at(MIDDLE))
    assert checked.actions is not None
    np.testing.assert_allclose(checked.actions[30:], actions[30:], atol=1e-6)
    assert 0 < checked.changed <= 4


def test_scale_mode_keeps_the_direction_of_a_step() -> None:
    wanted = np.array([0.4, -0.2, 0.1, 0.05, 0.0, 0.02, -0.04])
    actions = np.tile(MIDDLE + wanted, (HORIZON, 1)).astype(np.float32)
    checked = Check(NO_ACCELERATION, DT_S, SCALE)(actions, start_at(MIDDLE))
    assert checked.actions is not None
    first = checked.actions[0] - MIDDLE
    np.testing.assert_allclose(first / first[0], wanted / wanted[0], atol=1e-4)
    assert np.abs(first[0]) == pytest.approx(LIMITS.velocity_max[0] * DT_S, abs=1e-5)
    np.testing.assert_allclose(checked.actions[-1], actions[-1], atol=1e-6)


@pytest.mark.parametrize("mode", [CLIP, SCALE])
def test_a_joint_brakes_in_time_for_the_end_of_its_range(mode: str) -> None:
    """A chunk that runs into its limit at full speed: it must slow down before, as nothing can stop it there."""
    limits = dataclasses.replace(LIMITS, acceleration_max=np.full(7, 5.0))
    actions = np.tile(MIDDLE, (HORIZON, 1))
    actions[:, 0] += np.arange(1, HORIZON + 1) * 0.1
    checked = Check(limits, DT_S, mode)(actions.astype(np.float32), start_at(MIDDLE))
    path = travelled(checked, start_at(MIDDLE))[:, 0]
    assert path.max() <= limits.position_max[0]
    assert path[-1] == pytest.approx(limits.position_max[0], abs=1e-3)
    assert np.abs(np.diff(path, n=2)).max() <= 5.0 * DT_S**2 + ROUNDING_RAD


def test_position_wins_where_no_braking_helps() -> None:
    limits = dataclasses.replace(LIMITS, acceleration_max=np.full(7, 1.0))
    edge = limits.position_max - 0.05
    fast = Motion(Start(edge, edge, np.full(7, 0.1)))
    actions = np.tile(limits.position_max + 1.0, (HORIZON, 1)).astype(np.float32)
    checked = Check(limits, DT_S, CLIP)(actions, fast)
    assert checked.actions is not None
    assert (checked.actions <= limits.position_max).all()


def test_the_step_that_can_still_be_stopped_uses_all_the_room() -> None:
    for room in (0.001, 0.01, 0.1, 1.0):
        for bend in (0.001, 0.02):
            step, way = stoppable(room, bend), 0.0
            while step > 0.0:
                way, step = way + step, step - bend
            assert way == pytest.approx(room, rel=1e-9)


def test_a_start_in_a_range_of_places_counts_from_the_nearest() -> None:
    motion = Motion(Start(MIDDLE, MIDDLE + 0.3, STILL))
    check = Check(NO_ACCELERATION, DT_S, CLIP)
    for offset, clean in ((-0.1, True), (0.2, True), (0.4, True), (-0.2, False), (0.5, False)):
        actions = np.tile(MIDDLE + offset, (HORIZON, 1)).astype(np.float32)
        assert check(actions, motion).clean == clean, offset


def test_a_hold_may_stop_as_hard_as_it_likes() -> None:
    moving = Motion(Start(MIDDLE, MIDDLE, np.full(7, 0.1)))
    actions = np.tile(MIDDLE, (HORIZON, 1)).astype(np.float32)
    check = Check(LIMITS, DT_S, CLIP)
    assert check(actions, moving, is_hold=True).clean
    assert check(actions, moving).kinds == ("acceleration_clamp",)


def test_violations_name_joint_kind_value_limit_and_unit() -> None:
    actions = smooth()
    actions[10, 3] = 0.2
    actions[20:, 1] += 0.2
    lines = Check(LIMITS, DT_S, REJECT)(actions, start_at(MIDDLE)).violations
    assert lines[0] == "panda_joint4 above max: 0.2 > -0.0698"
    assert any(
        line.startswith("panda_joint2 velocity: 4.") and line.endswith("> 2.175 rad/s") for line in lines
    )
    assert any(
        line.startswith("panda_joint2 acceleration: ") and line.endswith("> 7.5 rad/s^2") for line in lines
    )


def test_workspace_breaches_are_called_so() -> None:
    here = np.array([True, True, True, False])
    limits = Limits(
        ("x", "y", "z", "grip"), np.array([-0.5, -0.5, 0.0, 0.0]), np.array([0.5, 0.5, 0.8, 1.0]),
        np.full(4, np.inf), np.full(4, np.inf), here, ~here,
    )  # fmt: skip
    checked = Check(limits, DT_S, CLIP)(np.tile(np.float32([0.7, 0.0, -0.1, 0.5]), (5, 1)), Motion())
    assert checked.kinds == ("workspace_breach",)
    assert checked.violations == ("z workspace below min: -0.1 < 0", "x workspace above max: 0.7 > 0.5")


def test_the_list_of_violations_is_bounded() -> None:
    ones, none = np.ones(32), np.zeros(32, np.bool_)
    limits = Limits(tuple(f"joint_{number}" for number in range(32)), -ones, ones, ones, ones, none, none)
    checked = Check(limits, DT_S, CLIP)(np.full((50, 32), 9, np.float32), Motion())
    assert len(checked.violations) == LINES_KEPT
    assert checked.changed == 50 * 32


@pytest.mark.parametrize("mode", [CLIP, SCALE])
@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_the_shortest_chunks_are_checked_too(mode: str, horizon: int) -> None:
    actions = np.tile(MIDDLE + 0.5, (horizon, 1)).astype(np.float32)
    for motion in (Motion(), Motion(Start(MIDDLE, MIDDLE)), start_at(MIDDLE)):
        checked = Check(LIMITS, DT_S, mode)(actions, motion)
        assert checked.actions is not None
        if motion.start is not None:
            assert (np.abs(checked.actions[0] - MIDDLE) <= LIMITS.velocity_max * DT_S + ROUNDING_RAD).all()


def test_a_joint_that_turns_for_ever_is_limited_in_speed_alone() -> None:
    limits = Limits(
        ("wheel",), np.array([-np.inf]), np.array([np.inf]), np.array([1.0]), np.array([np.inf]),
        np.array([False]), np.array([False]),
    )  # fmt: skip
    check = Check(limits, DT_S, CLIP)
    slow = (np.arange(1, 11)[:, None] * 0.04 + 12.0).astype(np.float32)
    assert check(slow, Motion(Start(np.array([12.0]), np.array([12.0]), np.zeros(1)))).clean
    assert check(slow * 2, Motion()).kinds == ("velocity_clamp",)


@pytest.mark.parametrize("dt_s", [0.0, -0.05, float("nan")])
def test_speed_without_a_period_is_refused(dt_s: float) -> None:
    with pytest.raises(ValueError, match="velocity cannot be checked"):
        Check(LIMITS, dt_s, CLIP)
