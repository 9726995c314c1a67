# SPDX-License-Identifier: Apache-2.0
"""Logic of the launch files: arguments from the settings table, and the environment of the processes."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reflex_core.errors import SettingError
from reflex_core.settings.parameter_file import read_parameters
from reflex_core.settings.row import Value, boolean, from_text
from reflex_core.settings.table import TABLE
from reflex_core.text.suggestions import nearest, no_such
from reflex_ros.console.ros_args import NODE
from reflex_ros.graph.dds_profile import missing_profile
from reflex_ros.settings_sources import take

log = logging.getLogger(__name__)

# big messages are allocated and freed for every frame: keep that memory in the process (docs/explanation/performance.md)
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
    ("use_sim_time", "", "Follow /clock; empty: as the parameter file says, else false."),
    ("log_level", "info", "debug, info, warn, error, fatal."),
    ("respawn", "false", "Start the process again when it ends."),
)
TRAJECTORY = "~/joint_trajectory"
ALMOST = 0.9  # of difflib's ratio: embodimnt is almost embodiment, robot_ip is not robot_id
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
_NAME = re.compile(r"[~/A-Za-z][~/A-Za-z0-9_]*")
_NAMESPACE = re.compile(r"(/?[A-Za-z_][A-Za-z0-9_]*)*/?")


@dataclass(frozen=True, slots=True)
class Plan:
    """The node of serve.launch.py. parameters: a file if there is one, then what the arguments say, which wins."""

    namespace: str
    parameters: list[str | dict[str, bool | int | float | str | list[str]]]
    remappings: list[tuple[str, str]]
    log_level: str
    respawn: bool


def arguments() -> list[tuple[str, str]]:
    """Return (name, description) of every launch argument that is a setting. All default to empty: not set."""
    own = [name for name, _, _ in OWN_ARGUMENTS]  # log_level, which launch hands to rcl
    return [(row.name, f"{row.help} [{row.default!r}]") for row in TABLE if row.name not in own]


def plan(texts: Mapping[str, str], argv: Sequence[str] = ()) -> Plan:
    """Return the plan of the node for launch arguments, checked as a whole before it starts.

    texts: every launch configuration, those of a launch file that includes this one among them. argv: how the process
    was called. Raises SettingError.
    """
    require_arguments(texts, [name for name, _ in arguments()], OWN_ARGUMENTS, "serve.launch.py", argv)
    namespace, level = texts["namespace"], texts["log_level"]
    if not _NAMESPACE.fullmatch(namespace):
        raise SettingError(
            f"launch argument 'namespace' takes letters, digits, _ and /, got {namespace!r:.100}"
        )
    if level.rpartition(":=")[2].lower() not in LOG_LEVELS:
        raise SettingError(
            f"launch argument 'log_level' takes one of {', '.join(LOG_LEVELS)}, got {level!r:.100}"
        )
    written = parameters({name: texts[name] for name, _ in arguments()})
    own: dict[str, bool | int | float | str | list[str]] = {
        # launch knows no empty list; an empty name is none
        name: list(value) or [""] if isinstance(value, tuple) else value
        for name, value in written.items()
    }
    if texts["use_sim_time"]:
        own = {"use_sim_time": boolean(texts["use_sim_time"], "launch argument 'use_sim_time'")} | own
    file = texts["params_file"]
    if file:
        above = (
            "" if namespace.startswith("/") else texts.get("ros_namespace", "")
        )  # where PushRosNamespace keeps it
        _require_file(file, f"{above}/{namespace}")
    return Plan(
        namespace=namespace,
        parameters=[*([file] if file else []), *([own] if own else [])],
        remappings=remappings(texts["trajectory"], texts["remap"]),
        log_level=level,
        respawn=boolean(texts["respawn"], "launch argument 'respawn'"),
    )


def parameters(texts: Mapping[str, str]) -> dict[str, Value]:
    """Convert launch arguments to typed node parameters; empty ones are left to the parameter file and the defaults.

    Raises SettingError naming the argument.
    """
    rows = {row.name: row for row in TABLE}
    return {name: from_text(rows[name], text) for name, text in texts.items() if text != ""}


def require_arguments(
    texts: Mapping[str, str],
    settings: Sequence[str],
    own: Sequence[tuple[str, str, str]],
    file: str,
    argv: Sequence[str],
) -> None:
    """Raise SettingError for launch arguments that a launch file does not have; launch itself ignores them.

    A launch file that includes this one may have arguments of its own: then those that are like ours are only warned of.
    """
    known = [*settings, *(name for name, _, _ in own)]
    unknown = sorted(set(texts) - set(known))
    if not unknown:
        return
    called = any(Path(word).name == file for word in argv)
    if called and (wrong := [name for name in unknown if any(word.startswith(f"{name}:=") for word in argv)]):
        raise SettingError(no_such("launch argument", wrong, known))
    for name in unknown:
        if meant := nearest(name, known, ALMOST):
            log.warning("launch argument %r is not one of %s; did you mean %s?", name, file, meant)


def _require_file(path: str, namespace: str) -> None:
    """Raise SettingError where the node would refuse its parameter file."""
    node = "/" + "/".join([*(part for part in namespace.split("/") if part), NODE])
    take(path, read_parameters(Path(path), node), {}, {})


def remappings(trajectory: str, remap: str) -> list[tuple[str, str]]:
    """Return (from, to) of the launch arguments `trajectory` and `remap`. Raises SettingError naming the invalid part."""
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


def environment(present: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return variables to add for ROS processes: the shared-memory profile (raw VGA frames get lost without) and malloc's.

    What the user has set already is left alone.
    """
    present = os.environ if present is None else present
    added = {name: value for name, value in MALLOC.items() if name not in present}
    return added | missing_profile(present)
