# SPDX-License-Identifier: Apache-2.0
"""What the launch files decide: arguments from the settings table, and the environment of the processes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from reflex_core.errors import SettingError
from reflex_core.locations import share
from reflex_core.setting import Setting, Value, checked
from reflex_core.settings import TABLE

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

# big messages are allocated and freed for every frame: keep that memory in the process (docs/performance.md)
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "67108864", "MALLOC_TRIM_THRESHOLD_": "268435456"}


# arguments of serve.launch.py that are no settings: name, default, description
OWN_ARGUMENTS = (
    ("namespace", "", "Namespace of the node and its topics."),
    ("params_file", "", "YAML file with the node's parameters."),
    ("trajectory", "", "Topic for the trajectories, the controller's; empty: <node>/joint_trajectory."),
    (
        "remap",
        "",
        "Other names for topics: 'from:=to from2:=to2', camera/image_raw:=/wrist/color for example.",
    ),
    ("use_sim_time", "false", "Follow /clock."),
    ("log_level", "info", "debug, info, warn, error."),
    ("respawn", "false", "Start the process again when it ends."),
)
TRAJECTORY = "~/joint_trajectory"
_NAME = re.compile(r"[~/A-Za-z][~/A-Za-z0-9_]*")


def arguments() -> list[tuple[str, str]]:
    """(name, description) of every launch argument that is a setting. All default to empty: leave it as it is."""
    return [(row.name, f"{row.help} [{row.default!r}]") for row in TABLE]


def parameters(texts: Mapping[str, str]) -> dict[str, Value]:
    """Launch arguments as typed node parameters; empty ones are left to the parameter file and the defaults.

    Raises SettingError naming the argument.
    """
    rows = {row.name: row for row in TABLE}
    return {name: checked(rows[name], _typed(rows[name], text)) for name, text in texts.items() if text != ""}


def remappings(trajectory: str, remap: str) -> list[tuple[str, str]]:
    """(from, to) of the launch arguments `trajectory` and `remap`. Raises SettingError naming what is not right."""
    rules = [(TRAJECTORY, trajectory)] if trajectory else []
    for rule in remap.replace(",", " ").split():
        name, _, target = rule.partition(":=")
        rules.append((name, target))
    for name, target in rules:
        for each in (name, target):
            if not _NAME.fullmatch(each):
                raise SettingError(
                    f"launch argument 'remap' takes rules like camera/image_raw:=/wrist/color, 'trajectory' a topic;"
                    f" got {each!r} in {name + ':=' + target!r}"
                )
    known = [name for name, _ in rules]
    if twice := sorted({name for name in known if known.count(name) > 1}):
        raise SettingError(
            f"launch arguments 'remap' and 'trajectory' name a topic twice: {', '.join(twice)}"
        )
    return rules


def _typed(row: Setting, text: str) -> object:
    if isinstance(row.default, bool):
        words = {"true": True, "1": True, "false": False, "0": False}
        return words.get(text.lower(), text)
    if isinstance(row.default, tuple):
        return text.replace(",", " ").split()
    if isinstance(row.default, int | float):
        try:
            return type(row.default)(text)
        except ValueError as error:
            raise SettingError(
                f"setting '{row.name}' takes {type(row.default).__name__}, got {text!r}"
            ) from error
    return text


def environment(present: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables to add for ROS processes: the shared-memory profile (raw VGA frames get lost without) and malloc's.

    What the user has set already is left alone.
    """
    present = os.environ if present is None else present
    added = {name: value for name, value in MALLOC.items() if name not in present}
    if not any(name in present for name in PROFILE_VARIABLES):
        added[PROFILE_VARIABLES[0]] = str(share() / "config" / "fastdds_shm.xml")
    return added
