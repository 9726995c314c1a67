# SPDX-License-Identifier: Apache-2.0
"""The goals of the demonstrator for any place on the table: a spline over a grid of IK solutions."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
from scipy.interpolate import RectBivariateSpline

from reflex_ros.demo.arm import build_model
from reflex_ros.demo.scene import BLOCK_AREA_M, HOME_RAD
from training.demonstrator import GOAL_HEIGHT_M, Array, solve_pose

GRID_SHAPE = (14, 25)
GRID_MARGIN_M = 0.02


def build_goal_function() -> Callable[[Array], Array]:
    """Returns goal(xy_m [..., 2]) -> joint angles [..., 7] above it: a spline over a grid of IK solutions."""
    model = build_model()
    data = mujoco.MjData(model)
    (x_low, x_high), (y_low, y_high) = BLOCK_AREA_M
    xs = np.linspace(x_low - GRID_MARGIN_M, x_high + GRID_MARGIN_M, GRID_SHAPE[0])
    ys = np.linspace(y_low - GRID_MARGIN_M, y_high + GRID_MARGIN_M, GRID_SHAPE[1])
    poses = np.zeros((*GRID_SHAPE, 7))
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            first = i == 0 and j == 0
            start = np.asarray(HOME_RAD) if first else poses[i, j - 1] if j else poses[i - 1, 0]
            poses[i, j] = solve_pose(
                model, data, np.array([x, y, GOAL_HEIGHT_M]), start, 300 if first else 60
            )
    splines = [RectBivariateSpline(xs, ys, poses[:, :, joint]) for joint in range(7)]
    return lambda xy: np.stack([spline(xy[..., 0], xy[..., 1], grid=False) for spline in splines], axis=-1)
