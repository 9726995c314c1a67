# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml cannot say: the version, the data files, and the ROS messages, which CMakeLists.txt builds.

`pip install .` makes a wheel of pure Python: no ROS, no compiler. REFLEX_ROS=jazzy (or another folder of
requirements/ros/) compiles the messages with the ROS wheels of that distribution, and where a ROS 2 is sourced
(ROS_DISTRO is set) they are compiled with it, unless REFLEX_ROS=none. `colcon build` does not run this file, because
package.xml says ament_cmake.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

from setuptools import Command, Distribution, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
DATA = ("launch", "config", "models", "dashboards", "deploy")  # as CMakeLists.txt installs them
SHARE = Path("share/reflex_ros")
MAN = Path("share/man/man1")
INTERFACES = ("msg", "srv", "action")
ROS, NONE, SOURCED = "REFLEX_ROS", "none", "sourced"
# Before a program of a wheel: the Python of the environment it lies in runs it, activated or not, else that on PATH.
RELOCATABLE = b"""#!/bin/sh
'''exec' "$(command -v "$(dirname -- "$(realpath -- "$0")")/../../bin/python3" || echo python3)" "$0" "$@"
' '''
"""


def ros_to_build_with() -> str:
    """Name the ROS 2 that the messages are compiled with: sourced, that of a folder of requirements/ros/, or none."""
    asked = os.environ.get(ROS, "")
    known = sorted(path.name for path in (ROOT / "requirements" / "ros").iterdir())
    if asked not in ("", NONE, *known):
        raise SystemExit(f"{ROS}={asked} is not known; take one of {', '.join([NONE, *known])}.")
    if asked and asked != NONE and os.environ.get("ROS_DISTRO"):
        raise SystemExit(
            f"{ROS}={asked} asks for ROS wheels while ROS 2 {os.environ['ROS_DISTRO']} is sourced; drop one."
        )
    return asked or (SOURCED if os.environ.get("ROS_DISTRO") else NONE)


def requirements(file_name: str) -> list[str]:
    """The requirement lines of a file in requirements/, comments left out."""
    lines = (ROOT / "requirements" / file_name).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def ament_prefixes() -> list[str]:
    """AMENT_PREFIX_PATH, then the environments on sys.path that hold the message generators as wheels."""
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    for entry in filter(None, sys.path):
        parents = Path(entry).parents  # <prefix>/lib/pythonX.Y/site-packages, and <prefix>/share beside it
        if len(parents) < 3 or str(parents[2]) in prefixes:
            continue
        if (parents[2] / "share" / "rosidl_default_generators").is_dir():
            prefixes.append(str(parents[2]))
    return prefixes


def run_cmake(*arguments: str | Path) -> None:
    """Run cmake (this environment's, else the one on PATH) with the ROS prefixes visible."""
    prefixes = os.pathsep.join(ament_prefixes())
    environment = dict(os.environ, AMENT_PREFIX_PATH=prefixes, CMAKE_PREFIX_PATH=prefixes)
    programs = str(Path(sys.executable).parent)  # pip run by its path leaves the environment's bin/ off PATH
    environment["PATH"] = os.pathsep.join([programs, environment.get("PATH", os.defpath)])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    cmake = shutil.which("cmake", path=environment["PATH"])
    if cmake is None:
        raise SystemExit("reflex_ros needs cmake to build its messages; `pip install cmake` brings it.")
    subprocess.run([cmake, *map(str, arguments)], check=True, env=environment)


def files_below(directory: Path) -> list[Path]:
    """Every file below a directory, in a fixed order, Python's caches left out."""
    paths = sorted(directory.rglob("*"))
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


def forget_other_environment(folder: Path) -> None:
    """Drop a CMake folder configured in another environment: its cache names folders that may be gone."""
    environment = "\n".join([sys.executable, *ament_prefixes()])
    note = folder / "environment.txt"
    if folder.exists() and not (note.is_file() and note.read_text(encoding="utf-8") == environment):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(environment, encoding="utf-8")


class BuildMessages(Command):
    """Lets CMake build and install into a staging folder, then hands those files to the wheel.

    An editable wheel gets the generated messages only: Python code, launch files, configuration and models
    are used where they lie in the checkout, so that no copy of them can grow stale.

    This is a command of its own and no subclass of build_py, because setuptools turns an error of a changed
    build_py into a warning when it makes an editable wheel.
    """

    description = "generate and compile the ROS messages with CMake"
    user_options: ClassVar[list[tuple[str, str, str]]] = []

    def initialize_options(self) -> None:
        """Declare what setuptools fills in."""
        self.build_lib: str | None = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        """Take the folder that becomes the wheel's site-packages from the build command."""
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def get_source_files(self) -> list[str]:
        """Nothing more than MANIFEST.in puts into an sdist."""
        return []

    def run(self) -> None:
        """Build with CMake and collect what the wheel must hold."""
        folder = ROOT / "build" / "pip" / str(sys.implementation.cache_tag)
        stage = folder / "stage"
        site_packages = Path("lib/python{}.{}/site-packages".format(*sys.version_info))
        forget_other_environment(folder)
        self._build_and_stage(folder, stage, site_packages)
        for program in (stage / "lib" / "reflex_ros").iterdir():
            program.write_bytes(RELOCATABLE + program.read_bytes())
        staged = [path.relative_to(stage) for path in files_below(stage)]
        if self.editable_mode:
            self.distribution.data_files = by_folder(
                stage, [path for path in staged if is_message_file(path, site_packages)]
            )
            # setuptools asks for no data files in an editable wheel, but packs what lies in their folder.
            self.run_command("install_data")
            return
        library = Path(str(self.build_lib))
        for path in staged:
            if path.is_relative_to(site_packages) and is_python_file(path.relative_to(site_packages)):
                target = library / path.relative_to(site_packages)
                self.mkpath(str(target.parent))
                self.copy_file(str(stage / path), str(target))
        data = [path for path in staged if not path.is_relative_to(site_packages)]
        self.distribution.data_files = by_folder(stage, [path for path in data if not is_program(path)])

    def _build_and_stage(self, folder: Path, stage: Path, site_packages: Path) -> None:
        shutil.rmtree(stage, ignore_errors=True)
        # fmt: off
        run_cmake(
            "-S", ROOT, "-B", folder, "-G", "Ninja",
            "-DBUILD_TESTING=OFF",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_INSTALL_PREFIX={stage}",
            # Beside each other in lib/, and from lib/pythonX.Y/site-packages/reflex_ros up to lib/.
            "-DCMAKE_INSTALL_RPATH=$ORIGIN;$ORIGIN/../../..",
            f"-DPYTHON_INSTALL_DIR={site_packages}",
            f"-DPython3_EXECUTABLE={sys.executable}",
        )
        # fmt: on
        run_cmake("--build", folder)
        run_cmake("--install", folder)


def by_folder(root: Path, paths: list[Path]) -> list[tuple[str, list[str]]]:
    """Files below root as setuptools takes data files: where they go, and where they are from here."""
    folders: dict[str, list[str]] = {}
    for path in paths:
        folders.setdefault(str(path.parent), []).append(os.path.relpath(root / path, ROOT))
    return sorted(folders.items())


def shared_data() -> list[tuple[str, list[str]]]:
    """What CMake would install into share/reflex_ros, as far as it needs no ROS."""
    paths = [path.relative_to(ROOT) for folder in DATA for path in files_below(ROOT / folder)]
    below = [(str(SHARE / folder), files) for folder, files in by_folder(ROOT, paths)]
    return [(str(SHARE), ["package.xml"]), (str(MAN), ["man/reflex.1"]), *below]


def is_python_file(path: Path) -> bool:
    """Whether a file below site-packages belongs into the wheel: not CMake's metadata, not generated C."""
    return not path.parts[0].endswith(".egg-info") and path.suffix != ".c"


def is_program(path: Path) -> bool:
    """Whether a staged file lies in bin/, where pip puts the entry points of setup()."""
    return path.parts[0] == "bin"


def is_message_file(path: Path, site_packages: Path) -> bool:
    """Whether a staged file comes from msg/, srv/ or action/ or lets ROS find it, and from no other file of the checkout."""
    if path.is_relative_to(site_packages):
        inside = path.relative_to(site_packages)
        return is_python_file(inside) and (
            path.suffix == ".so" or any(inside.is_relative_to(f"reflex_ros/{kind}") for kind in INTERFACES)
        )
    copied = [MAN, *(SHARE / name for name in DATA)]
    return not is_program(path) and not any(path.is_relative_to(folder) for folder in copied)


class FreshBuild(build):
    """The usual build in an empty folder: else modules that were moved or deleted since the last one are packed."""

    def run(self) -> None:
        """Empty build_lib, then build."""
        shutil.rmtree(str(self.build_lib), ignore_errors=True)
        super().run()


class FreshBuildWithMessages(FreshBuild):
    """The same, after the messages."""

    sub_commands: ClassVar = [("build_messages", None), *build.sub_commands]


class BinaryDistribution(Distribution):
    """The compiled messages tie a wheel to one platform and one Python, which setuptools cannot see."""

    def has_ext_modules(self) -> bool:
        """Say yes, so that the wheel is tagged so."""
        return True


def pure() -> dict[str, Any]:
    """What setup() is told for a wheel without messages."""
    return {"cmdclass": {"build": FreshBuild}, "data_files": shared_data()}


def with_messages(ros: str) -> dict[str, Any]:
    """What setup() is told where the messages are compiled with that ROS 2."""
    wheels = [] if ros == SOURCED else requirements(f"ros/{ros}/build.txt")
    return {
        "cmdclass": {"build": FreshBuildWithMessages, "build_messages": BuildMessages},
        "distclass": BinaryDistribution,
        "setup_requires": requirements("build.txt") + wheels,
    }


ROS_2 = ros_to_build_with()
setup(
    version=ElementTree.parse(ROOT / "package.xml").getroot().findtext("version"),  # noqa: S314 - our own file
    **(pure() if ROS_2 == NONE else with_messages(ROS_2)),
)
