# SPDX-License-Identifier: Apache-2.0
"""`reflex demo`: an embedded policy moves a simulated arm, over ROS topics where there is ROS, else over HTTP."""

from __future__ import annotations

import importlib.util
import sys

from reflex_ros.cli.parser import Parser
from reflex_ros.demo.demo_options import DESCRIPTION, add_options, require_ros_for
from reflex_ros.demo.run import run_over_http, run_over_ros

NEEDED = {"mujoco": "the simulator", "cv2": "OpenCV, for pictures"}


def main(argv: list[str] | None = None) -> int:
    """Run the demo. 0 when at least 95 % of the episodes succeed, 1 when not, 2 for a wrong option, 130 after Ctrl-C."""
    arguments = parser().parse_args(argv)
    missing = [what for module, what in NEEDED.items() if not _found(module)]
    if missing:
        print(
            f"reflex demo: {' and '.join(missing)} not installed: pip install 'reflex_ros[demo]', in a checkout '.[demo]'",
            file=sys.stderr,
        )
        return 1
    if _has_ros() and not arguments.no_ros:
        return run_over_ros(arguments)
    if options := require_ros_for(arguments):
        print(f"reflex demo: {', '.join(options)} needs ROS 2, which is not used here", file=sys.stderr)
        return 2
    if not arguments.no_ros:
        print("ROS 2 is not installed here: the arm asks the policy over HTTP.", flush=True)
    return run_over_http(arguments)


def parser() -> Parser:
    """Return the command line of `reflex demo`."""
    made = Parser(
        prog="reflex demo", description=DESCRIPTION, examples=("reflex demo", "reflex demo --episodes 4 --film demo.webp")
    )  # fmt: skip
    add_options(made)
    return made


def _has_ros() -> bool:
    """Return whether rclpy and this package's messages can be found."""
    return _found("rclpy") and _found("reflex_ros.msg")


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it was made unavailable: there is a name, and nothing behind it
        return False


if __name__ == "__main__":
    sys.exit(main())
