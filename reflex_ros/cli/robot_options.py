# SPDX-License-Identifier: Apache-2.0
"""Options of sub-commands that select the robot of an export."""

from __future__ import annotations

import argparse
from pathlib import Path

from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.presets import load_embodiment, load_preset


def add_robot(parser: argparse.ArgumentParser) -> None:
    """Add --embodiment and --custom-embodiment-config, which exclude each other, and --lerobot-calibration."""
    robot = parser.add_mutually_exclusive_group()
    robot.add_argument(
        "--embodiment", metavar="NAME", help="preset of the robot; default: the export's own embodiment.json"
    )
    robot.add_argument(
        "--custom-embodiment-config", type=Path, metavar="FILE", help="embodiment JSON file of the robot"
    )
    parser.add_argument(
        "--lerobot-calibration",
        metavar="FILE",
        default="",
        help="LeRobot's calibration file of this very arm",
    )


def robot_of(path: Path, options: argparse.Namespace) -> Embodiment | None:
    """Return the robot of the options, else that of the export in `path`; None without any. Raises EmbodimentError."""
    if options.custom_embodiment_config:
        return load_embodiment(options.custom_embodiment_config, options.lerobot_calibration)
    if options.embodiment:
        return load_preset(options.embodiment, options.lerobot_calibration)
    own = path / "embodiment.json"
    return load_embodiment(own, options.lerobot_calibration) if own.exists() else None
