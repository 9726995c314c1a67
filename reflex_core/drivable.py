# SPDX-License-Identifier: Apache-2.0
"""What a policy needs, beyond answering, to drive a robot over ROS."""

from __future__ import annotations

from reflex_core.assembly import Loaded
from reflex_core.errors import ConfigurationError

JOINT_STATES = "joint_states"


def require_drivable(loaded: Loaded, state_source: str) -> None:
    """Raise ConfigurationError unless the joints have names and the robot could be told to hold.

    state_source: as in the settings; joints are needed only where it is `joint_states`.
    """
    fit, robot = loaded.policy.fit, loaded.embodiment
    needs_joints = state_source == JOINT_STATES
    if robot is None or (needs_joints and not robot.joint_names):
        raise ConfigurationError(
            "a robot needs an embodiment with joint_names: give --embodiment, --custom-embodiment-config, or --joint-names"
        )
    if needs_joints and fit.hold_columns is None:
        raise ConfigurationError(
            f"the state ({', '.join(fit.state_names) or 'unnamed'}) does not contain the joints that are commanded"
            f" ({', '.join(fit.action_names)}): the robot could not be told to hold"
        )
