# SPDX-License-Identifier: Apache-2.0
"""What the simulated robot needs of a task: an arm in a scene, what its hand does, and whether the goal is met."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray


class SimulatedArm(Protocol):
    """The arm of a task, with what is around it."""

    @property
    def joint_positions_rad(self) -> NDArray[Any]:
        """Return the arm's 7 angles in rad."""
        ...

    @property
    def joint_velocities_rad_s(self) -> NDArray[Any]:
        """Return the arm's 7 velocities in rad/s."""
        ...

    @property
    def commanded_rad(self) -> NDArray[Any]:
        """Return the 7 angles in rad that the motors are commanded to now."""
        ...

    def image(
        self, camera: str = "policy", width: int | None = None, height: int | None = None
    ) -> NDArray[Any]:
        """Return uint8 [height, width, 3] RGB of the camera `policy` or `view`."""
        ...

    def close(self) -> None:
        """Free the renderer."""
        ...


class Task(Protocol):
    """A simulated arm in a scene. Called from one thread at a time."""

    @property
    def state_names(self) -> tuple[str, ...]:
        """Return the joints of the joint states, in their order."""
        ...

    @property
    def arm(self) -> SimulatedArm:
        """Return the arm; it is moved by `step` alone."""
        ...

    @property
    def state(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return positions and velocities of the joints that `state_names` names."""
        ...

    def reset(self, seed: int) -> str:
        """Set up the scene of this seed, the arm at rest. Return its instruction."""
        ...

    def step(self, command_rad: NDArray[Any], duration_s: float) -> None:
        """Move the arm's command to `command_rad` (7, rad) within `duration_s`, and the hand as its controller says."""
        ...

    def score(self) -> dict[str, object]:
        """Return `succeeded`, `measure_m`, `target` and `note`, and what else there is to know of this task."""
        ...
