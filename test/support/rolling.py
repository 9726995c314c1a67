# SPDX-License-Identifier: Apache-2.0
"""A Panda on a base that is commanded by velocity, and the base alone."""

from __future__ import annotations

import dataclasses

import numpy as np
from guarded import FRANKA

from reflex_core.robot.embodiment import Embodiment, Statistics
from reflex_core.robot.groups import BASE, POSITION, VELOCITY, Group

AXES = ("linear.x", "angular.z")
NAMES = (*FRANKA.joint_names, *AXES)
FASTEST = np.array([0.5, 1.0])  # m/s, rad/s
HARDEST = np.array([1.0, 2.0])  # of change per second
DT_S = 0.05
assert FRANKA.velocity_max is not None


def robot_on_wheels(acceleration_max: float | None = 1.0) -> Embodiment:
    """Seven joints by position and two axes by velocity; acceleration_max: a share of HARDEST, None: not limited."""
    ones = Statistics(np.zeros(9), np.ones(9))
    bend = np.full(9, np.inf)
    if acceleration_max is not None:
        bend[7:] = acceleration_max * HARDEST
    return dataclasses.replace(
        FRANKA, name="rolling", joint_names=NAMES, action_min=np.append(FRANKA.action_min, -FASTEST),
        action_max=np.append(FRANKA.action_max, FASTEST), velocity_max=np.append(FRANKA.velocity_max, [np.inf, np.inf]),
        acceleration_max=bend, action_statistics=ones, state_statistics=ones,
        groups=(
            Group("arm", tuple(range(7)), FRANKA.joint_names, commands=POSITION, output="joint_trajectory"),
            Group("base", (7, 8), AXES, BASE, VELOCITY, "twist"),
        ),
    )  # fmt: skip


def base_alone() -> Embodiment:
    """Two axes by velocity and nothing else."""
    ones = Statistics(np.zeros(2), np.ones(2))
    return dataclasses.replace(
        FRANKA, name="base", joint_names=AXES, action_min=-FASTEST, action_max=FASTEST, velocity_max=None,
        acceleration_max=HARDEST, action_statistics=ones, state_statistics=ones,
        groups=(Group("base", (0, 1), AXES, BASE, VELOCITY, "twist"),),
    )  # fmt: skip


ROLLING, BASE_ALONE = robot_on_wheels(), base_alone()
