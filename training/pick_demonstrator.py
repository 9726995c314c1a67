# SPDX-License-Identifier: Apache-2.0
"""The picking demonstrator: over the cube, down, close the fingers, lift. It knows where the cube truly is.

Its next row depends on the joints, the end effector, the finger and the cube alone, never on time: asked again half-way
it gives the rest of the same motion, and after a miss it begins again by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reflex_ros.demo.pick_arm import HAND, build_pick_model
from reflex_ros.demo.pick_scene import CUBE_AREA_M, CUBE_HALF_SIZE_M, FINGER_OPEN_M
from reflex_ros.demo.scene import HOME_RAD, JOINT_NAMES
from training.demonstrator import CHUNK_SIZE

Array = NDArray[np.float64]

GRID_FOLDER = "REFLEX_PICK_GRID"
SPEED = 0.65  # 1 is as fast as the arm follows
GRID_SHAPE = (11, 19, 12)
GRID_MARGIN_M = 0.05
GRID_HEIGHTS_M = (0.005, 0.30)
IK_TOLERANCE = 1e-3  # m and rad together
POSTURE_GAIN, IK_DAMPING, MAX_IK_STEP_RAD = 0.1, 1e-5, 0.2

LIFT_HEIGHT_M = 0.20
HOVER_M = 0.09  # above the cube while still beside it
FUNNEL_M = (0.009, 0.059)  # sideways error from which it descends, and where it hovers at full height
SIDEWAYS_GAIN, SIDEWAYS_STEP_M = 0.16 * SPEED, 0.016 * SPEED
HEIGHT_GAIN, HEIGHT_STEP_M = 0.2 * SPEED, 0.012 * SPEED
RESIDUAL_KEPT = 0.8  # of the difference from the grid's posture, a row
CLOSE_SIDEWAYS_M, CLOSE_HEIGHT_M, STAY_CLOSED_M = 0.007, 0.009, 0.016
CLOSE_STEP_M, OPEN_STEP_M = 0.01, 0.02
HELD_TOLERANCE_M = 0.0035
GRIPPED_M = CUBE_HALF_SIZE_M - 0.006  # commanded: the fingers press on the cube


def _pose_solver() -> Callable[[Array, Array, int], tuple[Array, float]]:
    """Return solve(position_m, start_rad, iterations) -> (joints_rad, error): tool down, jaws open along y."""
    model = build_pick_model()
    data = mujoco.MjData(model)
    site = model.site(f"{HAND}end_effector").id
    joints = [model.joint(name) for name in JOINT_NAMES]
    positions, velocities = ([getattr(joint, part)[0] for joint in joints] for part in ("qposadr", "dofadr"))
    low, high = model.jnt_range[[joint.id for joint in joints]].T
    home, jacobian, error = np.asarray(HOME_RAD), np.zeros((6, model.nv)), np.zeros(6)
    data.qpos[positions] = home
    mujoco.mj_kinematics(model, data)
    # HOME_RAD looks down to within a few degrees: rounding gives the exact frame.
    wanted = np.round(data.site_xmat[site].reshape(3, 3))

    def solve(position_m: Array, start_rad: Array, iterations: int) -> tuple[Array, float]:
        angles = start_rad
        for _ in range(iterations):
            data.qpos[positions] = angles
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            frame = data.site_xmat[site].reshape(3, 3)
            error[:3] = position_m - data.site_xpos[site]
            error[3:] = 0.5 * np.cross(frame.T, wanted.T).sum(axis=0)
            mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], site)
            arm = jacobian[:, velocities]
            inverse = arm.T @ np.linalg.inv(arm @ arm.T + IK_DAMPING * np.eye(6))
            stay = POSTURE_GAIN * (np.eye(7) - inverse @ arm) @ (home - angles)
            step = np.clip(inverse @ error + stay, -MAX_IK_STEP_RAD, MAX_IK_STEP_RAD)
            angles = np.clip(angles + step, low, high)
        return angles, float(np.linalg.norm(error))

    return solve


@cache
def _grid() -> tuple[Array, Array, Array]:
    """Return the spline coefficients [7, x, y, z] of the inverse kinematics, and the grid's low and high corner in m.

    The poses are kept in the folder that the environment variable GRID_FOLDER names, where it is set: they take some seconds.

    Raises RuntimeError where a point of the grid is out of the arm's reach.
    """
    sides = np.array([*CUBE_AREA_M, GRID_HEIGHTS_M])
    sides[:2] += (-GRID_MARGIN_M, GRID_MARGIN_M)
    folder = os.environ.get(GRID_FOLDER, "")
    kept = Path(folder) / "pick_grid.npy"
    if folder and kept.exists():
        poses = np.load(kept)
    else:
        poses = _grid_poses(sides)
        if folder:
            part = kept.with_name(f"part-{os.getpid()}.npy")
            np.save(part, poses)
            part.rename(kept)
    coefficients = np.stack([ndimage.spline_filter(poses[..., joint], order=3) for joint in range(7)])
    return coefficients, sides[:, 0], sides[:, 1]


def _grid_poses(sides: Array) -> Array:
    """Return joint angles [x, y, z, 7] for every point of the grid, each solved from its neighbour."""
    solve = _pose_solver()
    xs, ys, zs = (np.linspace(*side, count) for side, count in zip(sides, GRID_SHAPE, strict=True))
    poses, worst = np.zeros((*GRID_SHAPE, 7)), 0.0
    for i, x in enumerate(xs):
        for k, z in enumerate(zs):
            for j, y in enumerate(ys):
                if i == j == k == 0:
                    start, iterations = np.asarray(HOME_RAD), 300
                else:
                    start = poses[i, j - 1, k] if j else poses[i, 0, k - 1] if k else poses[i - 1, 0, 0]
                    iterations = 40
                poses[i, j, k], error = solve(np.array([x, y, z]), start, iterations)
                worst = max(worst, error)
    if worst > IK_TOLERANCE:
        raise RuntimeError(
            f"Expected joint angles for every point of the grid; the worst misses by {worst:.1e}."
        )
    return poses


def pose_at(points_m: Array) -> Array:
    """Return joint angles [N, 7] in rad with the end effector at points [N, 3] in m, tool down; clipped to the grid."""
    coefficients, low, high = _grid()
    index = (np.clip(points_m, low, high) - low) / (high - low) * (np.array(GRID_SHAPE) - 1)
    return np.stack(
        [
            ndimage.map_coordinates(joint, index.T, order=3, prefilter=False, mode="nearest")
            for joint in coefficients
        ],
        axis=-1,
    )


def is_held(finger_m: Array) -> NDArray[np.bool_]:
    """Return where the fingers stand a cube's width apart: they feel it, whatever a picture shows."""
    return np.abs(finger_m - CUBE_HALF_SIZE_M) < HELD_TOLERANCE_M


def _limited(error: Array, gain: float, step_m: float) -> Array:
    """Return the part of an error vector [N, k] that one row covers."""
    length = np.maximum(np.linalg.norm(error, axis=1, keepdims=True), 1e-9)
    return error * np.minimum(gain, step_m / length)


def demonstrate_pick(
    joints_rad: Array, end_effector_m: Array, finger_m: Array, cubes_m: Array, rows: int = CHUNK_SIZE
) -> Array:
    """Return rows [N, rows, 8] (7 joints in rad, finger in m) that pick up the cubes [N, 3] from these states.

    joints_rad: [N, 7]; end_effector_m: [N, 3]; finger_m: [N].
    """
    point, cube, finger = end_effector_m.copy(), cubes_m.copy(), finger_m.astype(np.float64).copy()
    residual = joints_rad - pose_at(point)
    held = is_held(finger)
    # The command behind a finger that a cube stops is lower than where it stands.
    command = np.where(held, 0.0, finger)
    chunk = np.empty((len(joints_rad), rows, 8))
    for row in range(rows):
        height = np.clip(cube[:, 2], CUBE_HALF_SIZE_M, 0.1)
        sideways = np.linalg.norm(point[:, :2] - cube[:, :2], axis=1)
        at_it = (sideways < CLOSE_SIDEWAYS_M) & (np.abs(point[:, 2] - height) < CLOSE_HEIGHT_M)
        closing = (finger < FINGER_OPEN_M - 0.004) & (np.linalg.norm(point - cube, axis=1) < STAY_CLOSED_M)
        close = ~held & (at_it | closing)
        share = np.clip((sideways - FUNNEL_M[0]) / (FUNNEL_M[1] - FUNNEL_M[0]), 0.0, 1.0)
        hover = height + HOVER_M * share * share * (3.0 - 2.0 * share)
        goal_height = np.where(held, LIFT_HEIGHT_M, hover)
        goal = np.where(held[:, None], point[:, :2], cube[:, :2])
        across = _limited(goal - point[:, :2], SIDEWAYS_GAIN, SIDEWAYS_STEP_M)
        up = _limited((goal_height - point[:, 2])[:, None], HEIGHT_GAIN, HEIGHT_STEP_M)
        point = point + np.concatenate([across, up], axis=1)
        residual = residual * RESIDUAL_KEPT
        closed, opened = (
            np.maximum(command - CLOSE_STEP_M, 0.0),
            np.minimum(command + OPEN_STEP_M, FINGER_OPEN_M),
        )
        command = np.where(held | close, closed, opened)
        held = held | (close & (command <= GRIPPED_M))
        finger = np.where(held, CUBE_HALF_SIZE_M, command)
        cube = np.where(held[:, None], point, cube)
        chunk[:, row, :7] = pose_at(point) + residual
        chunk[:, row, 7] = command
    return chunk
