# SPDX-License-Identifier: Apache-2.0
"""The demonstrator: inverse kinematics to the point above a block, and a speed-limited way to get there. Needs no SciPy."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from reflex_ros.demo.scene import BLOCK_HALF_SIZE_M, HOME_RAD, HOVER_HEIGHT_M

CHUNK_SIZE = 50
GAIN_PER_TICK = 0.10
MAX_STEP_RAD = 0.05
GOAL_HEIGHT_M = 2 * BLOCK_HALF_SIZE_M + HOVER_HEIGHT_M
NEAR_M = 0.02
FEW_ITERATIONS, MANY_ITERATIONS = 12, 300
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


def poses_along(model: mujoco.MjModel, places_m: Array) -> Array:
    """Joint angles [N, 7] above each of N places [N, 2], every one solved from the one before."""
    data, joints, poses = mujoco.MjData(model), np.asarray(HOME_RAD), list[Array]()
    last_m = np.full(2, np.inf)
    for place_m in places_m:
        way_m = float(np.linalg.norm(place_m - last_m))
        if way_m > 0.0:
            iterations = FEW_ITERATIONS if way_m < NEAR_M else MANY_ITERATIONS
            joints = solve_pose(model, data, np.append(place_m, GOAL_HEIGHT_M), joints, iterations)
        poses.append(joints)
        last_m = place_m
    return np.array(poses)


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
