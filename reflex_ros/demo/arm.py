# SPDX-License-Identifier: Apache-2.0
"""A simulated Franka Panda at a table with three blocks: physics, joint state, camera, end effector."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from reflex_ros.demo.motors import command_of, drive, motors_of, place
from reflex_ros.demo.rendering import CameraRenderer
from reflex_ros.demo.scene import BLOCK_COUNT, COLOURS, JOINT_NAMES, Scene, distances_m, is_reached


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
        self._motors = motors_of(self._model)
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
        self._command = command_of(self._motors, joints_rad)
        place(self._model, self._data, self._motors, self._command)

    def step(self, command_rad: ArrayLike, duration_s: float) -> None:
        """Advance the physics by `duration_s` while the command moves linearly to `command_rad` (7, rad)."""
        target = command_of(self._motors, command_rad)
        self._until_s += duration_s
        self._command = drive(self._model, self._data, self._motors, self._command, target, self._until_s)

    @property
    def joint_positions_rad(self) -> NDArray[np.float64]:
        return np.asarray(self._data.qpos[self._motors.position])

    @property
    def commanded_rad(self) -> NDArray[np.float64]:
        """Return the 7 angles in rad that the motors are commanded to now."""
        return self._command.copy()

    @property
    def joint_velocities_rad_s(self) -> NDArray[np.float64]:
        return np.asarray(self._data.qvel[self._motors.velocity])

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
