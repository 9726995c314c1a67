# SPDX-License-Identifier: Apache-2.0
"""The places where pages are walked: a fresh clone, a colcon workspace, an environment without ROS; and a network of its own.

Pages print port 8000 and no ROS domain. Commands run in namespaces of Linux where only that page's programs are, so that
what is printed is what runs, whatever else this machine does. What installs gets the machine's network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from builds import copy_source
from pythons import at_hand
from repository import ROOT

INSTALL_S = 1800.0  # a bound for slow networks and busy machines, never a measure

# of this environment, its ROS and the program that runs the tests: none of a reader's
OURS = ("AMENT_", "CMAKE_", "COLCON_", "FASTRTPS_", "LD_LIBRARY_PATH", "MAKE", "MFLAGS", "PYTEST_", "PYTHON", "REFLEX_", "RMW_",
        "ROS_", "VIRTUAL_ENV", "_ROS_")  # fmt: skip
CURL = "fail-with-body\nno-progress-meter\n"  # a reply that is an error fails the command


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader stands.

    before: what they ran in this shell to have `reflex`, as the README says. done: lines that were run to get here.
    """

    name: str
    folder: Path
    home: Path
    before: str
    variables: dict[str, str] = field(default_factory=dict)
    done: tuple[str, ...] = ()

    def environment(self, *, at_home: bool = False) -> dict[str, str]:
        """Return the variables of a shell. at_home: with a home folder of its own, not where pip is configured."""
        found = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        here = str(Path(sys.executable).parent)
        found["PATH"] = os.pathsep.join(each for each in found["PATH"].split(os.pathsep) if each != here)
        found |= {"MPLBACKEND": "Agg", **self.variables}
        return found | ({"HOME": str(self.home)} if at_home else {})

    def clean(self) -> None:
        """Remove what a page left."""
        for command in (["clean", "-fdq"], ["checkout", "-q", "."]):
            subprocess.run(["git", "-C", str(self.folder), *command], check=True)


def fresh_clone(folder: Path) -> Path:
    """Clone the repository, with what is not committed yet."""
    subprocess.run(["git", "-c", "safe.directory=*", "clone", "-q", str(ROOT), str(folder)], check=True)
    for each in folder.iterdir():
        if each.name != ".git":
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    copy_source(folder)
    git = ["git", "-C", str(folder), "-c", "user.name=walk", "-c", "user.email=walk@localhost"]
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "As it is now"], check=True)
    return folder


def printed_in_readme(command: str) -> str:
    """Return a command, which the README has to print."""
    assert command in (ROOT / "README.md").read_text(encoding="utf-8"), f"README does not print: {command}"
    return command


def home(folder: Path) -> Path:
    """Make a home folder, where curl takes a refusal for a failure."""
    folder.mkdir(parents=True)
    (folder / ".curlrc").write_text(CURL)
    return folder


def checkout(root: Path) -> Place:
    """A fresh clone, installed by `make`: what `make demo` does first needs the network, and is done here."""
    printed_in_readme("make demo")
    place = Place("checkout", fresh_clone(root / "reflex_ros"), home(root / "home"), printed_in_readme("source .venv/bin/activate"))  # fmt: skip
    install(place, "make build", sourced=False)
    return place


def workspace(root: Path) -> Place:
    """A colcon workspace. The ROS that is sourced there is the one of this environment; colcon is the one of its users."""
    clone, tools = fresh_clone(root / "ws" / "src" / "reflex_ros"), root / "colcon"
    sourced = ("AMENT_", "CMAKE_", "LD_LIBRARY_PATH", "PYTHONPATH", "ROS_DISTRO")
    variables = {name: value for name, value in os.environ.items() if name.startswith(sourced)}
    if not os.environ.get("ROS_DISTRO"):
        variables = {"AMENT_PREFIX_PATH": sys.prefix, "CMAKE_PREFIX_PATH": sys.prefix}
    first = [str(root / "bin"), str(Path(sys.executable).parent)]
    variables |= {"PATH": os.pathsep.join([*first, os.environ["PATH"]])}
    place = Place("workspace", root / "ws", home(root / "home"), "", variables)
    (root / "bin").mkdir()
    (root / "bin" / "colcon").symlink_to(tools / "bin" / "colcon")  # its Python is not the one of ROS
    install(place, f"python3 -m venv {tools} && {tools}/bin/pip install -q colcon-common-extensions")
    build, source = (
        printed_in_readme("colcon build --packages-select reflex_ros"),
        printed_in_readme("source install/setup.bash"),
    )
    install(place, build)
    before = source.replace("install", str(root / "ws" / "install"))
    return Place("workspace", clone, place.home, before, variables, done=(build, source))


def ros_free(root: Path) -> Place:
    """A fresh clone and an environment in which pip installed it, as the README says."""
    python = at_hand(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert python is not None
    before = f"source {root / 'venv' / 'bin' / 'activate'}"
    place = Place("ros-free", fresh_clone(root / "reflex_ros"), home(root / "home"), before)
    install(place, f"{python} -m venv {root / 'venv'}", sourced=False)
    install(place, printed_in_readme("pip install '.[cpu]'"))
    return place


def install(place: Place, command: str, *, sourced: bool = True) -> None:
    """Run a command that needs the network, and leaves what it built."""
    code = f"set -e\n{place.before if sourced else ''}\n{command}\n"
    done = subprocess.run(
        ["bash", "-c", code], cwd=place.folder, env=place.environment(), text=True, timeout=INSTALL_S, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}"


PLACES = {"checkout": checkout, "workspace": workspace, "ros-free": ros_free}

# a loopback of its own, and shared memory of its own: ROS nodes of one domain find each other through both
_INSIDE = "ip link set lo up && mount -t tmpfs tmpfs /dev/shm && echo ready && exec sleep infinity"


@contextmanager
def alone() -> Iterator[list[str]]:
    """The words that begin a command which shares network and memory with no other program.

    Raises:
        AssertionError: this machine does not permit it.
    """
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    kinds = ["--net", "--mount", "--ipc"]
    holder = subprocess.Popen(
        ["unshare", *user, *kinds, "sh", "-c", _INSIDE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        line = holder.stdout.readline()
        assert line == "ready\n", f"walking the pages needs namespaces of network, mounts and IPC: {line}"
        enter = ["--user", "--preserve-credentials"] if user else []
        yield ["nsenter", "--target", str(holder.pid), *enter, *kinds, "--"]
    finally:
        holder.kill()
        holder.communicate()
