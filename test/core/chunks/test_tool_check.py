# SPDX-License-Identifier: Apache-2.0
"""What becomes of chunks whose tool is too fast or leaves, or whose bodies come too near to each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planar_arm import DT_S, at_rest, planar, towards

from reflex_core.chunks.interpolation import Bounds, Doubles, through
from reflex_core.chunks.tool_check import HELD_FOR, ToolCheck, check_of
from reflex_core.robot.limits.check import Check, Checked
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.reachable import Motion, Splice, Start
from reflex_core.robot.limits.safety_config import CLIP, REJECT, SCALE
from reflex_core.robot.limits.tool_limits import BOX, COLLISION, PLANE, SPEED, Plane
from reflex_core.values import Floats

BEGIN, ACROSS = (0.5, -1.0), (1.5, -1.0)  # the tool is 1.76 m from the shoulder, so that the way is that long


def check(limits: Limits, mode: str = CLIP) -> ToolCheck:
    found = check_of(limits, DT_S, mode)
    assert isinstance(found, ToolCheck)
    return found


def executed(rows: Floats, begin: tuple[float, float], velocity: Doubles | None = None) -> Doubles:
    """(n, 2) where the joints are every millisecond."""
    knots = np.concatenate([np.array([begin]), rows.astype(np.float64)])
    far = np.full(2, 3.0)
    bounds = Bounds(-far, far, np.full(2, 4.0), np.ones(2, np.bool_), np.full(2, np.nan))
    times = np.arange(len(knots)) * round(DT_S * 1e9)
    motion = through(times, knots, np.zeros(2) if velocity is None else velocity, bounds)
    return motion.sampled(np.arange(0, motion.end_ns, 1_000_000))


def hand(q: Doubles) -> Doubles:
    """(n, 2) where the tool is."""
    elbow = np.stack([np.cos(q[:, 0]), np.sin(q[:, 0])], axis=1)
    return elbow + np.stack([np.cos(q.sum(axis=1)), np.sin(q.sum(axis=1))], axis=1)


def speeds(q: Doubles) -> Doubles:
    return np.linalg.norm(np.diff(hand(q), axis=0), axis=1) * 1e3


def repaired(found: Checked) -> Floats:
    assert found.actions is not None
    return found.actions


def test_what_breaks_nothing_comes_back_as_it_is() -> None:
    rows = towards(BEGIN, ACROSS)
    found = check(planar(speed_max=2.0, distance_m=0.0))(rows, at_rest(*BEGIN))
    assert found.clean
    assert found.actions is rows


def test_a_robot_without_kinematics_is_checked_as_before() -> None:
    without = replace(planar(), tool=None)
    assert isinstance(check_of(without, DT_S, CLIP), Check)


def test_without_a_period_a_tool_cannot_be_checked() -> None:
    free = replace(planar(), velocity_max=np.full(2, np.inf))
    with pytest.raises(ValueError, match="the tool's speed cannot be checked: the chunk says 0 s"):
        check_of(free, 0.0, CLIP)


@pytest.mark.parametrize("mode", [CLIP, SCALE])
def test_a_tool_that_is_too_fast_is_slowed_down_on_its_path(mode: str) -> None:
    found = check(planar(speed_max=1.0), mode)(towards(BEGIN, ACROSS), at_rest(*BEGIN))
    assert found.kinds == (SPEED,)
    assert len(found.violations) == 1
    assert found.violations[0].startswith("hand speed: 1.8")
    assert found.violations[0].endswith("> 1 m/s")
    rows = repaired(found)
    assert speeds(executed(rows, BEGIN)).max() <= 1.0
    assert speeds(executed(rows, BEGIN)).max() >= 0.9  # not slower than need be
    np.testing.assert_allclose(rows[:, 1], -1.0, atol=1e-6)  # the elbow did not move before either
    assert (found.changed, found.counts) == (int((rows != towards(BEGIN, ACROSS)).sum()), True)


def test_all_joints_are_slowed_down_by_one_factor() -> None:
    end = (1.3, 0.4)
    rows = repaired(check(planar(speed_max=0.8))(towards(BEGIN, end), at_rest(*BEGIN)))
    share = (rows - BEGIN) / (np.array(end) - BEGIN)
    np.testing.assert_allclose(share[:, 0], share[:, 1], atol=1e-5)
    assert speeds(executed(rows, BEGIN)).max() <= 0.8


def test_turning_is_limited_as_well() -> None:
    found = check(planar(turning_max=0.5))(towards(BEGIN, ACROSS), at_rest(*BEGIN))
    assert found.violations[0].startswith("hand turning: 1.0")
    assert np.abs(np.diff(executed(repaired(found), BEGIN).sum(axis=1))).max() * 1e3 <= 0.5


def test_a_chunk_that_leaves_the_box_stops_on_its_path_inside() -> None:
    most = np.array([np.inf, 1.2, np.inf])
    found = check(planar(box_max=most))(towards(BEGIN, ACROSS), at_rest(*BEGIN))
    assert found.kinds == (BOX,)
    assert found.violations[0].startswith("hand box y above max: 1.4")
    assert found.violations[0].endswith(" > 1.2 m")
    y = hand(executed(repaired(found), BEGIN))[:, 1]
    assert 1.1 < y.max() <= 1.2
    np.testing.assert_array_equal(repaired(found)[-1], repaired(found)[-5])  # it stands there


@pytest.mark.parametrize("acceleration", [np.inf, 8.0])
def test_it_brakes_within_the_limit_of_acceleration(acceleration: float) -> None:
    limits = planar(box_max=np.array([np.inf, 1.2, np.inf]), acceleration=acceleration)
    rows = repaired(check(limits)(towards(BEGIN, ACROSS), at_rest(*BEGIN)))
    assert hand(executed(rows, BEGIN))[:, 1].max() <= 1.2
    knots = np.concatenate([[BEGIN, BEGIN], rows])
    assert np.abs(np.diff(knots, 2, axis=0)).max() <= acceleration * DT_S**2 + 1e-6


def test_a_plane_is_for_bodies_too_and_names_the_link() -> None:
    floor = Plane(np.array([0.0, -1.0, 0.0]), -1.2)  # y at most 1.2
    found = check(planar(planes=(floor,)))(towards(BEGIN, ACROSS), at_rest(*BEGIN))
    assert found.kinds == (PLANE,)
    assert [line.split(":")[0] for line in found.violations] == ["hand at plane 0", "hand at plane 0"]
    y = hand(executed(repaired(found), BEGIN))[:, 1]
    assert y.max() <= 1.2 - 0.05  # the radius of the hand


def test_bodies_keep_their_distance_and_both_are_named() -> None:
    begin, end = (0.0, 1.5), (0.0, 2.9)  # folded until the hand is at the base
    found = check(planar(distance_m=0.12))(towards(begin, end), at_rest(*begin))
    assert found.kinds == (COLLISION,)
    assert found.violations[0].startswith("base and hand apart: ")
    assert found.violations[0].endswith("< 0.12 m")
    at = hand(executed(repaired(found), begin))
    to_base = np.hypot(at[:, 0] - np.clip(at[:, 0], -0.5, 0.0), at[:, 1]) - 0.15
    assert 0.12 <= to_base.min() < 0.2


@pytest.mark.parametrize("mode", [CLIP, REJECT])
def test_a_hold_where_the_safety_file_says_so(mode: str) -> None:
    limits = planar(speed_max=1.0, held=frozenset({SPEED} if mode == CLIP else ()))
    found = check(limits, mode)(towards(BEGIN, ACROSS), at_rest(*BEGIN))
    assert (found.actions, found.held_for, found.kinds) == (None, HELD_FOR, (SPEED,))
    other = planar(speed_max=9.0, box_max=np.array([np.inf, 1.2, np.inf]), held=frozenset({SPEED}))
    assert (check(other, mode)(towards(BEGIN, ACROSS), at_rest(*BEGIN)).actions is None) == (mode == REJECT)


def test_a_robot_outside_may_come_back_and_nothing_else() -> None:
    limits = planar(box_max=np.array([np.inf, 0.5, np.inf]))
    assert hand(np.array([BEGIN]))[0, 1] < 0.5 < hand(np.array([ACROSS]))[0, 1]
    back = check(limits)(towards(ACROSS, BEGIN), at_rest(*ACROSS))
    assert back.clean
    further = check(limits)(towards(ACROSS, (1.8, -1.0)), at_rest(*ACROSS))
    assert further.kinds == (BOX,)
    np.testing.assert_allclose(repaired(further), np.tile(ACROSS, (30, 1)), atol=1e-6)
    back_and_out = np.concatenate([towards(ACROSS, (1.2, -1.0)), towards((1.2, -1.0), ACROSS)])
    y = hand(executed(repaired(check(limits)(back_and_out, at_rest(*ACROSS))), ACROSS))[:, 1]
    assert np.diff(y).max() < 1e-4  # never further out again


def test_where_it_is_moving_too_fast_to_stop_inside_it_is_held() -> None:
    limits = planar(box_max=np.array([np.inf, 0.01, np.inf]))
    fast = np.array([3.0, 0.0])
    rows = towards(BEGIN, ACROSS)
    led = Motion(None, Splice(0, np.array(BEGIN), fast * DT_S, lambda: np.zeros((0, 2))))
    assert check(limits)(rows, led).held_for == HELD_FOR


def test_rows_that_have_elapsed_are_not_judged() -> None:
    rows = towards(BEGIN, ACROSS)
    end, step = rows[4].astype(np.float64), (rows[4] - rows[3]).astype(np.float64)
    splice = Splice(5, end, step, lambda: rows[:5].astype(np.float64))
    found = check(planar(speed_max=1.0))(rows, Motion(None, splice))
    np.testing.assert_array_equal(repaired(found)[:5], rows[:5])
    joined = executed(repaired(found)[5:], (float(end[0]), -1.0), step / DT_S)
    assert speeds(joined).max() <= 1.0


def test_a_robot_of_which_nothing_is_known_is_judged_from_row_0_on() -> None:
    rows = towards(BEGIN, ACROSS)
    found = repaired(check(planar(speed_max=1.0))(rows, Motion()))
    np.testing.assert_array_equal(found[0], rows[0])
    assert speeds(executed(found[1:], (float(found[0, 0]), float(found[0, 1])))).max() <= 1.0
    assert check(planar(speed_max=1.0))(rows[:1], Motion()).clean


def test_what_drives_a_base_is_not_slowed_down_with_the_arm() -> None:
    limits = planar(speed_max=1.0)
    wheel = np.array([False, False, True])
    wide = replace(
        limits, names=(*limits.names, "wheel"), position_min=np.full(3, -3.0), position_max=np.full(3, 3.0), rates=wheel, unmeasured=wheel,
        velocity_max=np.full(3, 4.0), acceleration_max=np.full(3, np.inf), workspace=np.zeros(3, np.bool_), gripper=np.zeros(3, np.bool_),
    )  # fmt: skip
    assert wide.tool is not None
    known = wide.tool.kinematics
    tree = replace(known.tree, joints=wide.names)
    tool = replace(wide.tool, kinematics=replace(known, tree=tree), furthest=np.full(3, 3.0))
    wheels = np.linspace(0.0, 1.0, 30, dtype=np.float32)[:, None]
    rows = np.concatenate([towards(BEGIN, ACROSS), wheels], axis=1)
    found = repaired(
        check(replace(wide, tool=tool))(
            rows, Motion(Start(np.append(BEGIN, 0.0), np.append(BEGIN, 0.0), np.zeros(3)))
        )
    )
    np.testing.assert_array_equal(found[:, 2], rows[:, 2])
    assert (found[10:20, 0] < rows[10:20, 0]).all()


def test_a_hold_is_never_held_for_its_tool() -> None:
    found = check(planar(speed_max=0.01))(towards(BEGIN, ACROSS), at_rest(*BEGIN), is_hold=True)
    assert SPEED not in found.kinds
    assert found.actions is not None


@pytest.mark.parametrize("seed", range(20))
def test_no_motion_through_random_rows_is_beyond_a_limit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    begin = (float(rng.uniform(-1.0, 1.0)), float(rng.uniform(0.5, 1.5)))
    limits = planar(
        speed_max=float(rng.uniform(0.3, 3.0)), box_max=np.array([1.9, 1.9, np.inf]), distance_m=0.02
    )
    rows = np.array(begin) + np.cumsum(rng.normal(size=(20, 2)) * rng.choice([0.02, 0.1, 0.3]), axis=0)
    found = check(limits)(np.clip(rows, -2.9, 2.9).astype(np.float32), at_rest(*begin))
    if found.actions is None:
        return
    q = executed(found.actions, begin)
    assert limits.tool is not None
    assert speeds(q).max() <= limits.tool.rules.speed_max
    assert hand(q).max() <= 1.9
