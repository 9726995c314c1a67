# SPDX-License-Identifier: Apache-2.0
"""A simulated Franka Panda at a table with three blocks: physics, joint state, camera, end effector."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from reflex_ros.demo.rendering import CameraRenderer
from reflex_ros.demo.scene import BLOCK_COUNT, COLOURS, JOINT_NAMES, Scene, distances_m, is_reached

VELOCITY_LIMIT_RAD_S = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])


def build_model() -> Any:
    """Return the mujoco.MjModel of the scene; the meshes are read from this package's assets."""
    assets = resources.files("reflex_ros.demo") / "assets"
    spec = mujoco.MjSpec.from_string(
        (assets / "scene.xml").read_text(encoding="utf-8"),
        include={"panda.xml": (assets / "panda.xml").read_bytes()},
    )
    add_meshes(spec)
    return spec.compile()


def add_meshes(spec: Any, wanted: Callable[[str], bool] = lambda _: True) -> None:
    """Add the arm's meshes whose names are wanted to a mujoco.MjSpec, from this package's assets."""
    assets = resources.files("reflex_ros.demo") / "assets"
    with (assets / "panda_meshes.npz").open("rb") as file, np.load(file) as arrays:
        for key in arrays.files:
            name, _, kind = key.partition(".")
            if kind != "vertices_m" or not wanted(name):
                continue
            mesh = spec.add_mesh(name=name)
            mesh.uservert = arrays[key].astype(np.float64).ravel()
            mesh.userface = arrays[f"{name}.faces"].astype(np.int32).ravel()
            # Decimation leaves open surfaces, and these meshes carry no mass.
            mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL


class Arm:
    """The arm in one scene. Not thread-safe: call it from one thread at a time.

    The motors track a position like an industrial controller does, with velocity feed-forward, so the arm
    follows a moving command without a lag of a tenth of a second. Contacts are off: the task is to reach,
    not to grasp.
    """

    def __init__(self, image_size: int = 224) -> None:
        self._image_size = image_size
        self._model = build_model()
        self._data = mujoco.MjData(self._model)
        joints = [self._model.joint(name) for name in JOINT_NAMES]
        self._position_index = np.array([joint.qposadr[0] for joint in joints])
        self._velocity_index = np.array([joint.dofadr[0] for joint in joints])
        self._actuator_index = np.array([self._model.actuator(name).id for name in JOINT_NAMES])
        self._low, self._high = self._model.jnt_range[[joint.id for joint in joints]].T
        gain = self._model.actuator_gainprm[self._actuator_index, 0]
        damping = -self._model.actuator_biasprm[self._actuator_index, 2]
        self._feed_forward_s = damping / gain
        self._site = self._model.site("end_effector").id
        self._block_geoms = [self._model.geom(f"block{index}").id for index in range(BLOCK_COUNT)]
        self._renderer: CameraRenderer | None = None
        self._command = np.zeros(len(JOINT_NAMES))
        self._until_s = 0.0

    def reset(self, scene: Scene) -> None:
        """Put the arm at rest in the scene's start pose and the blocks in their places."""
        mujoco.mj_resetData(self._model, self._data)
        self.place_blocks(scene)
        self._until_s = 0.0
        self.set_joints(scene.start_joints_rad)

    def place_blocks(self, scene: Scene) -> None:
        """Move the blocks to where the scene has them; the arm goes on as it was. Seen from the next step on."""
        for geom, block in zip(self._block_geoms, scene.blocks, strict=True):
            self._model.geom_pos[geom, :2] = (block.x_m, block.y_m)
            self._model.geom_rgba[geom] = (*COLOURS[block.colour], 1.0)

    def set_joints(self, joints_rad: ArrayLike) -> None:
        """Teleport the arm to 7 joint angles in rad, clipped to the joint limits, at rest."""
        self._command = self._clip(joints_rad)
        self._data.qpos[self._position_index] = self._command
        self._data.qvel[:] = 0.0
        self._data.ctrl[self._actuator_index] = self._command
        mujoco.mj_forward(self._model, self._data)

    def step(self, command_rad: ArrayLike, duration_s: float) -> None:
        """Advance the physics by `duration_s` while the command moves linearly to `command_rad` (7, rad)."""
        target = self._clip(command_rad)
        steps = self._steps_until(duration_s)
        if steps == 0:
            self._command = target
            return
        stride = (target - self._command) / steps
        velocity = np.clip(stride / self._model.opt.timestep, -VELOCITY_LIMIT_RAD_S, VELOCITY_LIMIT_RAD_S)
        for _ in range(steps):
            self._command = self._command + stride
            self._data.ctrl[self._actuator_index] = self._command + velocity * self._feed_forward_s
            mujoco.mj_step(self._model, self._data)
        # mj_step leaves site and camera positions one physics step behind the joints.
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)

    @property
    def joint_positions_rad(self) -> NDArray[np.float64]:
        return np.asarray(self._data.qpos[self._position_index])

    @property
    def commanded_rad(self) -> NDArray[np.float64]:
        """Return the 7 angles in rad that the motors are commanded to now."""
        return self._command.copy()

    @property
    def joint_velocities_rad_s(self) -> NDArray[np.float64]:
        return np.asarray(self._data.qvel[self._velocity_index])

    @property
    def end_effector_m(self) -> NDArray[np.float64]:
        """Return the position between the finger tips, shape (3,) in m, in the robot base frame."""
        return np.array(self._data.site_xpos[self._site])

    @property
    def time_s(self) -> float:
        """Simulated time since the last reset."""
        return float(self._data.time)

    def image(
        self, camera: str = "policy", width: int | None = None, height: int | None = None
    ) -> NDArray[np.uint8]:
        """Return uint8 [height, width, 3] RGB of the camera `policy` or `view`; square by default."""
        if self._renderer is None:
            self._renderer = CameraRenderer(self._model)
        return self._renderer.render(
            self._data, camera, width or self._image_size, height or self._image_size
        )

    def distance_m(self, scene: Scene) -> float:
        """Return the distance in m from the end effector to the point above the named block."""
        return float(distances_m(scene, self.end_effector_m)[scene.target_index])

    def reached(self, scene: Scene) -> bool:
        """Return whether the scene's success rule holds now."""
        return is_reached(scene, self.end_effector_m)

    def close(self) -> None:
        """Free the OpenGL context; the arm can still be stepped."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _clip(self, joints_rad: ArrayLike) -> NDArray[np.float64]:
        joints = np.asarray(joints_rad, dtype=np.float64)
        if joints.shape != (len(JOINT_NAMES),) or not np.isfinite(joints).all():
            raise ValueError(f"Expected {len(JOINT_NAMES)} finite joint angles in rad, got {joints_rad!r}.")
        return np.clip(joints, self._low, self._high)

    def _steps_until(self, duration_s: float) -> int:
        # Rounding against the running total keeps simulated time exact when duration_s is no multiple of a
        # step.
        self._until_s += duration_s
        remaining_s = float(self._until_s - self._data.time)
        return max(0, round(remaining_s / float(self._model.opt.timestep)))
