# SPDX-License-Identifier: Apache-2.0
"""What is commanded by velocity: its limits, that 0 holds it, and that it needs no measurement."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guarded import FRANKA, MIDDLE
from rolling import AXES, BASE_ALONE, DT_S, FASTEST, HARDEST, ROLLING, robot_on_wheels

from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import Group
from reflex_core.robot.limits.check import ACCELERATION, VELOCITY, Check, Checked
from reflex_core.robot.limits.commands import RobotCommands
from reflex_core.robot.limits.history import Commanded, Moment
from reflex_core.robot.limits.hold import STREAM, ZERO, Stream, hold
from reflex_core.robot.limits.limits import Limits, effective_limits
from reflex_core.robot.limits.reachable import Motion, Start, motion
from reflex_core.robot.limits.safety_config import (
    CLIP,
    SCALE,
    SafetyConfigError,
    load_safety_config,
)
from reflex_core.values import Floats

SECOND_NS = 10**9
BEND = HARDEST * DT_S


def limits_of(robot: Any, safety: Any = None) -> Limits:
    found = effective_limits(robot.joint_names, robot, safety)
    assert found is not None
    return found


LIMITS, BASE = limits_of(ROLLING), limits_of(BASE_ALONE)
STILL: Floats = np.append(MIDDLE, [0.0, 0.0]).astype(np.float32)


def rows_at(x: float, z: float = 0.0, count: int = 6) -> Floats:
    return np.tile(np.append(MIDDLE, [x, z]), (count, 1)).astype(np.float32)


def moment(seconds: float, *, stamped: bool = True) -> Moment:
    return Moment(int(seconds * SECOND_NS), int((1000 + seconds) * SECOND_NS) if stamped else 0)


def stream(x: float, *, follows: bool = True) -> Stream:
    at = np.append(MIDDLE, [x, 0.0]).astype(np.float64)
    return Stream(at, at, np.zeros(9), np.array([follows] * 9))


def written(folder: Path, **document: Any) -> Path:
    path = folder / "safety.json"
    path.write_text(json.dumps({"joint_names": list(AXES), **document}))
    return path


def checked(x: list[float], known: Motion, mode: str = CLIP, limits: Limits = LIMITS) -> Checked:
    chunk = np.tile(STILL, (len(x), 1))
    chunk[:, 7] = x
    return Check(limits, DT_S, mode)(chunk, known)


def test_a_velocity_is_limited_by_its_range_and_its_change_by_the_acceleration() -> None:
    np.testing.assert_array_equal(LIMITS.position_max[7:], FASTEST)
    np.testing.assert_array_equal(LIMITS.velocity_max[7:], HARDEST)
    assert np.isinf(LIMITS.acceleration_max).all()
    assert LIMITS.unit(7) == "per second"
    assert LIMITS.unit(0) == "rad"


def test_a_robot_without_velocities_has_the_limits_it_had() -> None:
    limits = limits_of(FRANKA)
    assert limits.rates is None
    assert limits.unmeasured is None
    np.testing.assert_array_equal(limits.position_min, FRANKA.action_min)


def test_without_an_acceleration_limit_a_velocity_may_change_at_once() -> None:
    limits = limits_of(robot_on_wheels(None))
    assert np.isinf(limits.velocity_max[7:]).all()
    assert checked([0.5, -0.5], Motion(), limits=limits).clean


def test_the_safety_file_caps_velocity_and_acceleration_by_their_names(tmp_path: Path) -> None:
    safety = load_safety_config(written(tmp_path, velocity_max=[0.2, None], acceleration_max=[0.4, None]))
    limits = limits_of(ROLLING, safety)
    assert (limits.position_min[7], limits.position_max[7]) == (-0.2, 0.2)
    assert limits.velocity_max[7] == 0.4
    assert (limits.position_max[8], limits.velocity_max[8]) == (FASTEST[1], HARDEST[1])


def test_a_position_limit_of_a_velocity_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, position_min=[-1, -1], position_max=[1, 1])
    with pytest.raises(SafetyConfigError, match=r"'position_min' of 'linear.x' must be null.*velocity_max"):
        limits_of(ROLLING, load_safety_config(path))


def test_a_range_without_zero_is_refused_as_nothing_would_stop_it() -> None:
    forwards = dataclasses.replace(ROLLING, action_min=np.append(FRANKA.action_min, [0.1, -1.0]))
    with pytest.raises(ConfigurationError, match=r"'linear.x' must contain 0.*got 0.1 to 0.5"):
        limits_of(forwards)


def test_beyond_its_range_it_is_clipped_and_the_sentence_says_per_second() -> None:
    found = checked([0.7] * 3, Motion(Start(np.full(9, -np.inf), np.full(9, np.inf))))
    assert found.actions is not None
    np.testing.assert_allclose(found.actions[:, 7], 0.5)
    assert found.kinds == (VELOCITY,)
    assert found.violations == ("linear.x above max: 0.7 > 0.5 per second",)


@pytest.mark.parametrize("mode", [CLIP, SCALE])
def test_a_change_that_is_too_hard_becomes_a_ramp(mode: str) -> None:
    known = Motion(Start(STILL.astype(np.float64), STILL.astype(np.float64)))
    found = checked([0.3] * 8, known, mode)
    assert found.actions is not None
    np.testing.assert_allclose(found.actions[:, 7], np.minimum(0.05 * np.arange(1, 9), 0.3), atol=1e-6)
    assert found.kinds == (ACCELERATION,)
    assert found.violations == ("linear.x acceleration: 6 > 1 per second squared",)


def test_a_slow_joint_does_not_make_a_base_brake_later() -> None:
    """In scale mode all joints are slowed by one factor; a velocity goes its own way to 0."""
    began = rows_at(0.1)[0].astype(np.float64)
    chunk = rows_at(0.0, count=8)
    chunk[:, 0] += 1.5
    found = Check(LIMITS, DT_S, SCALE)(chunk, Motion(Start(began, began)))
    assert found.actions is not None
    np.testing.assert_allclose(found.actions[:3, 7], [0.05, 0.0, 0.0], atol=1e-6)
    assert found.actions[3, 0] < chunk[3, 0]


def test_a_base_alone_is_walked_in_every_mode() -> None:
    for mode in (CLIP, SCALE):
        chunk = np.tile(np.float32([0.5, 0.0]), (4, 1))
        found = Check(BASE, DT_S, mode)(chunk, Motion(Start(np.zeros(2), np.zeros(2))))
        assert found.actions is not None
        np.testing.assert_allclose(found.actions[:, 0], [0.05, 0.1, 0.15, 0.2], atol=1e-6)


def test_a_hold_brakes_a_base_to_zero_and_keeps_the_arm_where_it_is() -> None:
    held = hold(LIMITS, DT_S, stream(0.23), MIDDLE_OF_ALL)
    assert held is not None
    assert held.held is None
    assert held.rule == STREAM
    np.testing.assert_allclose(held.rows[:, 7], [0.18, 0.13, 0.08, 0.03, 0.0], atol=1e-6)
    np.testing.assert_array_equal(held.rows[:, :7], np.tile(MIDDLE, (5, 1)))
    np.testing.assert_array_equal(held.position[7:], [0.0, 0.0])


MIDDLE_OF_ALL: Floats = np.append(MIDDLE, [np.nan, np.nan]).astype(np.float32)  # nothing measures a velocity


def test_without_an_acceleration_limit_a_base_stops_at_once() -> None:
    held = hold(limits_of(robot_on_wheels(None)), DT_S, stream(0.23), MIDDLE_OF_ALL)
    assert held is not None
    np.testing.assert_array_equal(held.rows[:, 7:], [[0.0, 0.0]])


def test_a_base_is_held_where_nothing_at_all_is_known() -> None:
    held = hold(BASE, DT_S, None, None)
    assert held is not None
    assert held.rule == ZERO
    assert held.held is None
    np.testing.assert_array_equal(held.rows, [[0.0, 0.0]])


@pytest.mark.parametrize("known", [None, stream(0.1, follows=False)])
def test_where_the_arm_cannot_be_held_the_base_still_is(known: Stream | None) -> None:
    held = hold(LIMITS, DT_S, known, None)
    assert held is not None
    assert held.held is not None
    np.testing.assert_array_equal(np.flatnonzero(held.held), [7, 8])
    assert np.isnan(held.rows[:, :7]).all()
    np.testing.assert_array_equal(held.position[7:], [0.0, 0.0])


def test_what_no_robot_interface_commands_keeps_nothing_from_being_held() -> None:
    unused = dataclasses.replace(FRANKA, groups=(Group("arm", tuple(range(6)), FRANKA.joint_names[:6]),))
    limits = limits_of(unused)
    measured = MIDDLE.copy()
    measured[6] = np.nan
    held = hold(limits, DT_S, None, measured)
    assert held is not None
    assert held.held is None
    np.testing.assert_array_equal(held.rows[:, :6], MIDDLE[None, :6])
    assert np.isfinite(held.rows).all()


def test_once_the_rows_are_over_a_velocity_is_zero_and_a_position_stays() -> None:
    issued = Commanded(rows_at(0.3, count=3), DT_S, moment(10.0), rates=LIMITS.rates)
    at = issued.at(np.array([0.15, 0.1501]))
    np.testing.assert_allclose(at[:, 7], [0.3, 0.0], atol=1e-6)
    np.testing.assert_allclose(at[:, :7], np.tile(MIDDLE, (2, 1)), atol=1e-6)


def commands_after(chunk: Floats) -> RobotCommands:
    commands = RobotCommands(LIMITS, 0.2)
    commands.remember(Commanded(chunk, DT_S, moment(10.0), rates=LIMITS.rates), 0)
    commands.executed()
    return commands


def test_a_hold_that_is_made_again_goes_on_braking() -> None:
    """Also while the arm, which is far from its command and measured no more, cannot be held."""
    away = (MIDDLE + 1.0).tolist()
    for measured, believed in ((MIDDLE_OF_ALL, None), (None, ([*away, 0.0, 0.0], int(10.1 * SECOND_NS)))):
        commands = commands_after(rows_at(0.3, count=60))
        first = commands.hold(measured, believed, moment(10.1), DT_S)
        again = commands.hold(measured, believed, moment(10.2), DT_S)
        assert first is not None
        assert again is not None
        assert (first.held is None) is (measured is not None)
        np.testing.assert_allclose(first.rows[:3, 7], [0.25, 0.2, 0.15], atol=1e-6)
        np.testing.assert_allclose(again.rows[:3, 7], [0.15, 0.1, 0.05], atol=1e-6)


def test_where_the_base_alone_is_held_what_the_arm_was_commanded_goes_on() -> None:
    chunk = rows_at(0.3, count=60)
    chunk[:, 0] += np.arange(60) * 0.01
    commands = commands_after(chunk)
    away = ([*(MIDDLE + 1.0).tolist(), 0.0, 0.0], int(10.1 * SECOND_NS))
    assert commands.hold(None, away, moment(10.1), DT_S) is not None
    recalled = commands.recall()
    assert recalled is not None
    at = recalled.at(np.array([0.5, 10.0]))
    np.testing.assert_allclose(at[:, 0], [MIDDLE[0] + 0.12, chunk[-1, 0]], atol=1e-6)
    np.testing.assert_array_equal(at[:, 7], [0.0, 0.0])


def test_a_robot_at_rest_begins_at_zero_and_an_unknown_one_anywhere() -> None:
    ros = motion(None, MIDDLE_OF_ALL, moment(10.0), 10 * SECOND_NS, LIMITS, 10, DT_S)
    assert ros.start is not None
    np.testing.assert_array_equal(ros.start.low[7:], [0.0, 0.0])
    http = motion(None, MIDDLE_OF_ALL, moment(10.0, stamped=False), 10 * SECOND_NS, LIMITS, 10, DT_S)
    assert http.start is not None
    assert (http.start.low[7], http.start.high[7]) == (-np.inf, np.inf)
    np.testing.assert_allclose(http.start.low[:7], MIDDLE)


def test_who_played_a_chunk_to_its_end_has_stopped_or_goes_on_at_its_last_velocity() -> None:
    issued = Commanded(rows_at(0.4, count=4), DT_S, moment(10.0, stamped=False), rates=LIMITS.rates)
    later = moment(10.5, stamped=False)
    found = motion(issued, MIDDLE_OF_ALL, later, later.zero_ns, LIMITS, 4, DT_S).start
    assert found is not None
    np.testing.assert_allclose([found.low[7], found.high[7]], [0.0, 0.4], atol=1e-6)
    for first, clean in ((0.4, True), (0.0, True), (-0.2, False)):
        known = motion(issued, MIDDLE_OF_ALL, later, later.zero_ns, LIMITS, 4, DT_S)
        assert checked([first] * 4, known).clean is clean
