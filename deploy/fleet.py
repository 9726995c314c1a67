#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One list of robots (fleet.csv) makes what the machines of a fleet need. Python 3.10 and its standard library.

    fleet.py fleet.csv --targets robots.yml     the targets that Prometheus scrapes, replaced at once
    fleet.py fleet.csv --keys keys              an API key for each robot that has none: keys/ROBOT
    fleet.py fleet.csv --cell north             the robots of a cell, a line each: name and address

The columns are robot_id, cell and address (HOST:PORT, or https://HOST:PORT). Lines that begin with # are comments.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ["robot_id", "cell", "address"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")  # a file, a label and a host name
ADDRESS = re.compile(r"(?:https?://)?[A-Za-z0-9][A-Za-z0-9.-]*:([0-9]{1,5})")
MAX_PORT = 65535
KEY_BYTES = 32


class FleetError(Exception):
    """The list is not one of robots; the message is one sentence with the line."""


@dataclass(frozen=True)
class Robot:
    """A line of the list. name: its --robot-id. address: HOST:PORT of its HTTP server."""

    name: str
    cell: str
    address: str


def main(argv: Sequence[str] | None = None) -> int:
    """Write what was requested, then print the robots. 0: done; 1: the list or a file is refused; 2: a bad option."""
    options = _parser().parse_args(argv)
    try:
        robots = read(options.fleet)
        if options.cell and options.cell not in (cells := sorted({robot.cell for robot in robots})):
            raise FleetError(
                f"{options.fleet}: no robot is in cell {options.cell!r}; there are {', '.join(cells)}"
            )
        if options.targets:
            replace(options.targets, targets(robots))
        if options.keys:
            print(f"{options.keys}: {make_keys(robots, options.keys)} new keys", file=sys.stderr)
    except (FleetError, OSError) as error:
        print(f"fleet.py: {error}", file=sys.stderr)
        return 1
    for robot in robots:
        if robot.cell == options.cell or not (options.cell or options.targets or options.keys):
            print(robot.name, robot.address)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("fleet", type=Path, metavar="FILE", help="the list of robots")
    made.add_argument("--targets", type=Path, metavar="FILE", help="write Prometheus's targets there")
    made.add_argument(
        "--keys", type=Path, metavar="DIR", help="write missing API keys there; those that exist stay"
    )
    made.add_argument("--cell", default="", metavar="NAME", help="print only this cell")
    return made


def read(path: Path) -> list[Robot]:
    """Return the robots of a list. Raises FleetError for the first line that is none, and OSError."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(_rows(file))
    if not rows or rows[0][1] != COLUMNS:
        raise FleetError(f"{path}: the first line must be {','.join(COLUMNS)}")
    robots = []
    for line, row in rows[1:]:
        if len(row) != len(COLUMNS):
            raise FleetError(f"{path}:{line}: expected {len(COLUMNS)} columns, got {len(row)}")
        robot = Robot(*row)
        if problem := _problem(robot):
            raise FleetError(f"{path}:{line}: {problem}")
        robots.append(robot)
    for field in ("name", "address"):
        [(value, times)] = Counter(getattr(robot, field) for robot in robots).most_common(1) or [("", 1)]
        if times > 1:
            raise FleetError(f"{path}: {value} stands there {times} times")
    return robots


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            yield number, [cell.strip() for row in csv.reader([line]) for cell in row]


def _problem(robot: Robot) -> str:
    for what, value in (("robot_id", robot.name), ("cell", robot.cell)):
        if not NAME.fullmatch(value):
            return f"{what} {value[:80]!r}: expected letters, digits, '.', '_' and '-', 63 at most"
    found = ADDRESS.fullmatch(robot.address)
    if not found or not 0 < int(found[1]) <= MAX_PORT:
        return f"address {robot.address[:80]!r}: expected HOST:PORT such as arm-001.local:8000"
    return ""


def targets(robots: Sequence[Robot]) -> str:
    """Return the file that Prometheus reads with file_sd_configs: JSON, which is YAML too."""
    lines = []
    for robot in robots:
        scheme, _, address = robot.address.rpartition("://")
        labels = {"cell": robot.cell, "robot_id": robot.name, **({"__scheme__": scheme} if scheme else {})}
        lines.append(json.dumps({"targets": [address], "labels": labels}))
    return "[" + ",\n ".join(lines) + "]\n"


def make_keys(robots: Sequence[Robot], folder: Path) -> int:
    """Write a random key for each robot without one, readable by the owner alone; return how many."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = 0
    for robot in robots:
        if not (folder / robot.name).exists():
            replace(folder / robot.name, secrets.token_urlsafe(KEY_BYTES) + "\n", mode=0o600)
            made += 1
    return made


def replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that a reader finds the old or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    sys.exit(main())
