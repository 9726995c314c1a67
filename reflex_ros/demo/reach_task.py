# SPDX-License-Identifier: Apache-2.0
"""The task of reaching: the arm moves its gripper to the point above the named block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import JOINT_NAMES, distances_m, make_scene


class ReachTask:
    """An arm among blocks; it has no hand that moves."""

    state_names = JOINT_NAMES

    def __init__(self) -> None:
        self.arm = Arm()
        self.reset(0)

    @property
    def state(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.arm.joint_positions_rad, self.arm.joint_velocities_rad_s

    def reset(self, seed: int) -> str:
        """Set up the scene of this seed. Return its instruction."""
        self._scene = make_scene(seed)
        self.arm.reset(self._scene)
        return self._scene.instruction

    def step(self, command_rad: NDArray[Any], duration_s: float) -> None:
        """Move the arm's command to `command_rad` (7, rad) within `duration_s`."""
        self.arm.step(command_rad, duration_s)

    def score(self) -> dict[str, object]:
        """Return how far the arm is from the point above the named block, and which block is nearest."""
        nearest = int(np.argmin(distances_m(self._scene, self.arm.end_effector_m)))
        reached, distance_m = self.arm.reached(self._scene), self.arm.distance_m(self._scene)
        colour = self._scene.blocks[nearest].colour
        return {
            "succeeded": reached,
            "measure_m": distance_m,
            "target": self._scene.target_colour,
            "note": "" if reached else f"{distance_m:.2f} m away, nearest to the {colour} block",
            "reached": reached,
            "distance_m": distance_m,
            "nearest": colour,
        }
