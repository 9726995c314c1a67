# SPDX-License-Identifier: Apache-2.0
"""`pip install .` and `pip install -e .`: drives CMakeLists.txt and puts what it installs into the wheel.

`colcon build` does not run this file, because package.xml says ament_cmake. Name, version and description
come from package.xml. When a real ROS 2 is sourced (ROS_DISTRO is set) no ROS wheel is asked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

from setuptools import Command, Distribution, find_packages, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
DATA = ("launch", "config", "models", "dashboards", "deploy")  # as CMakeLists.txt installs them
ROS_IS_SOURCED = bool(os.environ.get("ROS_DISTRO"))

# Exact versions: the bare names hold Jazzy and Kilted side by side, and pip would take Kilted.
ROS_WHEELS = [
    "ros-jazzy-rclpy==7.1.6",
    "ros-rclpy==7.1.6",
    "ros-jazzy-rmw-fastrtps-cpp==8.4.3",
    "ros-jazzy-common-interfaces==5.3.6",
    "ros-jazzy-lifecycle-msgs==2.0.3",
]
RUN = [
    "aiohttp>=3.9,<4",
    "numpy>=1.26,<3",
    "opencv-python-headless>=4.9,<6",
    "orjson>=3.9,<4",
    "prometheus-client>=0.20,<1",
    "pyyaml>=6,<7",
    "rosbags>=0.11.9,<0.12",
    "safetensors>=0.4,<1",
    "simplejpeg>=1.7,<2",
    "tokenizers>=0.20,<1",
]
CLI, PLOT, LEROBOT = ["rich>=13,<16"], ["matplotlib>=3.8,<4"], ["pyarrow>=15,<27"]
OTEL = ["opentelemetry-exporter-otlp-proto-http>=1.36,<2", "opentelemetry-sdk>=1.36,<2"]
EXTRAS = {
    # One of the two: they are imported by the same name and overwrite each other's files. An extra can only add, so what
    # is installed without one must bring neither.
    "cpu": ["onnxruntime>=1.20,<2"],
    "gpu": ["onnxruntime-gpu>=1.20,<2"],
    "demo": ["mujoco>=3.3,<5"],
    "cli": CLI,
    "plot": PLOT,
    "lerobot": LEROBOT,
    "otel": OTEL,
    "test": [
        *CLI,
        *PLOT,
        *LEROBOT,
        *OTEL,
        "PyQt5>=5.15.10,<6",
        "colcon-ros>=0.4,<1",
        "hypothesis>=6.100,<7",
        "mcap-ros2-support>=0.5,<1",
        "mypy>=1.11,<3",
        "onnx>=1.16,<2",
        "pytest>=8,<10",
        "pytest-xdist>=3.6,<4",
        "ruff>=0.14,<0.18",
        "types-PyYAML",
    ],
}


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
        """Name what an sdist must hold for this command to work there."""
        paths = [ROOT / "CMakeLists.txt", ROOT / "package.xml", ROOT / "plugin.xml"]
        for folder in (*DATA, "msg", "requirements", "reflex_core", "reflex_ros"):
            paths += files_below(ROOT / folder)
        return [str(path.relative_to(ROOT)) for path in paths]

    def run(self) -> None:
        """Build with CMake and collect what the wheel must hold."""
        folder = ROOT / "build" / "pip" / str(sys.implementation.cache_tag)
        stage = folder / "stage"
        site_packages = Path("lib/python{}.{}/site-packages".format(*sys.version_info))
        forget_other_environment(folder)
        self._build_and_stage(folder, stage, site_packages)
        staged = [path.relative_to(stage) for path in files_below(stage)]
        if self.editable_mode:
            self._add_data(stage, [path for path in staged if is_message_file(path, site_packages)])
            # setuptools asks for no data files in an editable wheel, but packs what lies in their folder.
            self.run_command("install_data")
            return
        library = Path(str(self.build_lib))
        shutil.rmtree(library, ignore_errors=True)  # else modules deleted since the last build are packed
        for path in staged:
            if path.is_relative_to(site_packages) and is_python_file(path.relative_to(site_packages)):
                target = library / path.relative_to(site_packages)
                self.mkpath(str(target.parent))
                self.copy_file(str(stage / path), str(target))
        data = [path for path in staged if not path.is_relative_to(site_packages)]
        self._add_data(stage, [path for path in data if not is_program(path)])

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

    def _add_data(self, stage: Path, paths: list[Path]) -> None:
        folders: dict[str, list[str]] = {}
        for path in paths:
            folders.setdefault(str(path.parent), []).append(os.path.relpath(stage / path, ROOT))
        self.distribution.data_files = sorted(folders.items())


def is_python_file(path: Path) -> bool:
    """Whether a file below site-packages belongs into the wheel: not CMake's metadata, not generated C."""
    return not path.parts[0].endswith(".egg-info") and path.suffix != ".c"


def is_program(path: Path) -> bool:
    """Whether a staged file lies in bin/, where pip puts the entry points of setup()."""
    return path.parts[0] == "bin"


def is_message_file(path: Path, site_packages: Path) -> bool:
    """Whether a staged file comes from msg/ or lets ROS find it, and from no other file of the checkout."""
    if path.is_relative_to(site_packages):
        inside = path.relative_to(site_packages)
        return is_python_file(inside) and (path.suffix == ".so" or inside.is_relative_to("reflex_ros/msg"))
    copied = [Path("share/reflex_ros") / name for name in DATA]
    return not is_program(path) and not any(path.is_relative_to(folder) for folder in copied)


class BuildMessagesFirst(build):
    """The usual build, after the messages."""

    sub_commands: ClassVar = [("build_messages", None), *build.sub_commands]


class BinaryDistribution(Distribution):
    """The compiled messages tie a wheel to one platform and one Python, which setuptools cannot see."""

    def has_ext_modules(self) -> bool:
        """Say yes, so that the wheel is tagged so."""
        return True


setup(
    name=MANIFEST.findtext("name"),
    version=MANIFEST.findtext("version"),
    description=MANIFEST.findtext("description"),
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["reflex_core", "reflex_core.*", "reflex_ros", "reflex_ros.*"]),
    package_dir={"": "."},  # makes an editable install a plain path, which pkgutil.extend_path understands
    distclass=BinaryDistribution,
    cmdclass={"build": BuildMessagesFirst, "build_messages": BuildMessages},
    install_requires=RUN + ([] if ROS_IS_SOURCED else ROS_WHEELS),
    setup_requires=requirements("build.txt") + ([] if ROS_IS_SOURCED else requirements("build_ros.txt")),
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["reflex=reflex_ros.cli.main:main"]},
)
