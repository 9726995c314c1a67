# SPDX-License-Identifier: Apache-2.0
"""docs/reference/support.md says what was run, what is resolved and what was only read, and nothing else is so."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
from builds import build_wheel, copy_source, environment
from pyproject_file import project, requirements
from repository import ROOT

PAGE = ROOT / "docs" / "reference" / "support.md"
RUN, RESOLVED, READ_ONLY = "run", "resolved", "read only"
NO_ROS = "none"
WHEELS = ROOT / "requirements" / "ros"
# What pip takes on a machine of glibc 2.28, as Debian 10, Ubuntu 20.04 and JetPack 5 are, or newer.
PLATFORMS = [f"manylinux_2_{minor}" for minor in (28, 27, 26, 24, 17)] + ["manylinux2014"]


class Row(NamedTuple):
    """One row of the table, for one machine."""

    ros: str
    python: str
    machine: str
    state: str


def rows() -> list[Row]:
    table = PAGE.read_text(encoding="utf-8").partition(
        "| ROS 2 | Python | machine | state |\n|---|---|---|---|\n"
    )[2]
    found = []
    for line in table.partition("\n\n")[0].splitlines():
        ros, python, machines, state = (cell.strip() for cell in line.strip("|").split("|"))
        found += [Row(ros, python, machine.strip(), state) for machine in machines.split(",")]
    return found


def rows_in(state: str, ros: str | None = None) -> set[Row]:
    return {row for row in rows() if row.state == state and ros in (None, row.ros)}


def test_the_table_has_every_state_and_each_row_once() -> None:
    assert {row.state for row in rows()} == {RUN, RESOLVED, READ_ONLY}
    assert len({row[:3] for row in rows()}) == len(rows())


def test_the_pythons_that_were_run_are_those_that_the_wheel_names() -> None:
    named = {
        found[1]
        for each in project()["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each))
    }
    assert named == {row.python for row in rows_in(RUN, NO_ROS)}
    least = min((row.python for row in rows()), key=lambda text: int(text.partition(".")[2]))
    assert project()["requires-python"] == f">={least}"


def test_this_environment_is_a_row_that_was_run() -> None:
    """These tests run here, so that the row is true as long as they pass."""
    folders = {
        path.parent.name
        for path in WHEELS.glob("*/constraints.txt")
        if f"ros-rclpy=={version('ros-rclpy')}" in path.read_text(encoding="utf-8").splitlines()
    }
    (ros,) = folders
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert Row(f"{ros.title()}, wheels", python, platform.machine(), RUN) in rows()


def test_every_ros_of_the_wheels_is_in_the_table_and_every_extra_is_pinned_as_it_was_tested() -> None:
    named = {row.ros.partition(",")[0].lower() for row in rows() if row.ros.endswith(", wheels")}
    assert named == {path.name for path in WHEELS.iterdir()}
    for name in named:
        tested = (WHEELS / name / "constraints.txt").read_text(encoding="utf-8").splitlines()
        wheels = requirements("ros" if name == "jazzy" else f"ros-{name}")
        pinned = [f"{each.name}{each.specifier}" for each in wheels.values() if each.name.startswith("ros-")]
        assert f"ros-{name}-rclpy" in wheels
        assert [line for line in pinned if line not in tested] == []


def test_what_was_read_only_has_a_page_that_says_so() -> None:
    page = (ROOT / "docs" / "how-to" / "jetson.md").read_text(encoding="utf-8")
    assert "**Never run.**" in page
    assert {"Jetson Orin", "aarch64"} <= {row.machine for row in rows_in(READ_ONLY)}
    assert not [row for row in rows_in(RUN) if row.machine != "x86_64"]


@pytest.fixture(scope="module")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_source(tmp_path_factory.mktemp("source") / "reflex_ros")
    return build_wheel(source, tmp_path_factory.mktemp("wheel"), REFLEX_ROS="none")


def resolve(wheel: str, extras: str, python: str, machine: str, folder: Path) -> set[str]:
    """The names of the wheels that pip would install there; an assertion where it finds none for something."""
    platforms = [f"--platform={name}_{machine}" for name in PLATFORMS]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--only-binary=:all:"),
            *("--target", folder, "--report", folder / "report.json", "--ignore-installed"),
            *("--implementation=cp", f"--python-version={python}", *platforms, f"{wheel}[{extras}]"),
        ],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {each["metadata"]["name"].lower() for each in report["install"]}


FAST = {("3.14", "x86_64"), ("3.12", "aarch64")}


@pytest.mark.parametrize(
    ("python", "machine"),
    [
        pytest.param(row.python, row.machine, marks=() if row[1:3] in FAST else pytest.mark.slow)
        for row in sorted(rows_in(RESOLVED, NO_ROS))
    ],
)
def test_pip_finds_a_wheel_of_everything_without_ros(
    pure_wheel: Path, python: str, machine: str, tmp_path: Path
) -> None:
    found = resolve(str(pure_wheel), "cpu", python, machine, tmp_path)
    assert {"onnxruntime", "tokenizers", "aiohttp"} <= found
    assert {name for name in found if name.startswith("ros-")} == set()


@pytest.mark.slow
@pytest.mark.parametrize("row", sorted(rows_in(RESOLVED) - rows_in(RESOLVED, NO_ROS)), ids=str)
def test_pip_finds_a_wheel_of_every_ros_package(row: Row, tmp_path: Path) -> None:
    """`empy` is on the index as source alone, so that pip may build that one."""
    name = row.ros.partition(",")[0].lower()
    pins = (WHEELS / name / "constraints.txt").read_text(encoding="utf-8").splitlines()
    listed = tmp_path / "pins.txt"
    listed.write_text("\n".join(line for line in pins if line.startswith("ros-")), encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
            *("-d", tmp_path / "wheels", "--implementation=cp", f"--python-version={row.python}"),
            *(f"--platform={each}_{row.machine}" for each in PLATFORMS),
            *("-r", listed),
        ],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
