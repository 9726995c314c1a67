# SPDX-License-Identifier: Apache-2.0
"""The parameters of joint_trajectory_controller that change what a trajectory does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEGACY, BLEND = "legacy", "blend"
ERAS = (LEGACY, BLEND)


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """Named as the controller names them, with its defaults.

    Attributes:
        era: LEGACY (Jazzy, Kilted, or replacement off): a new message replaces the running one at the next update.
            BLEND (releases after August 2026 with allow_trajectory_replacement): it is joined to the running one.
        velocity_state: Whether the hardware measures velocities.
        cmd_timeout_s: How long after the end of a trajectory the joints are held where they were measured; 0: never.
        splines: interpolation_method `splines`; False: `none`, each time the next point.
        upsampling: positions_upsampling.enable: trajectories of positions get velocities.
        policy_frequency_hz: positions_upsampling.policy_frequency: of points without times; 0: not used.
        continuous: Joints that turn without end.
    """

    era: str = LEGACY
    interpolate_from_desired_state: bool = False
    velocity_state: bool = True
    cmd_timeout_s: float = 0.0
    allow_partial_joints_goal: bool = False
    allow_nonzero_velocity_at_trajectory_end: bool = False
    allow_integration_in_goal_trajectories: bool = False
    splines: bool = True
    upsampling: bool = False
    policy_frequency_hz: float = 0.0
    continuous: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.era not in ERAS:
            raise ValueError(
                f"Expected one of {', '.join(ERAS)} as the era of a controller, got {self.era!r}."
            )

    def parameters(self, joints: Sequence[str]) -> dict[str, bool | float | str | list[str]]:
        """Return the ROS parameters of a controller with these options; those that its release lacks are left out."""
        found: dict[str, bool | float | str | list[str]] = {
            "joints": list(joints),
            "command_interfaces": ["position"],
            "state_interfaces": ["position", "velocity"] if self.velocity_state else ["position"],
            "interpolate_from_desired_state": self.interpolate_from_desired_state,
            "cmd_timeout": self.cmd_timeout_s,
            "allow_partial_joints_goal": self.allow_partial_joints_goal,
            "allow_nonzero_velocity_at_trajectory_end": self.allow_nonzero_velocity_at_trajectory_end,
            "allow_integration_in_goal_trajectories": self.allow_integration_in_goal_trajectories,
            "interpolation_method": "splines" if self.splines else "none",
        }
        if self.era == BLEND:
            found["allow_trajectory_replacement"] = True
            found["positions_upsampling.enable"] = self.upsampling
            found["positions_upsampling.policy_frequency"] = self.policy_frequency_hz
        return found
