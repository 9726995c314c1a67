# SPDX-License-Identifier: Apache-2.0
"""The package builds with colcon and with pip, and what they install is whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest
from builds import build_wheel, copy_source, metadata, run, tracked_below
from catkin_pkg.package import parse_package
from catkin_pkg.package_version import get_forthcoming_label
from domains import free_domain
from pyproject_file import project, requirements
from repository import ROOT
from tutorial import blocks, commands_of, reader
from urdfs import urdf

import reflex_core
from reflex_ros.cli.verbs import VERBS

INTERFACES = sorted(
    (kind, path.stem) for kind in ("msg", "srv", "action") for path in (ROOT / kind).iterdir()
)
EXECUTABLES = ["demo", "demo_robot", "doctor", "reflex", "replay", "serve"]
VGA_IMAGE_BYTES = 640 * 480 * 3


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout."""
    return copy_source(tmp_path_factory.mktemp("source") / "reflex_ros")


@pytest.fixture(scope="module")
def colcon_install(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The install folder of `colcon build`."""
    workspace = tmp_path_factory.mktemp("workspace")
    run(
        *(sys.executable, "-m", "colcon", "--log-base", workspace / "log", "build"),
        *(
            "--base-paths",
            source,
            "--build-base",
            workspace / "build",
            "--install-base",
            workspace / "install",
        ),
        *("--event-handlers", "console_direct-", "--cmake-args", "-GNinja", "-DBUILD_TESTING=OFF"),
        f"-DPython3_EXECUTABLE={sys.executable}",
        cwd=workspace,
    )
    return workspace / "install"


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel with the messages of the ROS that is here."""
    ros = {} if os.environ.get("ROS_DISTRO") else {"REFLEX_ROS": ros_of_this_environment()}
    return build_wheel(source, tmp_path_factory.mktemp("wheel"), **ros)


def ros_of_this_environment() -> str:
    """The folder of requirements/ros/ whose rclpy is installed here."""
    has = f"ros-rclpy=={version('ros-rclpy')}"
    files = (ROOT / "requirements" / "ros").glob("*/constraints.txt")
    (found,) = (path.parent.name for path in files if has in path.read_text(encoding="utf-8").splitlines())
    return found


def documented(column: int) -> set[str]:
    """The names in one column of the tables of docs/reference/dependencies.md; `rosdep` is the last but one column."""
    names: set[str] = set()
    page = (ROOT / "docs" / "reference" / "dependencies.md").read_text(encoding="utf-8")
    for line in page.partition("## Written here")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or cells[-1] in {"why", "---"}:
            continue
        names.update(name.strip() for name in cells[column].split(","))
    return names


def in_colcon_install(install: Path, *command: str | Path) -> str:
    sourced = f'. "{install}/setup.sh" && exec "$@"'
    return run("sh", "-c", sourced, "sh", *command, cwd=install)


def whereabouts(*modules: str) -> str:
    return (
        "import " + ", ".join(modules) + "\nprint(" + ", ".join(f"{name}.__file__" for name in modules) + ")"
    )


def test_package_xml_is_valid() -> None:
    warnings: list[str] = []
    package = parse_package(str(ROOT / "package.xml"), warnings=warnings)
    assert warnings == []
    assert package.get_build_type() == "ament_cmake"
    assert package.licenses == ["Apache-2.0"]
    assert [group.name for group in package.member_of_groups] == ["rosidl_interface_packages"]


def test_every_rosdep_key_is_justified_and_every_justified_key_is_used() -> None:
    package = parse_package(str(ROOT / "package.xml"))
    dependencies = [
        *package.buildtool_depends,
        *package.build_depends,
        *package.exec_depends,
        *package.test_depends,
    ]
    elsewhere = {"pip only", "`make` only", "comes with ROS 2", "comes with ament_cmake"}
    assert {dependency.name for dependency in dependencies} == documented(column=-2) - elsewhere


def test_every_pip_requirement_is_justified(wheel: Path) -> None:
    required = metadata(wheel).get_all("Requires-Dist", [])
    names = {re.split(r"[^A-Za-z0-9_.-]", requirement)[0] for requirement in required}
    assert "numpy" in names
    assert names - {"reflex_ros"} - documented(column=0) == set()


def test_one_build_of_onnxruntime_is_installed_and_never_two() -> None:
    """An extra can only add: whatever is installed without one is there with it too."""
    others = set(project()["optional-dependencies"]) - {"cpu", "gpu"}
    builds = {"onnxruntime", "onnxruntime-gpu"}
    assert {"demo", "test"} <= others
    assert requirements(*others).keys() & builds == set()
    assert requirements("cpu", *others).keys() & builds == {"onnxruntime"}
    assert requirements("gpu", *others).keys() & builds == {"onnxruntime-gpu"}


def test_versions_agree(wheel: Path) -> None:
    version = parse_package(str(ROOT / "package.xml")).version
    assert metadata(wheel)["Version"] == version
    assert reflex_core.__version__ == version
    assert "version" in project()["dynamic"]
    changelog = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
    assert get_forthcoming_label(changelog) == f"{version} (Forthcoming)" or f"\n{version} (" in changelog


def test_colcon_installs_everything(colcon_install: Path) -> None:
    prefix = colcon_install / "reflex_ros"
    share = prefix / "share" / "reflex_ros"
    assert (prefix / "share/ament_index/resource_index/packages/reflex_ros").is_file()
    for name in ("package.xml", "launch", "config/fastdds_shm.xml", "models/reach_panda"):
        assert (share / name).exists(), name
    for kind, interface in INTERFACES:
        assert (share / kind / f"{interface}.{kind}").is_file()
    executables = sorted((prefix / "lib" / "reflex_ros").iterdir())
    assert [path.name for path in executables] == EXECUTABLES
    assert all(os.access(path, os.X_OK) for path in executables)


def test_colcon_install_is_what_python_imports(colcon_install: Path) -> None:
    print_files = whereabouts(
        "reflex_core", "reflex_ros", *(f"reflex_ros.{kind}" for kind in ("msg", "srv", "action"))
    )
    files = in_colcon_install(colcon_install, sys.executable, "-c", print_files).split()
    assert len(files) == 5
    assert all(Path(file).is_relative_to(colcon_install) for file in files), files


def test_colcon_install_serialises_the_messages(colcon_install: Path) -> None:
    code = (
        "from rclpy.serialization import deserialize_message, serialize_message\n"
        "from reflex_ros.action import RunPolicy\n"
        "from reflex_ros.msg import ActionChunk\n"
        "from reflex_ros.srv import GetActionChunk\n"
        "sent = ActionChunk(horizon=2, action_dim=1, data=[0.5, 1.5], source=ActionChunk.SOURCE_HOLD)\n"
        "answer = GetActionChunk.Response(details=sent)\n"
        "for message in (sent, answer, GetActionChunk.Request(), RunPolicy.Goal(instruction='reach')):\n"
        "    assert deserialize_message(serialize_message(message), type(message)) == message\n"
        "print('same')"
    )
    assert in_colcon_install(colcon_install, sys.executable, "-c", code).strip() == "same"


def test_colcon_executables_name_programs_that_exist(colcon_install: Path) -> None:
    prefix, modules = colcon_install / "reflex_ros", set[str]()
    for program in (*(f"lib/reflex_ros/{name}" for name in EXECUTABLES), "bin/reflex"):
        script = (prefix / program).read_text(encoding="utf-8")
        modules |= set(re.findall(r"^from (reflex_ros[.\w]+) import main$", script, re.MULTILINE))
    assert len(modules) == 3
    code = (
        "import importlib, sys; print(all(callable(importlib.import_module(m).main) for m in sys.argv[1:]))"
    )
    assert in_colcon_install(colcon_install, sys.executable, "-c", code, *modules).strip() == "True", modules


@pytest.mark.parametrize("executable", ["demo", "doctor", "reflex", "serve"])
def test_colcon_executable_starts(colcon_install: Path, executable: str) -> None:
    program = colcon_install / "reflex_ros" / "lib" / "reflex_ros" / executable
    output = in_colcon_install(colcon_install, program, "--help")
    assert (
        f"usage: {'make demo' if executable == 'demo' else f'reflex {executable}'.removesuffix(' reflex')}"
        in output
    )


def test_every_documented_command_is_there_in_a_workspace(colcon_install: Path) -> None:
    """`reflex ...` and `ros2 run reflex_ros ...`, as README, docs and tutorials write them."""
    found = commands_of((ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")))
    assert {
        "serve",
        "guard init",
        "guard check",
        "audit verify",
        "ab report",
        "manifest",
        "bag reindex",
    } <= found.reflex
    assert {"doctor", "reflex"} <= found.run <= set(EXECUTABLES)
    code = (
        "import contextlib, io, json, sys\n"
        "from reflex_ros.cli.main import main\n"
        "def helped(words):\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):\n"
        "        main([*words.split(), '--help'])\n"
        "    return shown.getvalue().startswith(f'usage: reflex {words}')\n"
        "print(json.dumps([words for words in sys.argv[1:] if not helped(words)]))"
    )
    words = sorted({*found.reflex, *VERBS})
    assert in_colcon_install(colcon_install, sys.executable, "-c", code, *words).strip() == "[]"


def test_a_tutorial_is_followed_in_a_workspace(colcon_install: Path, tmp_path: Path) -> None:
    """The first one up to where a robot is needed, with `reflex` from PATH: no checkout is imported."""
    urdf(tmp_path).rename(tmp_path / "robot.urdf")
    path = in_colcon_install(colcon_install, "printenv", "PATH").strip()
    assert shutil.which("reflex", path=path) == str(colcon_install / "reflex_ros" / "bin" / "reflex")
    with reader(tmp_path, workspace=colcon_install) as tutorial:
        tutorial.follow(blocks("first_robot"))
    assert str(colcon_install) in tutorial.printed, "the doctor names files of the workspace"
    assert (tmp_path / "safety_config.json").is_file()


def test_wheel_holds_everything_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    data = f"reflex_ros-{metadata(wheel)['Version']}.data/data"
    expected = [
        "reflex_core/py.typed",
        "reflex_export/py.typed",
        "reflex_ros/py.typed",
        "reflex_core/engine/engine.py",
        "reflex_ros/__init__.py",
        *(
            f"reflex_ros/{kind}/_{re.sub('(?<!^)(?=[A-Z])', '_', name).lower()}.py"
            for kind, name in INTERFACES
        ),
        f"{data}/share/reflex_ros/package.xml",
        f"{data}/share/reflex_ros/config/fastdds_shm.xml",
        f"{data}/share/ament_index/resource_index/packages/reflex_ros",
        f"{data}/lib/libreflex_ros__rosidl_typesupport_c.so",
        f"{data}/lib/libreflex_ros__rosidl_typesupport_fastrtps_c.so",
        *(f"{data}/lib/reflex_ros/{name}" for name in EXECUTABLES),
        *tracked_below("reflex_ros/demo/assets", into="reflex_ros/demo/assets"),
        *tracked_below("reflex_ros/sidecar/page", into="reflex_ros/sidecar/page"),
        *tracked_below("launch", into=f"{data}/share/reflex_ros/launch"),
        *tracked_below("models/reach_panda", into=f"{data}/share/reflex_ros/models/reach_panda"),
    ]
    assert [name for name in expected if name not in names] == []
    assert "reflex_ros/reflex_ros_s__rosidl_typesupport_fastrtps_c.so" in names
    top = {name.split("/")[0] for name in names if not name.startswith("reflex_ros-")}
    assert top == {"reflex_core", "reflex_export", "reflex_ros"}
    assert [name for name in names if "__pycache__" in name or "test_" in name.rsplit("/", 1)[-1]] == []


def test_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "venv"
    venv.create(prefix, symlinks=True, with_pip=False)
    python = prefix / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--no-deps", "--no-index"]
    run(*pip, wheel, cwd=tmp_path)
    # The dependencies are borrowed from this environment; what is editable there stays out of a plain path.
    borrowed = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("-packages"))}
    files = run(
        python, "-c", whereabouts("reflex_core", "reflex_ros", "reflex_ros.msg"), cwd=tmp_path, **borrowed
    ).split()
    assert len(files) == 3
    assert all(Path(file).is_relative_to(prefix) for file in files), files
    share = "from reflex_core.files.share import embedded_policy; print(embedded_policy())"
    found = run(python, "-c", share, cwd=tmp_path, **borrowed).strip()
    assert Path(found) == prefix / "share/reflex_ros/models/reach_panda"
    assert "usage: reflex" in run(prefix / "bin" / "reflex", "--help", cwd=tmp_path, **borrowed)
    # A program finds the Python of its environment, whatever is on PATH.
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("dirname", "realpath"):
        (tools / name).symlink_to(str(shutil.which(name)))
    program = prefix / "lib/reflex_ros/serve"
    assert "usage: reflex serve" in run(program, "--help", cwd=tmp_path, PATH=str(tools), **borrowed)


def test_importing_the_package_points_ament_at_the_environment(tmp_path: Path) -> None:
    code = "import reflex_ros; from ament_index_python import get_package_prefix as p; print(p('reflex_ros'))"
    variables = {} if os.environ.get("ROS_DISTRO") else {"AMENT_PREFIX_PATH": ""}
    assert Path(run(sys.executable, "-c", code, cwd=tmp_path, **variables).strip()).is_dir()


def test_shared_memory_profile_holds_ten_raw_images_and_is_used(tmp_path: Path) -> None:
    profile = ROOT / "config" / "fastdds_shm.xml"
    sizes = ElementTree.parse(profile).findall(".//{*}segment_size")
    assert [int(size.text or 0) for size in sizes] == [16 * 1024 * 1024]
    assert int(sizes[0].text or 0) >= 10 * VGA_IMAGE_BYTES
    # The segments that a node maps show whether Fast DDS took the profile.
    code = (
        "import os, re, rclpy\n"
        "rclpy.init(); node = rclpy.create_node('segments')\n"
        "maps = open('/proc/self/maps').read()\n"
        "segments = set(re.findall('/dev/shm/fast(?:rtps|dds)_[0-9a-f]+$', maps, re.M))\n"
        "size = max((os.stat(path).st_size for path in segments), default=0)\n"
        "node.destroy_node(); rclpy.shutdown(); print(size)"
    )
    variables = {
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(profile),
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(free_domain()),
    }
    printed = run(sys.executable, "-c", code, cwd=tmp_path, **variables)
    assert int(printed.splitlines()[-1]) >= 16 * 1024 * 1024  # Fast DDS may have said something before


def test_after_make_build_reflex_is_in_the_environment_that_the_readme_activates() -> None:
    assert "source .venv/bin/activate" in (ROOT / "README.md").read_text(encoding="utf-8")
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    assert shutil.which("reflex", path=programs)


def test_a_missing_python_is_one_clear_line() -> None:
    command = [str(ROOT / "requirements" / "system.sh"), "python", "/nowhere/python3.12"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert finished.stderr.splitlines() == [
        "reflex_ros: PYTHON=/nowhere/python3.12 does not run or is not Python 3.10, 3.11 or 3.12."
    ]


@pytest.mark.parametrize(
    ("given", "served"),
    [
        ("", "demo"),
        ("--port 9000", "demo --port 9000"),
        ("/my/export --port 9000", "/my/export --port 9000"),
        ("--policy-a v1 --policy-b v2 --no-rtc", "--policy-a v1 --policy-b v2 --no-rtc"),
        ("--config arm.yaml", "--config arm.yaml"),
    ],
)
def test_make_serve_serves_the_embedded_policy_by_name_unless_an_export_is_named(
    given: str, served: str
) -> None:
    *_, last = run(
        "make", "--dry-run", "--no-print-directory", "serve", f"SERVE_ARGS={given}", cwd=ROOT
    ).splitlines()
    assert last.split()[2:] == ["reflex_ros.cli.serve", *served.split()]


def test_make_help_lists_the_verbs() -> None:
    listed = run("make", "help", cwd=ROOT)
    for verb in ("build", "demo", "test", "lint", "clean"):
        assert re.search(rf"^  {verb} +\S", listed, re.MULTILINE), verb
