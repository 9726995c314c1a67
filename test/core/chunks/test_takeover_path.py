# SPDX-License-Identifier: Apache-2.0
"""The way to where a person wants the robot, and which robots a person can command."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reflex_core.chunks.handover import LEAD_S
from reflex_core.chunks.takeover import GRADUAL_S, SPEED_SHARE, PersonPath, why_not
from reflex_core.robot.groups import BASE, GRIPPER, VELOCITY, Group
from reflex_core.robot.limits.check import Check
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.reachable import Motion, Start
from reflex_core.robot.limits.safety_config import REJECT

DT_S, LASTING_S = 0.05, 3.0
NAMES = ("a", "b", "fingers")
NONE_OF_THEM = np.zeros(3, np.bool_)
LIMITS = Limits(
    NAMES, np.array([-1.0, -2.0, 0.0]), np.array([1.0, 2.0, 0.04]), np.array([1.0, 2.0, np.inf]), np.array([np.inf, 5.0, np.inf]),
    workspace=NONE_OF_THEM, gripper=np.array([False, False, True]),
)  # fmt: skip
GROUPS = (Group("arm", (0, 1), NAMES[:2]), Group("hand", (2,), NAMES[2:], GRIPPER))
REST = np.zeros(3)


def test_every_joint_goes_gradually_to_where_it_is_wanted_and_rests_there() -> None:
    rows = PersonPath(LIMITS, DT_S, LASTING_S).rows(REST, REST, np.array([0.8, -0.4, 0.02]))
    assert rows is not None
    assert rows.dtype == np.float32
    assert rows[-1] == pytest.approx([0.8, -0.4, 0.02], abs=1e-6)
    moves = np.diff(rows[:, :2].astype(np.float64), axis=0, prepend=0.0)
    assert (np.abs(moves) <= SPEED_SHARE * LIMITS.velocity_max[:2] * DT_S).all()
    changes = np.diff(moves, axis=0, prepend=0.0)
    gradual = SPEED_SHARE * LIMITS.velocity_max[:2] / GRADUAL_S
    most = np.minimum(LIMITS.acceleration_max[:2], gradual) * DT_S**2 + 1e-6
    assert (np.abs(changes) <= most).all()
    assert (rows[:, 2] == np.float32(0.02)).all(), "a gripper without a limit of speed goes in its own way"


@pytest.mark.parametrize("seed", range(20))
def test_no_way_breaks_a_limit_wherever_the_robot_is_and_however_it_moves(seed: int) -> None:
    draw = np.random.default_rng(seed)
    path, check = PersonPath(LIMITS, DT_S, LASTING_S), Check(LIMITS, DT_S, REJECT)
    place, velocity = draw.uniform([-0.9, -1.8, 0.0], [0.9, 1.8, 0.04]), np.zeros(3)
    for _ in range(50):
        rows = path.rows(place, velocity, draw.uniform(-3.0, 3.0, 3))
        assert rows is not None
        found = check(rows, Motion(Start(place, place, velocity * DT_S)))
        assert found.clean, found.violations
        at = int(draw.integers(1, 6))
        place, velocity = rows[at].astype(np.float64), (rows[at] - rows[at - 1]).astype(np.float64) / DT_S


def test_a_way_is_never_shorter_than_a_controller_needs_and_never_longer_than_it_is_followed() -> None:
    path = PersonPath(LIMITS, DT_S, 0.4)
    short, long = path.rows(REST, REST, REST), path.rows(REST, REST, np.array([1.0, 0.0, 0.0]))
    assert short is not None
    assert long is not None
    assert len(short) * DT_S > LEAD_S
    assert len(long) * DT_S == pytest.approx(0.4)


def test_a_robot_outside_its_range_is_led_back_from_near_and_nowhere_from_far() -> None:
    path = PersonPath(LIMITS, DT_S, LASTING_S)
    near = path.rows(np.array([1.01, 0.0, 0.0]), REST, REST)
    assert near is not None
    assert (near[:, 0] <= 1.0).all()
    assert path.rows(np.array([1.5, 0.0, 0.0]), REST, REST) is None


def test_a_robot_that_is_as_good_as_there_is_led_there() -> None:
    target = np.array([0.3, 0.0, 0.0])
    rows = PersonPath(LIMITS, DT_S, LASTING_S).rows(
        target - 1e-17, REST, target + np.array([0.0, 1e-17, 0.0])
    )
    assert rows is not None
    assert rows[-1] == pytest.approx(target, abs=1e-7)


def test_a_person_can_command_joints_and_grippers_with_limits_of_speed() -> None:
    assert why_not(GROUPS, LIMITS, DT_S) == ""
    assert why_not(GROUPS, None, DT_S) == "it needs the robot's limits and rate: name an embodiment"
    assert why_not(GROUPS, LIMITS, 0.0) == "it needs the robot's limits and rate: name an embodiment"
    base = (Group("wheels", (0, 1), ("linear.x", "angular.z"), BASE, VELOCITY),)
    assert why_not(base, LIMITS, DT_S) == "it commands joint positions, and group 'wheels' takes others"
    free = replace(LIMITS, velocity_max=np.array([1.0, np.inf, np.inf]))
    assert why_not(GROUPS, free, DT_S) == "it needs a limit of speed for every joint, and b has none"


def test_at_half_the_pace_a_joint_brakes_as_it_may_and_then_goes_half_as_fast() -> None:
    path, check = PersonPath(LIMITS, DT_S, LASTING_S), Check(LIMITS, DT_S, REJECT)
    fast = np.array([0.6, 1.2, 0.0])
    rows = path.rows(REST, fast, np.array([0.9, 1.8, 0.0]), 0.5)
    assert rows is not None
    assert check(rows, Motion(Start(REST, REST, fast * DT_S))).clean
    moves = np.diff(rows[:, :2].astype(np.float64), axis=0, prepend=0.0) / DT_S
    assert (moves[0] > 0.5 * SPEED_SHARE * LIMITS.velocity_max[:2]).all(), "it does not stop at once"
    assert moves[6] == pytest.approx(0.5 * SPEED_SHARE * LIMITS.velocity_max[:2], rel=0.02)


def test_without_limits_of_the_tool_the_pace_is_the_usual_one() -> None:
    assert PersonPath(LIMITS, DT_S, LASTING_S).pace(REST, np.ones(3)) == 1.0
