# SPDX-License-Identifier: Apache-2.0
"""Merge the settings from command line, environment, files and ROS parameters, for `reflex serve` and `reflex doctor` alike."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reflex_core.errors import SettingError
from reflex_core.settings.environment import from_environment
from reflex_core.settings.row import Value, checked
from reflex_core.settings.table import TABLE, Settings, require_known, settings_from
from reflex_ros.console.ros_args import ROS_ARGS, read_ros_args

OWNED_BY_ROS = ("use_sim_time", "start_type_description_service")
QOS_OVERRIDES = "qos_overrides."


@dataclass(frozen=True, slots=True)
class Given:
    """Merged settings.

    Attributes:
        settings: Given values over the defaults.
        written: The given values alone.
        node: Full name of the node.
        ros_parameters: Parameters that ROS itself declares.
        ros_args: Arguments for rclpy, without parameters.
        sources: Where each written value comes from, by setting.
    """

    settings: Settings
    written: Mapping[str, Value]
    node: str
    ros_parameters: Mapping[str, object]
    ros_args: tuple[str, ...]
    sources: Mapping[str, str] = field(default_factory=dict)


def given(
    options: Mapping[str, object],
    ros_args: Sequence[str],
    config: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Given:
    """Read every source: the file of --config, the environment, files and -p behind --ros-args in their order, the options.

    The later one wins; what stands behind --ros-args is of the command line, and of launch. Raises SettingError that names
    the source.
    """
    sources: dict[str, str] = {}
    theirs = read_ros_args(ros_args)
    written: dict[str, Value] = {}
    ros_parameters: dict[str, object] = {}
    if config is not None:
        from reflex_core.settings.parameter_file import (
            read_parameters,  # only here: the doctor runs where there is no yaml
        )

        found = read_parameters(Path(config), theirs.node, plain=True)
        take(f"--config {config}", found, written, ros_parameters)
        sources |= dict.fromkeys(written, f"file {config}")
    variables = from_environment(environment)
    written |= variables
    sources |= {row.name: f"environment {row.variable}" for row in TABLE if row.name in variables}
    for source, read in theirs.sources:
        found = read(theirs.node)
        take(source, found, written, ros_parameters)
        sources |= dict.fromkeys(found, f"{ROS_ARGS} {source}")
    settings = settings_from({**written, **options})
    written |= {name: getattr(settings, name) for name in options}
    sources |= dict.fromkeys(options, "command line")
    return Given(settings, written, theirs.node, ros_parameters, theirs.rest, sources)


def take(
    source: str, found: Mapping[str, object], written: dict[str, Value], ros_parameters: dict[str, object]
) -> None:
    """Add the checked settings of a source, and ROS's own parameters apart from them. Raises SettingError."""
    rows = {row.name: row for row in TABLE}
    own = {name: value for name, value in found.items() if not owned_by_ros(name)}
    try:
        require_known(own)
        written |= {name: checked(rows[name], value) for name, value in own.items()}
        for name in OWNED_BY_ROS:
            if not isinstance(found.get(name, False), bool):
                raise SettingError(f"parameter '{name}' takes true or false, got {found[name]!r:.100}")
    except SettingError as error:
        raise SettingError(f"{source}: {error}") from error
    ros_parameters |= {name: value for name, value in found.items() if owned_by_ros(name)}


def owned_by_ros(name: str) -> bool:
    """Return whether rclpy declares this parameter itself."""
    return name in OWNED_BY_ROS or name.startswith(QOS_OVERRIDES)
