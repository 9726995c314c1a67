# SPDX-License-Identifier: Apache-2.0
"""`reflex guard init|check`: write a safety configuration from a robot's description, and check one."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from reflex_core.errors import ConfigurationError
from reflex_core.files.atomic import atomic_write
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.limits.limits import Limits, effective_limits
from reflex_core.robot.limits.safety_config import CARTESIAN, SafetyConfig, load_safety_config
from reflex_core.robot.limits.tool_limits import described
from reflex_core.robot.presets import load_embodiment, load_preset
from reflex_core.robot.urdf import UrdfJoint, read_urdf
from reflex_ros.cli.parser import Parser, add_command

DEFAULT_OUTPUT = Path("safety_config.json")


def main(argv: list[str] | None = None) -> int:
    """Run `init` or `check`. 0 when the limits are complete, 1 when they are not, 2 for a bad command line."""
    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        return _init(options) if options.command == "init" else _check(options)
    except ConfigurationError as error:
        print(f"reflex guard: {error}", file=sys.stderr)
    except OSError as error:
        print(f"reflex guard: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


def parser() -> Parser:
    """Return the command line of `reflex guard`."""
    made = Parser(prog="reflex guard", description="Make and check the limits of --safety-config.")
    commands = made.add_subparsers(dest="command", required=True)
    making = add_command(
        commands, "init", "write a safety configuration from a URDF",
        ("reflex guard init --urdf robot.urdf --embodiment franka", "reflex guard init --urdf robot.urdf --margin 0.05 --output limits.json"),
    )  # fmt: skip
    making.add_argument(
        "--urdf", type=Path, metavar="FILE", required=True, help="the robot's description, not xacro"
    )
    making.add_argument(
        "--output", type=Path, metavar="FILE", default=DEFAULT_OUTPUT, help="file that is written"
    )
    making.add_argument(
        "--margin", type=_margin, default=0.0, metavar="RAD",
        help="stay this far inside the position limits of revolute joints",
    )  # fmt: skip
    making.add_argument(
        "--partial", action="store_true", help="write the available limits even if some are missing"
    )
    making.add_argument("--force", action="store_true", help="replace an existing output file")
    checking = add_command(
        commands,
        "check",
        "print the limits in force",
        ("reflex guard check --config limits.json --embodiment franka",),
    )
    checking.add_argument(
        "--config", type=Path, metavar="FILE", default=DEFAULT_OUTPUT, help="the safety configuration"
    )
    for command in (making, checking):
        command.add_argument(
            "--embodiment", metavar="NAME", help="embodiment preset: only its joints; check: its limits too"
        )
        command.add_argument(
            "--custom-embodiment-config", type=Path, metavar="FILE", help="the same from an embodiment file"
        )
    return made


def _margin(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text[:80]}")
    return value


def _embodiment(options: argparse.Namespace) -> Embodiment | None:
    if options.custom_embodiment_config is not None:
        return load_embodiment(options.custom_embodiment_config)
    return load_preset(options.embodiment) if options.embodiment else None


def _init(options: argparse.Namespace) -> int:
    found = read_urdf(options.urdf)
    embodiment = _embodiment(options)
    joints, missing = list(found.joints), list(found.missing)
    if embodiment is not None:
        by_name = {joint.name: joint for joint in joints}
        joints = [by_name[name] for name in embodiment.joint_names if name in by_name]
        missing = [line for line in missing if line.partition(":")[0] in embodiment.joint_names]
        missing += [_not_there(name) for name in embodiment.joint_names if name not in by_name]
    for note in found.notes:
        print(f"note: {note}")
    for line in missing:
        print(f"missing: {line}", file=sys.stderr)
    if missing and not options.partial:
        print(
            f"reflex guard: {options.urdf}: {len(missing)} limits are missing; nothing written."
            f" {_way_out(missing, embodiment)}",
            file=sys.stderr,
        )
        return 1
    # a joint that should have a range but has none must not look like one that turns for ever
    joints = [joint for joint in joints if joint.kind == "continuous" or joint.position_min is not None]
    if not joints:
        raise ConfigurationError(
            f"{options.urdf}: there must be a joint with limits, got none; nothing written"
        )
    _write(options.output, _document(joints, options.margin, options.urdf), force=options.force)
    print(f"{options.output}: limits of {len(joints)} joints; read it before a robot moves by it")
    return 0


def _way_out(missing: list[str], embodiment: Embodiment | None) -> str:
    gripper = embodiment.gripper if embodiment is not None else None
    if embodiment is not None and gripper is not None:
        name = embodiment.joint_names[gripper.component_idx]
        if missing == [_not_there(name)]:
            return (
                f"'{name}' is the gripper of embodiment '{embodiment.name}', which the description of an arm alone"
                " does not have: write the arm's limits with --partial (the embodiment's own then count for the"
                " gripper), or give an embodiment without gripper"
            )
    return "Add them to the description, or write the rest with --partial and add them there"


def _not_there(name: str) -> str:
    return f"{name}: not in the description"


def _document(joints: list[UrdfJoint], margin: float, where: Path) -> dict[str, object]:
    low: list[float | None] = []
    high: list[float | None] = []
    for joint in joints:
        if joint.position_min is None or joint.position_max is None:
            low.append(None)
            high.append(None)
            continue
        inset = margin if joint.kind == "revolute" else 0.0
        if joint.position_min + inset >= joint.position_max - inset:
            raise ConfigurationError(
                f"{where}: --margin must leave joint '{joint.name}' a range, got {margin:g} on each side of"
                f" {joint.position_min:g} to {joint.position_max:g}"
            )
        low.append(joint.position_min + inset)
        high.append(joint.position_max - inset)
    return {
        "schema_version": 1,
        "joint_names": [joint.name for joint in joints],
        "position_min": low,
        "position_max": high,
        "velocity_max": [joint.velocity_max for joint in joints],
        "effort_max": [joint.effort_max for joint in joints],
        "mode": "clip",
        "max_consecutive_clamps": 10,
    }


def _write(path: Path, document: dict[str, object], *, force: bool) -> None:
    """Write atomically: half a safety file must not exist."""
    if path.exists() and not force:
        raise ConfigurationError(f"{path}: is there already: give another --output, or --force to replace it")
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    atomic_write(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def _check(options: argparse.Namespace) -> int:
    safety = load_safety_config(options.config)
    embodiment = _embodiment(options)
    limits = effective_limits(_action_names(safety, embodiment), embodiment, safety)
    assert limits is not None
    print(_table(limits))
    for line in () if limits.tool is None else described(limits.tool):
        print(f"tool: {line}")
    trips = f"trips after {safety.max_consecutive_clamps} chunks in a row that had to be changed"
    print(f"\nmode {safety.mode}; {trips if safety.max_consecutive_clamps else 'never trips'}")
    for note in safety.notes:
        print(f"note: {note}")
    return 0


def _action_names(safety: SafetyConfig, embodiment: Embodiment | None) -> tuple[str, ...]:
    if embodiment is not None:
        return embodiment.joint_names or tuple(f"action_{index}" for index in range(embodiment.action_dim))
    axes = safety.workspace_axes if safety.action_space == CARTESIAN else ()
    return (*axes, *(name for name in safety.joint_names if name not in axes))


def _table(limits: Limits) -> str:
    head = ("joint", "min", "max", "velocity", "acceleration")
    lines = [head, *(_line(limits, column) for column in range(limits.dim))]
    widths = [max(len(line[index]) for line in lines) for index in range(len(head))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
    )


def _line(limits: Limits, column: int) -> tuple[str, str, str, str, str]:
    low, high = _shown(limits.position_min[column]), _shown(limits.position_max[column])
    speed, bend = _shown(limits.velocity_max[column]), _shown(limits.acceleration_max[column])
    if limits.rates is not None and limits.rates[column]:
        return limits.names[column], "", "", f"{low} to {high}", speed
    return limits.names[column], low, high, speed, bend


def _shown(value: float) -> str:
    return f"{value:.6g}" if np.isfinite(value) else "unlimited"
