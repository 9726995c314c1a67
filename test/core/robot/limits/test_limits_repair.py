# SPDX-License-Identifier: Apache-2.0
"""What is found wrong with a chunk and what becomes of it, against a plain account of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from slow_walk import slow_clip, slow_scale

from reflex_core.robot.limits.check import Check, inner_limits
from reflex_core.robot.limits.limits import Limits, Saturating
from reflex_core.robot.limits.reachable import Motion, Splice, Start
from reflex_core.robot.limits.safety_config import CLIP, REJECT, SCALE
from reflex_core.robot.limits.walk import Joint
from reflex_core.values import Floats

DT_S = 0.1
INF = np.inf
NONE = np.zeros(4, np.bool_)
# one joint with every limit, one without acceleration, one without speed, one that turns many times
LIMITS = Limits(
    ("shoulder", "elbow", "slide", "wheel"),
    np.array([-1.0, -2.0, -1.5, -7.5]),
    np.array([1.0, 2.0, 1.5, 7.5]),
    np.array([2.0, 1.0, INF, 1.5]),
    np.array([9.3, INF, 7.9, 6.7]),
    NONE,
    NONE,
)
ONLY_SPEED = dataclasses.replace(LIMITS, acceleration_max=np.full(4, INF))
STEP, BEND = LIMITS.velocity_max * DT_S, LIMITS.acceleration_max * DT_S**2
ZERO = np.zeros(4)
ROUNDING = 5e-6
HORIZON = 12


def some_chunk(chance: np.random.Generator) -> Floats:
    """From clean to wild, in every joint by itself; one in three leaves the range."""
    size = STEP.copy()
    size[2] = 0.2
    size *= chance.choice([0.05, 0.3, 1.5], 4)
    rows = chance.uniform(-0.7, 0.7, 4) + np.cumsum(chance.normal(size=(HORIZON, 4)) * size, axis=0)
    if chance.random() < 0.7:
        rows = np.clip(rows, LIMITS.position_min, LIMITS.position_max)
    return rows.astype(np.float32)


def some_motion(chance: np.random.Generator, rows: Floats, known: str) -> Motion:
    """Begin near the chunk: where it starts from is known with its speed, without it, midway, or not at all."""
    if known == "nothing":
        return Motion()
    low = np.clip(rows[0] + chance.normal(size=4) * 0.1, -0.9, 0.9)
    high = low + chance.choice([0.0, 0.1], 4)
    moving = chance.uniform(-0.05, 0.05, 4)
    if known == "place":
        return Motion(Start(low, high))
    start = Start(low, high, moving)
    if known == "speed":
        return Motion(start)
    row = int(chance.integers(1, HORIZON - 1))
    path = low + chance.uniform(-0.02, 0.02, 4) * np.arange(1, row + 1)[:, None]
    return Motion(start, Splice(row, path[-1], moving, lambda: path))


def place_before(rows: Floats, motion: Motion) -> Floats:
    """Where the robot was one row before the first, as far as is known."""
    if motion.start is not None and motion.start.step is not None:
        before = rows[0] - np.clip(motion.start.step, -STEP, STEP)
    else:
        before = rows[0] - np.clip(rows[1] - rows[0], -STEP, STEP)
    return before if motion.start is None else np.clip(before, motion.start.low, motion.start.high)


def expected_kinds(limits: Limits, actions: Floats, motion: Motion) -> dict[str, Floats]:
    """Which joints break which limit."""
    rows = np.clip(actions.astype(np.float64), limits.position_min, limits.position_max)
    moves = np.diff(np.vstack([place_before(rows, motion), rows]), axis=0)
    changes = np.diff(moves, axis=0)
    how_it_came = motion.start.step if motion.start is not None else None
    changes = changes[1:] if how_it_came is None else np.vstack([moves[:1] - how_it_came, changes])
    if motion.splice is not None:
        joining = rows[motion.splice.row] - motion.splice.end
        moves = np.vstack([moves, joining])
        after = rows[motion.splice.row + 1] - rows[motion.splice.row]
        changes = np.vstack([changes, joining - motion.splice.step, after - joining])
    return {
        "joint_clamp": (np.abs(actions - rows) > ROUNDING).any(axis=0),
        "velocity_clamp": (np.abs(moves) > limits.velocity_max * DT_S).any(axis=0),
        "acceleration_clamp": (np.abs(changes) > limits.acceleration_max * DT_S**2).any(axis=0),
    }


def until_rounding_decides(limits: Limits, actions: Floats, motion: Motion, bad: Floats, rows: Floats) -> int:
    """How many rows come before the last bit says whether one factor suits every joint: then the same way is found by
    limits that are narrower by no more than rounding. Nor is there one right way of scaling back in from outside the range.
    """
    if (splice := motion.splice) is not None and (np.abs(splice.end) > limits.position_max).any():
        return splice.row
    narrower = dataclasses.replace(
        limits,
        velocity_max=limits.velocity_max - ROUNDING / DT_S,
        acceleration_max=limits.acceleration_max - ROUNDING / DT_S**2,
    )
    apart = np.abs(expected_rows(narrower, actions, motion, SCALE, bad) - rows).max(axis=1) > 1e-4
    return int(apart.argmax()) if apart.any() else HORIZON


def assert_inside(limits: Limits, rows: Floats, motion: Motion) -> None:
    """From the first row that is still to come on: the range always, speed always, how sharply it turns unless it must brake."""
    assert (rows >= limits.position_min).all()
    assert (rows <= limits.position_max).all()
    moves = np.diff(rows.astype(np.float64), axis=0)
    if (splice := motion.splice) is not None:
        moves = np.vstack([splice.step, rows[splice.row] - splice.end, moves[splice.row :]])
    judged = moves[1:] if splice is not None else moves
    assert (np.abs(judged) <= limits.velocity_max * DT_S + 1e-6).all()
    if (np.abs(rows) < limits.position_max - 0.4).all():
        assert (np.abs(np.diff(moves, axis=0)) <= limits.acceleration_max * DT_S**2 + 2e-6).all()


def joint_of(limits: Limits, column: int) -> Joint:
    step, bend = limits.velocity_max * DT_S, limits.acceleration_max * DT_S**2
    low, high = limits.position_min, limits.position_max
    return Joint(float(low[column]), float(high[column]), float(step[column]), float(bend[column]))


def expected_rows(limits: Limits, actions: Floats, motion: Motion, mode: str, bad: Floats) -> Floats:
    """Every joint walked from where the robot is; in clip mode only those that break a limit of motion."""
    rows = np.clip(actions.astype(np.float64), limits.position_min, limits.position_max)
    joints = [joint_of(limits, column) for column in range(4)]
    walked = rows.copy()
    at, last, first = place_before(rows, motion), None, 0
    if motion.splice is not None:
        first, at, last = motion.splice.row, motion.splice.end, motion.splice.step
        # where it left the range, what has elapsed is remembered as the edge
        walked[:first] = np.clip(motion.splice.path(), limits.position_min, limits.position_max)
    elif motion.start is not None:
        last = motion.start.step
    if last is None:
        # no acceleration counts for the first step, only speed
        free = [dataclasses.replace(joint, bend=INF) for joint in joints]
        walked[0] = at = np.array(follow(rows[:1], free, at, ZERO, mode)[0])
        first, last = 1, rows[1] - at
    last = np.clip(last, -limits.velocity_max * DT_S, limits.velocity_max * DT_S)
    walked[first:] = follow(rows[first:], joints, at, last, mode)
    return walked if mode == SCALE else np.where(bad, walked, rows)


def follow(rows: Floats, joints: Sequence[Joint], at: Floats, last: Floats, mode: str) -> Floats:
    if mode == SCALE:
        return np.array(slow_scale(rows.tolist(), joints, at.tolist(), last.tolist()))
    columns = zip(rows.T.tolist(), joints, at.tolist(), last.tolist(), strict=True)
    return np.array([slow_clip(*column) for column in columns]).T


@pytest.mark.parametrize("mode", [CLIP, SCALE])
@pytest.mark.parametrize("limits", [LIMITS, ONLY_SPEED], ids=["acceleration", "speed"])
@pytest.mark.parametrize("known", ["nothing", "place", "speed", "midway"])
@pytest.mark.parametrize("seed", [24, 26])
def test_what_is_wrong_is_found_and_repaired_as_little_as_possible(
    known: str, limits: Limits, mode: str, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    check = Check(limits, DT_S, mode)
    repaired = 0
    for _ in range(40):
        actions = some_chunk(chance)
        motion = some_motion(chance, actions, known)
        checked = check(actions, motion)
        kinds = expected_kinds(limits, actions, motion)
        assert sorted(checked.kinds) == sorted(kind for kind, joints in kinds.items() if joints.any())
        bad = kinds["velocity_clamp"] | kinds["acceleration_clamp"]
        assert checked.actions is not None
        assert checked.changed == (checked.actions != actions).sum()
        assert checked.counts == (not checked.clean)
        expected = expected_rows(limits, actions, motion, mode, bad) if bad.any() else None
        if expected is not None:
            repaired += 1
            assert_inside(limits, checked.actions, motion)
            compared = HORIZON
            if mode == SCALE:
                compared = until_rounding_decides(limits, actions, motion, bad, expected)
            np.testing.assert_allclose(checked.actions[:compared], expected[:compared], rtol=0, atol=3e-4)
    assert repaired > 10


def at_rest(place: float = 0.0) -> Motion:
    where = np.full(4, place)
    return Motion(Start(where, where, ZERO))


def chunk(*shoulder: float) -> Floats:
    """Rows in which the shoulder alone moves."""
    rows = np.zeros((len(shoulder), 4), np.float32)
    rows[:, 0] = shoulder
    return rows


def test_what_is_clean_has_changed_nothing_and_counts_for_nothing() -> None:
    checked = Check(LIMITS, DT_S, CLIP)(chunk(0.05, 0.1), at_rest())
    assert (checked.clean, checked.changed, checked.counts, checked.kinds) == (True, 0, False, ())


def test_lines_say_the_largest_value_and_the_limit() -> None:
    checked = Check(LIMITS, DT_S, REJECT)(chunk(0.05, 0.55, 0.55), at_rest())
    assert checked.actions is None
    assert checked.counts
    assert checked.changed == 12
    assert checked.violations == (
        "shoulder velocity: 5 > 2 rad/s",
        "shoulder acceleration: 50 > 9.3 rad/s^2",
    )


def test_a_jump_where_the_chunk_is_joined_is_said() -> None:
    where = np.array([0.5, 0.0, 0.0, 0.0])
    motion = Motion(Start(ZERO, ZERO, ZERO), Splice(1, where, ZERO, lambda: where[None]))
    assert Check(LIMITS, DT_S, REJECT)(chunk(0.0, 0.0), motion).violations == (
        "shoulder velocity: 5 > 2 rad/s",
        "shoulder acceleration: 50 > 9.3 rad/s^2",
    )


@pytest.mark.parametrize("rows", [(-0.005, 0.0, -0.03, -0.06), (-0.005, 0.0, -0.03)])
def test_how_sharply_the_row_after_the_join_turns_is_judged_from_where_the_robot_is(
    rows: tuple[float, ...],
) -> None:
    """Row by row the chunk goes on evenly; from where the robot was led it first leaps, and then stands nearly still."""
    end = np.array([-0.08, 0.0, 0.0, 0.0])
    motion = Motion(Start(end, end, ZERO), Splice(1, end, ZERO, lambda: end[None]))
    checked = Check(LIMITS, DT_S, REJECT)(chunk(*rows), motion)
    assert checked.violations == ("shoulder acceleration: 11 > 9.3 rad/s^2",)
    repaired = Check(LIMITS, DT_S, CLIP)(chunk(*rows), motion)
    assert repaired.actions is not None
    moves = np.diff(repaired.actions[1:, 0], prepend=end[0])
    assert (np.abs(np.diff(moves)) <= BEND[0] + ROUNDING).all()


@pytest.mark.parametrize(("velocity", "acceleration"), [(2.0, INF), (INF, 10.0)])
@pytest.mark.parametrize("dt_s", [0.0, -0.1, float("nan")])
def test_any_limit_of_motion_needs_a_period(velocity: float, acceleration: float, dt_s: float) -> None:
    limits = dataclasses.replace(
        LIMITS,
        velocity_max=np.array([INF, velocity, INF, INF]),
        acceleration_max=np.array([INF, acceleration, INF, INF]),
    )
    with pytest.raises(ValueError, match="velocity cannot be checked"):
        Check(limits, dt_s, CLIP)


@pytest.mark.parametrize("dt_s", [0.0, float("nan")])
def test_a_range_alone_needs_no_period(dt_s: float) -> None:
    limits = dataclasses.replace(ONLY_SPEED, velocity_max=np.full(4, INF))
    checked = Check(limits, dt_s, CLIP)(chunk(-9.0, 9.0), at_rest())
    np.testing.assert_array_equal(checked.actions, chunk(-1.0, 1.0))


@pytest.mark.parametrize("mode", [CLIP, SCALE])
def test_a_single_row_without_any_history_is_one_step(mode: str) -> None:
    """There is no second row to say which way the chunk goes."""
    check = Check(LIMITS, DT_S, mode)
    assert check(chunk(0.9), Motion()).clean
    stepped = check(chunk(0.9), Motion(Start(ZERO, ZERO)))
    np.testing.assert_allclose(stepped.actions, chunk(0.2), atol=ROUNDING)


@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize("midway", [False, True])
def test_a_robot_outside_its_range_is_held_only_where_no_step_leads_back(side: float, midway: bool) -> None:
    check = Check(LIMITS, DT_S, CLIP)
    for beyond, reachable in ((0.19, True), (0.21, False)):
        where = np.array([side * (1.0 + beyond), 0.0, 0.0, 0.0])
        motion = at_rest(side * 0.9) if midway else Motion(Start(where, where, ZERO))
        if midway:
            splice = Splice(1, where, ZERO, lambda where=where: where[None])
            motion = dataclasses.replace(motion, splice=splice)
        checked = check(chunk(side * 0.95, side * 0.95), motion)
        assert (checked.actions is not None) == reachable
        if not reachable:
            sign, bound = ("<", -1) if side < 0 else (">", 1)
            line = f"shoulder range left already: {side * 1.21:g} {sign} {bound}: holding"
            assert checked.violations == (line,)
            assert (checked.kinds, checked.changed, checked.counts) == (("joint_clamp",), 8, True)


def test_a_hold_that_is_joined_midway_is_judged_by_where_the_robot_is_then() -> None:
    """Its elapsed rows and where it was before do not matter, nor how hard it stops."""
    where, fast = np.array([0.8, 0.0, 0.0, 0.0]), np.array([0.2, 0.0, 0.0, 0.0])
    motion = Motion(Start(ZERO, ZERO, ZERO), Splice(2, where, fast, lambda: np.tile(where, (2, 1))))
    check = Check(LIMITS, DT_S, CLIP)
    assert check(chunk(0.8, 0.8, 0.8), motion, is_hold=True).clean
    assert not check(chunk(0.8, 0.8, 0.8), motion).clean
    assert check(chunk(0.5, 0.5, 0.5), motion, is_hold=True).kinds == ("velocity_clamp",)


GRIPPER = dataclasses.replace(
    ONLY_SPEED,
    velocity_max=np.full(4, INF),
    saturating=Saturating(
        np.array([-1.0, -2.25, -1.5, -7.5]),
        np.array([1.0, 2.25, 1.5, 7.5]),
        np.array([-1.0, -2.5, -1.5, -7.5]),
        np.array([1.0, 2.5, 1.5, 7.5]),
    ),
)


def gripping(*values: float) -> Floats:
    rows = np.zeros((len(values), 4), np.float32)
    rows[:, 1] = values
    return rows


@pytest.mark.parametrize("side", [-1, 1])
def test_what_saturates_by_design_is_moved_to_its_end_without_a_word(side: int) -> None:
    check = Check(GRIPPER, DT_S, CLIP)
    checked = check(gripping(0.0, side * 2.25), Motion())
    np.testing.assert_array_equal(checked.actions, gripping(0.0, side * 2.0))
    assert (checked.clean, checked.changed, checked.counts) == (True, 0, False)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_little_more_is_said_but_not_held_against_the_policy(side: int) -> None:
    check = Check(GRIPPER, DT_S, CLIP)
    checked = check(gripping(0.0, side * 2.5), Motion())
    np.testing.assert_array_equal(checked.actions, gripping(0.0, side * 2.0))
    assert (len(checked.violations), checked.changed, checked.counts) == (1, 1, False)
    assert check(gripping(0.0, side * 2.625), Motion()).counts


@pytest.mark.parametrize("side", [-1, 1])
def test_another_joint_beside_a_gripper_counts_as_ever(side: int) -> None:
    actions = gripping(side * 2.25, side * 2.125)
    actions[1, 0] = side * 1.5
    checked = Check(GRIPPER, DT_S, CLIP)(actions, Motion())
    assert (len(checked.violations), checked.changed, checked.counts) == (1, 1, True)
    actions[0, 1] = side * 3.0
    assert Check(GRIPPER, DT_S, CLIP)(actions, Motion()).changed == 3


def test_bounds_in_single_precision_never_lie_outside_the_range() -> None:
    chance = np.random.default_rng(24)
    low = np.concatenate([chance.uniform(-3, 3, 500), [-0.5, 0.0, 0.1]])
    inner_low, inner_high = inner_limits(low, low)
    assert inner_low.dtype == inner_high.dtype == np.float32
    assert (inner_low.astype(np.float64) >= low).all()
    assert (inner_high.astype(np.float64) <= low).all()
    assert (np.nextafter(inner_low, np.float32(-9)).astype(np.float64) < low).all()
    assert (np.nextafter(inner_high, np.float32(9)).astype(np.float64) > low).all()


@pytest.mark.parametrize("motion", [Motion(), Motion(Start(ZERO, ZERO))], ids=["nothing", "place"])
def test_how_it_came_to_row_0_is_unknown_but_from_there_on_every_change_counts(motion: Motion) -> None:
    check = Check(LIMITS, DT_S, REJECT)
    for first, clean in ((0.15, True), (0.0, False)):
        rows = np.cumsum([0.0, first, 0.15, 0.15, 0.15])
        checked = check(chunk(*rows), motion)
        assert checked.kinds == (() if clean else ("acceleration_clamp",))


@pytest.mark.parametrize("mode", [CLIP, SCALE])
def test_a_leap_from_one_side_of_zero_to_the_other_is_a_leap(mode: str) -> None:
    checked = Check(ONLY_SPEED, DT_S, mode)(chunk(0.0, -0.1, 0.15, 0.15, 0.15, -0.15), at_rest())
    np.testing.assert_allclose(checked.actions, chunk(0.0, -0.1, 0.1, 0.15, 0.15, -0.05), atol=ROUNDING)
