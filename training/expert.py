# SPDX-License-Identifier: Apache-2.0
"""The demonstrator: inverse kinematics to the point above a block, and a speed-limited way to get there."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from reflex_ros.demo.arm import build_model
from reflex_ros.demo.scene import BLOCK_AREA_M, BLOCK_HALF_SIZE_M, HOME_RAD, HOVER_HEIGHT_M

CHUNK_SIZE = 50
GAIN_PER_TICK = 0.10
MAX_STEP_RAD = 0.05
GRID_SHAPE = (14, 25)
GRID_MARGIN_M = 0.02
DAMPING = 1e-4
MAX_IK_STEP_RAD = 0.2
IK_TOLERANCE_M = 1e-3

Array = NDArray[np.float64]


def solve_pose(
    model: mujoco.MjModel, data: mujoco.MjData, position_m: Array, start_rad: Array, iterations: int
) -> Array:
    """Damped least squares for the end effector at `position_m`, tool axis down, free about that axis.

    The freedom left is spent on staying near HOME_RAD. Raises RuntimeError when the point is not reached.
    """
    site = model.site("end_effector").id
    down = np.array([0.0, 0.0, -1.0])
    home = np.asarray(HOME_RAD)
    low, high = model.jnt_range.T
    joints = start_rad.copy()
    jacobian = np.zeros((6, model.nv))
    error = np.zeros(6)
    for _ in range(iterations):
        data.qpos[:] = joints
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        error[:3] = position_m - data.site_xpos[site]
        error[3:] = np.cross(data.site_xmat[site].reshape(3, 3)[:, 2], down)
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], site)
        jacobian[3:] -= np.outer(down, down @ jacobian[3:])
        inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING * np.eye(6))
        step = inverse @ error
        step += 0.1 * (np.eye(model.nv) - inverse @ jacobian) @ (home - joints)
        joints = np.clip(joints + np.clip(step, -MAX_IK_STEP_RAD, MAX_IK_STEP_RAD), low, high)
    data.qpos[:] = joints
    mujoco.mj_kinematics(model, data)
    miss_m = float(np.linalg.norm(position_m - data.site_xpos[site]))
    if miss_m > IK_TOLERANCE_M:
        raise RuntimeError(
            f"No joint angles reach {position_m.round(3)} m: the nearest found is {miss_m:.4f} m away."
        )
    return joints


def build_goal_function() -> Callable[[Array], Array]:
    """Returns goal(xy_m [..., 2]) -> joint angles [..., 7] above it: a spline over a grid of IK solutions."""
    model = build_model()
    data = mujoco.MjData(model)
    (x_low, x_high), (y_low, y_high) = BLOCK_AREA_M
    xs = np.linspace(x_low - GRID_MARGIN_M, x_high + GRID_MARGIN_M, GRID_SHAPE[0])
    ys = np.linspace(y_low - GRID_MARGIN_M, y_high + GRID_MARGIN_M, GRID_SHAPE[1])
    height = 2 * BLOCK_HALF_SIZE_M + HOVER_HEIGHT_M
    poses = np.zeros((*GRID_SHAPE, 7))
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            first = i == 0 and j == 0
            start = np.asarray(HOME_RAD) if first else poses[i, j - 1] if j else poses[i - 1, 0]
            poses[i, j] = solve_pose(model, data, np.array([x, y, height]), start, 300 if first else 60)
    splines = [RectBivariateSpline(xs, ys, poses[:, :, joint]) for joint in range(7)]
    return lambda xy: np.stack([spline(xy[..., 0], xy[..., 1], grid=False) for spline in splines], axis=-1)


def demonstrate(joints_rad: Array, goal_rad: Array) -> NDArray[np.float32]:
    """Returns the action chunk [N, CHUNK_SIZE, 7] from `joints_rad` [N, 7] to `goal_rad` [N, 7].

    Each tick goes a tenth of the way, at most MAX_STEP_RAD in any joint. It depends on the joints alone, so
    asking again half-way gives the rest of the same motion.
    """
    chunk = np.empty((len(joints_rad), CHUNK_SIZE, 7), dtype=np.float32)
    joints = joints_rad.astype(np.float64)
    for tick in range(CHUNK_SIZE):
        error = goal_rad - joints
        largest = np.maximum(np.abs(error).max(axis=1, keepdims=True), 1e-9)
        joints = joints + error * np.minimum(GAIN_PER_TICK, MAX_STEP_RAD / largest)
        chunk[:, tick] = joints
    return chunk
