# SPDX-License-Identifier: Apache-2.0
"""The interfaces of control_msgs and moveit_msgs that tests need, compiled where the real packages are not installed: no ROS wheel brings them.

`python test/support/control_msgs_substitute.py` builds them once per environment, into a folder of its own in the environment
that is on no path: no program but a test finds them, no wheel holds them, and a real control_msgs always wins.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

BUILD_S = 600.0  # a minute on a quiet machine
# each needs the ones before it
LIBRARIES = (
    "generator_c", "typesupport_fastrtps_cpp", "typesupport_fastrtps_c", "typesupport_introspection_c", "typesupport_c",
)  # fmt: skip
_POINT = "trajectory_msgs/JointTrajectoryPoint"
_POINTS = "trajectory_msgs/MultiDOFJointTrajectoryPoint"
MESSAGES = {
    "msg/JointJog.msg": (
        "std_msgs/Header header\nstring[] joint_names\nfloat64[] displacements\nfloat64[] velocities\nfloat64 duration\n"
    ),
    "msg/GripperCommand.msg": "float64 position\nfloat64 max_effort\n",
    "msg/JointTrajectoryControllerState.msg": (
        "std_msgs/Header header\nstring[] joint_names\n"
        f"{_POINT} reference\n{_POINT} feedback\n{_POINT} error\n{_POINT} output\n"
        "string[] multi_dof_joint_names\n"
        f"{_POINTS} multi_dof_reference\n{_POINTS} multi_dof_feedback\n{_POINTS} multi_dof_error\n{_POINTS} multi_dof_output\n"
        "float64 speed_scaling_factor\n"
    ),
    "action/GripperCommand.action": (
        "GripperCommand command\n"
        "---\nfloat64 position\nfloat64 effort\nbool stalled\nbool reached_goal\n"
        "---\nfloat64 position\nfloat64 effort\nbool stalled\nbool reached_goal\n"
    ),
    "action/ParallelGripperCommand.action": (
        "sensor_msgs/JointState command\n"
        "---\nsensor_msgs/JointState state\nbool stalled\nbool reached_goal\n"
        "---\nsensor_msgs/JointState state\n"
    ),
}
SERVICES = {
    "srv/ServoCommandType.srv": (
        "int8 JOINT_JOG=0\nint8 TWIST=1\nint8 POSE=2\nint8 command_type\n---\nbool success\n"
    ),
}
PACKAGE_XML = """<?xml version="1.0"?>
<package format="3">
  <name>@PACKAGE@</name>
  <version>0.0.0</version>
  <description>Substitute for tests</description>
  <maintainer email="reflex@example.org">reflex</maintainer>
  <license>Apache-2.0</license>
  <buildtool_depend>ament_cmake</buildtool_depend>
  <buildtool_depend>rosidl_default_generators</buildtool_depend>
  @DEPENDS@
  <member_of_group>rosidl_interface_packages</member_of_group>
  <export><build_type>ament_cmake</build_type></export>
</package>
"""
# the targets of the ROS wheels name include folders of the machine that built them, which CMake refuses
CMAKE_LISTS = """cmake_minimum_required(VERSION 3.20)
project(@PACKAGE@ LANGUAGES C CXX)
find_package(ament_cmake REQUIRED)
find_package(rosidl_default_generators REQUIRED)
foreach(package @DEPENDENCIES@)
  find_package(${package} REQUIRED)
endforeach()
rosidl_generate_interfaces(${PROJECT_NAME} @INTERFACES@ DEPENDENCIES @DEPENDENCIES@)
get_directory_property(imported_targets IMPORTED_TARGETS)
foreach(target IN LISTS imported_targets)
  get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
  if(NOT directories)
    continue()
  endif()
  set(existing)
  foreach(directory IN LISTS directories)
    if(NOT IS_ABSOLUTE "${directory}" OR EXISTS "${directory}")
      list(APPEND existing "${directory}")
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${existing}")
endforeach()
ament_package()
"""


@dataclass(frozen=True)
class Substitute:
    """What is compiled in the place of a package: files by their names, each made of the packages in `depends`."""

    package: str
    interfaces: tuple[tuple[str, str], ...]
    depends: str

    @property
    def prefix(self) -> Path:
        """The folder that it is installed in."""
        return Path(sys.prefix) / "substitutes" / self.package

    @property
    def site_packages(self) -> Path:
        """The folder of its Python modules."""
        return self.prefix / "lib/python{}.{}/site-packages".format(*sys.version_info)

    def files(self) -> dict[str, str]:
        """Everything that is compiled."""
        values = {
            "PACKAGE": self.package,
            "DEPENDENCIES": self.depends,
            "INTERFACES": " ".join(name for name, _ in self.interfaces),
            "DEPENDS": "".join(f"<depend>{name}</depend>" for name in (*self.depends.split(), "action_msgs")),
        }
        texts = {"package.xml": PACKAGE_XML, "CMakeLists.txt": CMAKE_LISTS}
        for key, value in values.items():
            texts = {name: text.replace(f"@{key}@", value) for name, text in texts.items()}
        return dict(self.interfaces) | texts


CONTROL_MSGS = Substitute(
    "control_msgs", tuple(MESSAGES.items()), "builtin_interfaces std_msgs sensor_msgs trajectory_msgs"
)
MOVEIT_MSGS = Substitute("moveit_msgs", tuple(SERVICES.items()), "builtin_interfaces std_msgs")


def build(what: Substitute = CONTROL_MSGS) -> bool:
    """Build the substitute unless this environment has it, or the real package. Return whether anything was done."""
    if _is_installed(what):
        return False
    prefix = what.prefix
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with (prefix.parent / f"{what.package}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test process may be at it
        note = prefix / "built.txt"
        if note.is_file() and note.read_text() == _key(what):
            return False
        shutil.rmtree(prefix, ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder:
            _compile(what, Path(folder))
        note.write_text(_key(what))
    return True


@cache
def use(what: Substitute = CONTROL_MSGS) -> None:
    """Make `import control_msgs`, or another, work in this process: the real package, else the substitute, built where it is not yet."""
    if _is_installed(what):
        return
    build(what)
    for name in LIBRARIES:  # the middleware asks for them by name
        ctypes.CDLL(str(what.prefix / f"lib/lib{what.package}__rosidl_{name}.so"))
    sys.path.append(str(what.site_packages))
    importlib.invalidate_caches()


def environment(what: Substitute = CONTROL_MSGS) -> dict[str, str]:
    """Return the variables with which another process finds it too; `use` must have been called."""
    if _is_installed(what):
        return {}
    paths = {"PYTHONPATH": what.site_packages, "LD_LIBRARY_PATH": what.prefix / "lib"}
    return {
        name: os.pathsep.join(filter(None, [str(path), os.environ.get(name, "")]))
        for name, path in paths.items()
    }


def _is_installed(what: Substitute) -> bool:
    spec = find_spec(what.package)
    return spec is not None and not str(spec.origin or "").startswith(str(what.prefix))


def _key(what: Substitute) -> str:
    written = "".join(part for pair in what.files().items() for part in pair)
    return f"{hashlib.sha256(written.encode()).hexdigest()} {sys.prefix} {sys.version}"


def _compile(what: Substitute, folder: Path) -> None:
    source, binary = folder / "source", folder / "build"
    for name, text in what.files().items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    variables = dict(os.environ)
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if not os.environ.get("ROS_DISTRO"):
        variables |= {"AMENT_PREFIX_PATH": sys.prefix, "CMAKE_PREFIX_PATH": sys.prefix}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    configure = [
        "cmake", "-S", source, "-B", binary, "-G", "Ninja", "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_INSTALL_PREFIX={what.prefix}", f"-DCMAKE_INSTALL_RPATH=$ORIGIN;$ORIGIN/../../..;{sys.prefix}/lib",
        f"-DPYTHON_INSTALL_DIR={what.site_packages.relative_to(what.prefix)}", f"-DPython3_EXECUTABLE={sys.executable}",
    ]  # fmt: skip
    for command in (configure, ["cmake", "--build", binary], ["cmake", "--install", binary]):
        finished = subprocess.run(
            [str(part) for part in command], env=variables, capture_output=True, text=True, check=False, timeout=BUILD_S
        )  # fmt: skip
        assert finished.returncode == 0, f"{command}\n{finished.stdout[-4000:]}\n{finished.stderr[-4000:]}"


if __name__ == "__main__":
    build()
    build(MOVEIT_MSGS)
