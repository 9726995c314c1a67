# SPDX-License-Identifier: Apache-2.0
"""The table of robot interfaces by name: a new one is a file in this folder, and a row here."""

from __future__ import annotations

from importlib import import_module

from reflex_core.errors import SettingError
from reflex_core.settings.table import Settings
from reflex_core.text.suggestions import no_such
from reflex_ros.outputs.base import MakeOutput

# name: module and what in it makes the output; imported when it is used, since all of them need ROS
INTERFACES = {
    "joint_trajectory": ("reflex_ros.outputs.joint_trajectory", "JointTrajectoryOutput"),
}


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
