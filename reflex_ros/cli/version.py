# SPDX-License-Identifier: Apache-2.0
"""`reflex version`: the versions of this program and of what it runs on."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from reflex_core import __version__
from reflex_ros.cli.parser import Parser
from reflex_ros.console.terminal import plain_table

RUNTIMES = ("onnxruntime-gpu", "onnxruntime")
DISTRIBUTIONS = {"7": "jazzy", "9": "kilted"}  # of rclpy, where no ROS is sourced that names itself


def main(argv: list[str] | None = None) -> int:
    """Print the versions. 0."""
    parser().parse_args(sys.argv[1:] if argv is None else argv)
    print(text())
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line of `reflex version`."""
    return Parser(
        prog="reflex version",
        description="Print the versions of this program, Python, ONNX Runtime and ROS.",
        examples=("reflex version",),
    )


def text(environment: Mapping[str, str] = os.environ) -> str:
    """Return one line for each of package, Python, ONNX Runtime and ROS, in columns."""
    rows = [
        ("reflex", __version__, str(Path(__file__).parents[2])),
        ("Python", platform.python_version(), sys.executable),
        ("ONNX Runtime", *_first(RUNTIMES)),
        ("ROS", *_ros(environment)),
    ]
    return "\n".join(plain_table(rows))


def _first(packages: tuple[str, ...]) -> tuple[str, str]:
    """Return (version, name) of the first of these packages that is installed."""
    for name in packages:
        if version := _installed(name):
            return version, name
    return "not installed", ""


def _ros(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return (distribution, how it is had) of ROS; `none` where there is none."""
    if distribution := environment.get("ROS_DISTRO"):
        return distribution, "sourced"
    if version := _installed("rclpy"):
        return DISTRIBUTIONS.get(version.partition(".")[0], "unknown"), f"rclpy {version} from wheels"
    return "none", ""


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
