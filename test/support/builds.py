# SPDX-License-Identifier: Apache-2.0
"""Builds of the package from a copy of the checkout, and what they say of themselves."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from repository import ROOT

TIMEOUT_S = 300.0  # of one command; a build takes 15 s on a quiet machine
SETS_THE_BUILD = {"MAKEFLAGS", "MFLAGS", "REFLEX_ROS"}  # nothing of an outer `make`


def environment(**changes: str) -> dict[str, str]:
    """This environment's programs first, the ROS wheels visible."""
    variables = {name: value for name, value in os.environ.items() if name not in SETS_THE_BUILD}
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if not os.environ.get("ROS_DISTRO"):
        variables |= {"AMENT_PREFIX_PATH": sys.prefix, "CMAKE_PREFIX_PATH": sys.prefix}
    return variables | changes


def run(*command: str | Path, cwd: Path, **changes: str) -> str:
    """Standard output of a command that must succeed; the assertion carries all that it said otherwise."""
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout[-4000:]}\n{finished.stderr[-4000:]}"
    return finished.stdout


def copy_source(copy: Path) -> Path:
    """Copy the files that git does not ignore, so that builds that run side by side do not meet."""
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if not name or not (ROOT / name).is_file():
            continue
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    return copy


def build_wheel(source: Path, out: Path, **changes: str) -> Path:
    """The wheel that `pip wheel` builds with what is installed here, without the network."""
    pip = (sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation")
    run(*pip, "-w", out, ".", cwd=source, PIP_NO_INDEX="1", **changes)
    (built,) = out.glob("reflex_ros-*.whl")
    return built


def metadata(wheel: Path) -> email.message.Message:
    """The METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def tracked_below(folder: str, into: str) -> list[str]:
    """Where the files of a folder of the checkout must be in a wheel; there must be some."""
    paths = [
        path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    assert paths, f"{folder} is empty"
    return [f"{into}/{path.relative_to(ROOT / folder)}" for path in paths]
