# SPDX-License-Identifier: Apache-2.0
"""How much slower joints go so that the tool keeps its limits of speed, against poses a millisecond apart."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from described_panda import kinematics

from benchmarks.robot_world import ARM, HOME, NAMES
from reflex_core.robot.limits.limits import effective_limits
from reflex_core.robot.limits.tool_limits import ToolLimits
from reflex_core.robot.limits.tool_pace import SHARE, tool_pace
from reflex_core.robot.rotations import axis_angle_of_matrix

STEP_S = 1e-3


def limits(speed_max: float, turning_max: float = math.inf) -> ToolLimits:
    embodiment = replace(ARM, kinematics=kinematics(), max_ee_velocity=speed_max, collision_check=False)
    found = effective_limits(tuple(NAMES), embodiment, None)
    assert found is not None
    assert found.tool is not None
    return replace(found.tool, rules=replace(found.tool.rules, turning_max=turning_max))


def rates(known: ToolLimits, place: np.ndarray, speeds: np.ndarray) -> tuple[float, float]:
    """Speed and turning of the tool, m/s and rad/s, where the joints go so fast."""
    index = known.kinematics.tree.links.index(known.kinematics.tool)
    before, after = known.kinematics.tree.poses(np.array([place, place + speeds * STEP_S]))[index]
    turned = axis_angle_of_matrix((after[:3, :3] @ before[:3, :3].T)[None])[0]
    return float(np.linalg.norm(after[:3, 3] - before[:3, 3])) / STEP_S, float(
        np.linalg.norm(turned)
    ) / STEP_S


@pytest.mark.parametrize("seed", range(20))
def test_the_tool_keeps_its_limits_in_whichever_directions_the_joints_go(seed: int) -> None:
    draw = np.random.default_rng(seed)
    known = limits(draw.uniform(0.01, 0.5), draw.uniform(0.05, 2.0))
    place = draw.uniform(ARM.action_min, ARM.action_max)
    speeds = draw.uniform(0.0, 2.0, len(HOME)) * draw.integers(0, 2, len(HOME))
    pace = tool_pace(known, place, speeds)
    assert 0.0 < pace <= 1.0
    fastest = [rates(known, place, pace * speeds * draw.choice([-1.0, 1.0], len(HOME))) for _ in range(50)]
    assert max(speed for speed, _ in fastest) <= SHARE * known.rules.speed_max * 1.001 + 1e-9
    assert max(turning for _, turning in fastest) <= SHARE * known.rules.turning_max * 1.001 + 1e-9


def test_one_joint_alone_brings_the_tool_to_its_share_of_the_limit() -> None:
    known, speeds = limits(0.1), np.array([2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    speed, _ = rates(known, HOME, tool_pace(known, HOME, speeds) * speeds)
    assert speed == pytest.approx(SHARE * 0.1, rel=1e-3)


def test_what_is_slow_enough_is_not_slowed_down_and_joints_of_no_arm_do_not_count() -> None:
    assert tool_pace(limits(0.5), HOME, np.full(7, 0.05)) == 1.0
    assert tool_pace(limits(0.01), HOME, np.full(7, np.inf)) == 1.0
