# SPDX-License-Identifier: Apache-2.0
"""The table of robot interfaces by name: a new one is a file in this folder, and a row here."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

from reflex_core.errors import SettingError
from reflex_core.robot.groups import Group
from reflex_core.settings.table import Settings
from reflex_core.text.suggestions import no_such
from reflex_ros.outputs.base import MakeOutput

# name: module and what in it makes the output; imported when it is used, since all of them need ROS
INTERFACES = {
    "joint_trajectory": ("reflex_ros.outputs.joint_trajectory", "JointTrajectoryOutput"),
    "forward_command": ("reflex_ros.outputs.forward_command", "forward_command"),
    "gripper_command": ("reflex_ros.outputs.gripper_action", "gripper_command"),
    "parallel_gripper": ("reflex_ros.outputs.gripper_action", "parallel_gripper"),
    "gripper_topic": ("reflex_ros.outputs.gripper_topic", "gripper_topic"),
    "twist": ("reflex_ros.outputs.twist", "twist"),
    "servo_twist": ("reflex_ros.outputs.servo", "servo_twist"),
    "servo_joint_jog": ("reflex_ros.outputs.servo", "servo_joint_jog"),
    "pose": ("reflex_ros.outputs.pose", "pose"),
}


# settings that an interface reads as an option, where the group itself says nothing
DEFAULTS = {"joint_trajectory": {"trajectory_era": "trajectory_era"}}
# those whose rate the setting control_rate_hz is; a gripper that follows a topic has a slow one of its own
AT_CONTROL_RATE = ("forward_command", "twist", "servo_twist", "servo_joint_jog", "pose")


def check_output(settings: Settings) -> None:
    """Raise SettingError where the setting `output` names no robot interface."""
    if settings.output not in INTERFACES:
        wrong = no_such("robot interface", [settings.output], INTERFACES)
        raise SettingError(f"setting 'output': {wrong}; known: {', '.join(INTERFACES)}")


def output_maker(name: str) -> MakeOutput:
    """Return the factory of the robot interface of that name, of the table."""
    module, maker = INTERFACES[name]
    made: MakeOutput = getattr(import_module(module), maker)
    return made


def with_defaults(group: Group, settings: Settings) -> Group:
    """Return the group with its robot interface, and with the options that settings give; control_rate_hz is for all groups."""
    output = group.output or settings.output
    given = {option: getattr(settings, name) for option, name in DEFAULTS.get(output, {}).items()}
    rate_hz = settings.control_rate_hz if output in AT_CONTROL_RATE else 0.0
    rated = {"rate_hz": rate_hz} if rate_hz else {}
    return replace(group, output=output, options={**given, **group.options, **rated})
