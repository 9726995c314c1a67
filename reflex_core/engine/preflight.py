# SPDX-License-Identifier: Apache-2.0
"""What a policy needs, beyond answering, to command a robot over ROS."""

from __future__ import annotations

from reflex_core.engine.serving_state import ServingState
from reflex_core.errors import ConfigurationError, SettingError
from reflex_core.settings.table import Settings

JOINT_STATES = "joint_states"


def why_undrivable(loaded: ServingState, settings: Settings) -> str:
    """Return why what is loaded must not command a robot; empty where it may.

    It may unless no policy was named, the joints have no names, or no hold could be commanded. Joints are needed only where
    `state_source` is `joint_states`.
    """
    if is_embedded_by_omission(settings):
        return (
            "no export was named, so the embedded policy answers requests and commands no robot: name an export, or"
            " `demo` for the embedded policy"
        )
    binding, robot = loaded.policy.binding, loaded.embodiment
    needs_joints = settings.state_source == JOINT_STATES
    if robot is None or (needs_joints and not robot.joint_names):
        return (
            "a robot needs an embodiment with joint_names: give --embodiment or --custom-embodiment-config, and"
            " --joint-names where it names none"
        )
    if needs_joints and binding.hold_columns is None:
        return (
            f"the state ({', '.join(binding.state_names) or 'unnamed'}) does not contain the joints that are commanded"
            f" ({', '.join(binding.action_names)}): the robot could not be commanded to hold"
        )
    return ""


def is_embedded_by_omission(settings: Settings) -> bool:
    """Return whether the embedded policy would be served because no other was named, and not by its name `demo`."""
    return not (settings.export_dir or settings.policy_a or settings.remote)


def require_requests_suffice(settings: Settings, why: str) -> None:
    """Raise ConfigurationError where the settings require more of an undrivable policy than answers to requests.

    why: what `why_undrivable` returned.
    """
    if not settings.http:
        raise SettingError(f"{why} (setting 'http' is false, so nothing would be served)")
    for name in ("record_bag", "joint_names"):
        if getattr(settings, name):
            raise ConfigurationError(
                f"{why} (setting '{name}' is for a robot: leave it out to serve requests alone)"
            )
