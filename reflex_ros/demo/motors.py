# SPDX-License-Identifier: Apache-2.0
"""Motors of a simulated arm: position controllers with velocity feed-forward that follow a command while it moves linearly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from reflex_ros.demo.scene import JOINT_NAMES

Floats = NDArray[np.float64]

VELOCITY_LIMIT_RAD_S = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])


@dataclass(frozen=True, slots=True, eq=False)
class Motors:
    """The motors of a mujoco.MjModel: those of the arm's 7 joints first, then those of the hand, if it has any.

    position, velocity: where the arm's joints are in qpos and qvel, (7,). actuators: of all motors in ctrl, (n,). low, high: range
    of each command, (n,) rad or m. velocity_limit: up to which the command's speed is fed forward, (n,). feed_forward_s: how far
    ahead of the command a motor is led, per speed, (n,).
    """

    position: NDArray[np.intp]
    velocity: NDArray[np.intp]
    actuators: NDArray[np.intp]
    low: Floats
    high: Floats
    velocity_limit: Floats
    feed_forward_s: Floats


def motors_of(model: Any, hand: Sequence[tuple[str, float, float]] = ()) -> Motors:
    """Return the motors of a model. hand: name of each actuator beside the arm's, with its range; its speed is not fed forward."""
    joints = [model.joint(name) for name in JOINT_NAMES]
    arm = np.array([model.actuator(name).id for name in JOINT_NAMES])
    more = np.array([model.actuator(name).id for name, _, _ in hand], dtype=arm.dtype)
    low, high = model.jnt_range[[joint.id for joint in joints]].T
    damping = -model.actuator_biasprm[arm, 2]
    return Motors(
        np.array([joint.qposadr[0] for joint in joints]),
        np.array([joint.dofadr[0] for joint in joints]),
        np.concatenate([arm, more]),
        np.append(low, [least for _, least, _ in hand]),
        np.append(high, [most for _, _, most in hand]),
        np.append(VELOCITY_LIMIT_RAD_S, np.full(len(hand), np.inf)),
        np.append(damping / model.actuator_gainprm[arm, 0], np.zeros(len(hand))),
    )


def command_of(motors: Motors, joints_rad: ArrayLike, *hand: float) -> Floats:
    """Return a command (n,) of 7 angles in rad and of the hand, clipped to their ranges. Raises ValueError for what is no pose."""
    joints = np.asarray(joints_rad, dtype=np.float64)
    if joints.shape != (len(JOINT_NAMES),) or not np.isfinite(joints).all():
        raise ValueError(f"Expected {len(JOINT_NAMES)} finite joint angles in rad, got {joints_rad!r}.")
    return np.asarray(np.clip(np.append(joints, hand), motors.low, motors.high))


def drive(model: Any, data: Any, motors: Motors, command: Floats, target: Floats, until_s: float) -> Floats:
    """Advance the physics to `until_s` while the command moves linearly to `target`, and return the command that is reached.

    model, data: mujoco.MjModel and mujoco.MjData. command, target: (n,). until_s: simulated time; with a running total of the
    durations it stays exact where they are no multiples of a step.
    """
    timestep_s = float(model.opt.timestep)
    steps = max(0, round((until_s - float(data.time)) / timestep_s))
    if steps == 0:
        return target
    stride = (target - command) / steps
    speed = np.clip(stride / timestep_s, -motors.velocity_limit, motors.velocity_limit)
    for _ in range(steps):
        command = command + stride
        data.ctrl[motors.actuators] = command + speed * motors.feed_forward_s
        mujoco.mj_step(model, data)
    # mj_step leaves site and camera positions one physics step behind the joints.
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    return command


def place(model: Any, data: Any, motors: Motors, command: Floats) -> None:
    """Put the arm at rest at a command (n,), its motors commanded there; what else moves keeps its place."""
    data.qpos[motors.position] = command[: len(JOINT_NAMES)]
    data.qvel[:] = 0.0
    data.ctrl[motors.actuators] = command
    mujoco.mj_forward(model, data)
