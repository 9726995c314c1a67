# SPDX-License-Identifier: Apache-2.0
"""The command line of the demo; it needs neither ROS nor the simulator."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from reflex_ros.demo.controllers.options import ERAS, LEGACY
from reflex_ros.demo.goals import GOALS, PICK_UP

START_STATES = ("measured", "desired")
FILM_FORMATS = (".webp", ".gif")
DESCRIPTION = "Episodes of an embedded policy on a simulated arm."


def arguments_from(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line of `make demo`."""
    parser = argparse.ArgumentParser(prog="make demo", description=DESCRIPTION, allow_abbrev=False)
    add_options(parser)
    return parser.parse_args(argv)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the demo."""
    option = parser.add_argument
    option(
        "--policy", choices=GOALS, default=PICK_UP.name,
        help="pick: it picks up the cube that the instruction names; reach: it moves the gripper above a block",
    )  # fmt: skip
    option("--episodes", type=_at_least_one, default=20, metavar="N", help="how many")
    option(
        "--seed", type=int, metavar="N", default=PICK_UP.first_seed,
        help="scene of the first episode; the others follow",
    )  # fmt: skip
    option("--out", type=Path, metavar="DIR", default=Path("demo_out"), help="folder for results and logs")
    option(
        "--port",
        type=int,
        metavar="PORT",
        default=8000,
        help="HTTP port; if it is in use a free one is taken",
    )
    option("--keep-running", action="store_true", help="leave robot and policy up until Ctrl-C")
    option("--no-ros", action="store_true", help="over HTTP also where ROS is installed")
    option("--film", type=_film, metavar="FILE", help="also write the episodes as an animated .webp or .gif")
    option(
        "--record", type=Path, metavar="DIR", help="write DIR/trace (with images) and DIR/bag, for replays"
    )
    option(
        "--era", choices=ERAS, default=LEGACY,
        help="what the robot's controller does with a new trajectory: legacy replaces the running one, blend joins them"
        " (ros2_controllers after August 2026)",
    )  # fmt: skip
    option(
        "--start-state", choices=START_STATES, default=START_STATES[0],
        help="where it begins a new trajectory: at the measured positions, as controllers do by default, or at the last"
        " command, as with interpolate_from_desired_state",
    )  # fmt: skip


def require_ros_for(arguments: argparse.Namespace) -> list[str]:
    """Return the options that were given and do nothing without ROS: those of the simulated trajectory controller."""
    given = (("--era", arguments.era != LEGACY), ("--start-state", arguments.start_state != START_STATES[0]))
    return [name for name, is_given in given if is_given]


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number


def _film(text: str) -> Path:
    path = Path(text)
    if path.suffix not in FILM_FORMATS:
        raise argparse.ArgumentTypeError(
            f"expected a file that ends in {' or '.join(FILM_FORMATS)}, got {text}"
        )
    return path
