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
        self._arm = Arm()
        self.reset(0)

    @property
    def arm_rad(self) -> NDArray[np.float64]:
        return self._arm.joint_positions_rad

    @property
    def arm_rad_s(self) -> NDArray[np.float64]:
        return self._arm.joint_velocities_rad_s

    @property
    def commanded_rad(self) -> NDArray[np.float64]:
        """Return the arm's 7 commanded angles in rad."""
        return self._arm.commanded_rad

    @property
    def state(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.arm_rad, self.arm_rad_s

    def reset(self, seed: int) -> str:
        """Set up the scene of this seed. Return its instruction."""
        self._scene = make_scene(seed)
        self._arm.reset(self._scene)
        return self._scene.instruction

    def step(self, command_rad: NDArray[Any], duration_s: float) -> None:
        """Move the arm's command to `command_rad` (7, rad) within `duration_s`."""
        self._arm.step(command_rad, duration_s)

    def image(
        self, camera: str = "policy", width: int | None = None, height: int | None = None
    ) -> NDArray[np.uint8]:
        """Return uint8 [height, width, 3] RGB of the camera `policy` or `view`."""
        return self._arm.image(camera, width, height)

    def score(self) -> dict[str, object]:
        """Return how far the arm is from the point above the named block, and which block is nearest."""
        nearest = int(np.argmin(distances_m(self._scene, self._arm.end_effector_m)))
        reached, distance_m = self._arm.reached(self._scene), self._arm.distance_m(self._scene)
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

    def close(self) -> None:
        """Free the renderer."""
        self._arm.close()
