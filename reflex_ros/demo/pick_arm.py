# SPDX-License-Identifier: Apache-2.0
"""A simulated Franka Panda with a two-finger hand at a table with three loose cubes: contacts, gripper, cameras."""

from __future__ import annotations

from importlib import resources
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from reflex_ros.demo.arm import add_meshes
from reflex_ros.demo.motors import command_of, drive, motors_of, place
from reflex_ros.demo.pick_scene import CUBE_COUNT, CUBE_HALF_SIZE_M, FINGER_OPEN_M, PickScene
from reflex_ros.demo.rendering import CameraRenderer
from reflex_ros.demo.scene import COLOURS, JOINT_NAMES

HAND = "hand_"  # before the names of the hand's parts
FINGERS = ("hand_finger_left", "hand_finger_right")
FINGER_GAIN_N_M, FINGER_DAMPING_N_S_M, FINGER_FORCE_N = 3000.0, 40.0, 40.0


def build_pick_model(*, hand_weighs: bool = False) -> Any:
    """Return the mujoco.MjModel of the scene, the hand of primitives in the place of the arm's gripper.

    hand_weighs: the arm's motors feel the hand's weight, as if the controller did not know it: the arm sinks a little.
    """
    assets = resources.files("reflex_ros.demo") / "assets"
    spec = mujoco.MjSpec.from_string(
        (assets / "pick_scene.xml").read_text(encoding="utf-8"),
        include={"panda.xml": (assets / "panda.xml").read_bytes()},
    )
    add_meshes(spec, lambda name: not name.startswith("attachment"))
    flange = spec.body("attachment")
    for part in (*flange.geoms, *flange.sites):
        spec.delete(part)
    hand = mujoco.MjSpec.from_string((assets / "panda_hand.xml").read_text(encoding="utf-8"))
    if hand_weighs:
        for name in ("hand", *(name.removeprefix(HAND) for name in FINGERS)):
            hand.body(name).gravcomp = 0.0
    flange.add_frame().attach_body(hand.body("hand"), HAND, "")
    flange.mass, flange.ipos = 0.01, (0.0, 0.0, 0.0)
    flange.inertia = (1e-5, 1e-5, 1e-5)
    # One motor moves both fingers, as in the real hand.
    coupling = spec.add_equality()
    coupling.type, coupling.objtype = mujoco.mjtEq.mjEQ_JOINT, mujoco.mjtObj.mjOBJ_JOINT
    coupling.name1, coupling.name2 = FINGERS[1], FINGERS[0]
    coupling.data[:5] = (0.0, 1.0, 0.0, 0.0, 0.0)
    coupling.solref = (0.004, 1.0)
    motor = spec.add_actuator(name="finger", target=FINGERS[0], trntype=mujoco.mjtTrn.mjTRN_JOINT)
    motor.set_to_position(kp=FINGER_GAIN_N_M, kv=FINGER_DAMPING_N_S_M)
    motor.forcerange = (-FINGER_FORCE_N, FINGER_FORCE_N)
    motor.ctrlrange = (0.0, FINGER_OPEN_M)
    return spec.compile()


class PickArm:
    """The arm, its hand and the cubes of one scene. Not thread-safe: call it from one thread at a time.

    The arm's motors track a position with velocity feed-forward. The hand's motor tracks a finger position with at most
    FINGER_FORCE_N, so a cube between the fingers stops them. Arm and table do not collide, fingers, cubes and table do.
    """

    def __init__(self, image_size: int = 224, *, hand_weighs: bool = False) -> None:
        self._image_size = image_size
        self._model = model = build_pick_model(hand_weighs=hand_weighs)
        self._data = mujoco.MjData(model)
        self._motors = motors_of(model, [("finger", 0.0, FINGER_OPEN_M)])
        self._finger_index = np.array([model.joint(name).qposadr[0] for name in FINGERS])
        self._finger_velocity = model.joint(FINGERS[0]).dofadr[0]
        self._site = model.site(f"{HAND}end_effector").id
        self._cube_index = [model.joint(f"cube{index}").qposadr[0] for index in range(CUBE_COUNT)]
        self._cube_geoms = [model.geom(f"cube{index}").id for index in range(CUBE_COUNT)]
        self._renderer: CameraRenderer | None = None
        self._command = np.append(np.zeros(len(JOINT_NAMES)), FINGER_OPEN_M)
        self._until_s = 0.0

    def reset(self, scene: PickScene) -> None:
        """Put the arm at rest in the scene's start pose, fingers open, and the cubes in their places."""
        mujoco.mj_resetData(self._model, self._data)
        self.place_cubes(scene)
        self._until_s = 0.0
        self.set_pose(scene.start_joints_rad, FINGER_OPEN_M)

    def place_cubes(self, scene: PickScene) -> None:
        """Put the cubes on the table where the scene has them, at rest; the arm goes on as it was."""
        for start, geom, cube in zip(self._cube_index, self._cube_geoms, scene.cubes, strict=True):
            half = cube.turn_rad / 2
            self._data.qpos[start : start + 3] = (cube.x_m, cube.y_m, CUBE_HALF_SIZE_M)
            self._data.qpos[start + 3 : start + 7] = (np.cos(half), 0.0, 0.0, np.sin(half))
            self._model.geom_rgba[geom] = (*COLOURS[cube.colour], 1.0)

    def set_pose(self, joints_rad: ArrayLike, finger_m: float) -> None:
        """Teleport the arm to 7 joint angles in rad and both fingers to a position in m, within their ranges, at rest."""
        self._command = command_of(self._motors, joints_rad, finger_m)
        self._data.qpos[self._finger_index] = self._command[-1]
        place(self._model, self._data, self._motors, self._command)

    def step(self, command_rad: ArrayLike, finger_m: float, duration_s: float) -> None:
        """Advance the physics by `duration_s` while the commands move linearly to `command_rad` (7, rad) and `finger_m`."""
        target = command_of(self._motors, command_rad, finger_m)
        self._until_s += duration_s
        self._command = drive(self._model, self._data, self._motors, self._command, target, self._until_s)

    @property
    def joint_positions_rad(self) -> NDArray[np.float64]:
        """Return the 7 angles of the arm in rad."""
        return np.array(self._data.qpos[self._motors.position])

    @property
    def commanded_rad(self) -> NDArray[np.float64]:
        """Return the 7 angles in rad that the arm's motors are commanded to now."""
        return self._command[: len(JOINT_NAMES)].copy()

    @property
    def joint_velocities_rad_s(self) -> NDArray[np.float64]:
        return np.array(self._data.qvel[self._motors.velocity])

    @property
    def finger_m(self) -> float:
        """Return the position of the left finger in m: 0 closed, FINGER_OPEN_M open."""
        return float(self._data.qpos[self._finger_index[0]])

    @property
    def finger_velocity_m_s(self) -> float:
        return float(self._data.qvel[self._finger_velocity])

    @property
    def end_effector_m(self) -> NDArray[np.float64]:
        """Return the position between the finger tips, shape (3,) in m, in the robot base frame."""
        return np.array(self._data.site_xpos[self._site])

    @property
    def cubes_m(self) -> NDArray[np.float64]:
        """Return the centres of the cubes, [3, 3] in m, in the robot base frame."""
        return np.array([self._data.qpos[start : start + 3] for start in self._cube_index])

    @property
    def time_s(self) -> float:
        """Simulated time since the last reset."""
        return float(self._data.time)

    def image(
        self, camera: str = "policy", width: int | None = None, height: int | None = None
    ) -> NDArray[np.uint8]:
        """Return uint8 [height, width, 3] RGB of the camera `policy` or, with shadows, `view`; square by default."""
        if self._renderer is None:
            self._renderer = CameraRenderer(self._model)
        width, height = width or self._image_size, height or self._image_size
        return self._renderer.render(self._data, camera, width, height, shadows=camera == "view")

    def close(self) -> None:
        """Free the OpenGL context; the arm can still be stepped."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
