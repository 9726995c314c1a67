# SPDX-License-Identifier: Apache-2.0
"""The task of picking: the arm grasps the named cube, lifts it and holds it up, its hand on a controller of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_ros.demo.controllers.forward_controller import ForwardCommandController
from reflex_ros.demo.pick_arm import PickArm
from reflex_ros.demo.pick_scene import (
    FINGER_NAME,
    FINGER_OPEN_M,
    PICK_JOINT_NAMES,
    WRONG_CUBE_M,
    Judgement,
    judge,
    make_pick_scene,
)


class PickTask:
    """An arm with a hand among cubes. `gripper` commands the fingers' position in m; they stay where it last commanded."""

    state_names = PICK_JOINT_NAMES

    def __init__(self) -> None:
        self.arm = PickArm()
        self.reset(0)

    @property
    def state(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return positions and velocities of the 7 arm joints (rad) and of the finger (m)."""
        arm = self.arm
        positions = np.append(arm.joint_positions_rad, arm.finger_m)
        return positions, np.append(arm.joint_velocities_rad_s, arm.finger_velocity_m_s)

    def reset(self, seed: int) -> str:
        """Set up the scene of this seed, fingers open. Return its instruction."""
        self._scene = make_pick_scene(seed)
        self.arm.reset(self._scene)
        self.gripper = ForwardCommandController((FINGER_NAME,))
        self._finger_m = FINGER_OPEN_M
        self._start_m = self.arm.cubes_m
        self._judgement = Judgement()
        return self._scene.instruction

    def step(self, command_rad: NDArray[Any], duration_s: float) -> None:
        """Move the arm's command to `command_rad` (7, rad) within `duration_s`, and the fingers' to the gripper's."""
        commanded = self.gripper.sample()
        if commanded is not None:
            self._finger_m = float(commanded[0])
        self.arm.step(command_rad, self._finger_m, duration_s)
        lifted_m = self.arm.cubes_m[:, 2] - self._start_m[:, 2]
        self._judgement = judge(self._judgement, lifted_m, self._scene.target_index, duration_s)

    def score(self) -> dict[str, object]:
        """Return how far the named cube is up, for how long, and whether another was lifted."""
        found = self._judgement
        if found.picked_up:
            note = ""
        elif found.wrong_cube:
            note = f"another cube was lifted by more than {WRONG_CUBE_M:.2f} m"
        else:
            note = f"the {self._scene.target_colour} cube is {max(found.height_m, 0.0):.2f} m up"
        return {
            "succeeded": found.picked_up,
            "measure_m": found.height_m,
            "target": self._scene.target_colour,
            "note": note,
            "held_s": found.held_s,
            "wrong_cube": found.wrong_cube,
            "finger_m": self.arm.finger_m,
        }
