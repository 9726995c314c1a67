# SPDX-License-Identifier: Apache-2.0
"""The wheel of pure Python: installed from the package index into an empty environment it serves, replays and checks."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from builds import build_wheel, copy_source, environment, metadata, run, tracked_below
from catkin_pkg.package import parse_package
from http_client import Client, text, wait_for
from pythons import at_hand
from repository import ROOT
from urdfs import urdf

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
MOST_BYTES = 300_000_000  # that an installation may take
PYTHONS = [
    pytest.param(version, marks=() if version == HERE else pytest.mark.slow)
    for version in ("3.10", "3.11", "3.12", "3.13")
    if at_hand(version)
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_source(tmp_path_factory.mktemp("source") / "reflex_ros")
    no_compiler = {"CC": "/bin/false", "CXX": "/bin/false", "REFLEX_ROS": "none"}
    return build_wheel(source, tmp_path_factory.mktemp("wheel"), **no_compiler)


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel and its extra `cpu`, and what that took."""

    prefix: Path
    size_bytes: int

    def run(self, *command: str | Path, cwd: Path) -> str:
        return run(self.prefix / "bin" / command[0], *command[1:], cwd=cwd, **ALONE)


# Nothing of this environment, its ROS in particular.
ALONE = {
    "PYTHONPATH": "",
    "AMENT_PREFIX_PATH": "",
    "LD_LIBRARY_PATH": "",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def size_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


@pytest.fixture(scope="module", params=PYTHONS)
def installed(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    interpreter, prefix = at_hand(request.param), tmp_path_factory.mktemp("pure") / "venv"
    assert interpreter is not None
    run(interpreter, "-m", "venv", prefix, cwd=prefix.parent, **ALONE)
    before = size_below(prefix)
    constraints = ROOT / "requirements" / "constraints.txt"
    pip = (prefix / "bin" / "pip", "install", "-qq", "--no-input", "-c", constraints)
    run(*pip, f"{wheel}[cpu]", cwd=prefix.parent, **ALONE)
    return Installed(prefix, size_below(prefix) - before)


def test_the_wheel_is_for_every_machine_and_asks_for_no_ros(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    described = metadata(wheel)
    assert described["Version"] == parse_package(str(ROOT / "package.xml")).version
    assert described["Requires-Python"] == ">=3.10"
    needed = [line for line in described.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(needed) > 5
    assert [line for line in needed if re.match(r"ros|opencv|onnxruntime", line)] == []


def test_the_wheel_holds_every_file_of_the_packages_and_the_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    share = f"reflex_ros-{metadata(wheel)['Version']}.data/data/share/reflex_ros"
    expected = [
        *tracked_below("reflex_core", into="reflex_core"),
        *tracked_below("reflex_export", into="reflex_export"),
        *tracked_below("reflex_ros", into="reflex_ros"),
        *(
            name
            for folder in ("config", "models", "launch")
            for name in tracked_below(folder, into=f"{share}/{folder}")
        ),
        f"{share}/package.xml",
        "reflex_core/py.typed",
        "reflex_export/py.typed",
        "reflex_ros/py.typed",
    ]
    assert [name for name in expected if name not in names] == []
    assert [
        name
        for name in names
        if re.search(r"\.so$|\.pyc$|/test_|resource_index|reflex_ros/(?:msg|srv|action)/", name)
    ] == []


@pytest.mark.parametrize(
    ("requested", "sourced", "message"),
    [
        ("melodic", "", "REFLEX_ROS=melodic is not known; take one of none, jazzy, kilted."),
        ("jazzy", "humble", "REFLEX_ROS=jazzy asks for ROS wheels while ROS 2 humble is sourced; drop one."),
    ],
)
def test_a_ros_that_cannot_be_used_is_refused_in_one_sentence(
    requested: str, sourced: str, message: str
) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "setup.py", "--version"],
        cwd=ROOT, env=environment(REFLEX_ROS=requested, ROS_DISTRO=sourced), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{message}\n")


def test_the_installation_is_small_and_brings_no_ros(installed: Installed) -> None:
    assert installed.size_bytes < MOST_BYTES
    listed = json.loads(installed.run("pip", "list", "--format", "json", cwd=installed.prefix))
    names = {str(each["name"]).lower() for each in listed}
    assert {"reflex-ros", "onnxruntime"} <= {name.replace("_", "-") for name in names}
    assert {name for name in names if name.startswith("ros-") or name == "rclpy" or "opencv" in name} == set()


def test_the_doctor_finds_nothing_wrong(installed: Installed, tmp_path: Path) -> None:
    found = json.loads(installed.run("reflex", "doctor", "--json", "--port", "0", cwd=tmp_path))["findings"]
    assert {each["name"] for each in found if each["level"] != "ok"} <= {"ros", "clock", "shared memory"}, (
        found
    )
    assert {each["level"] for each in found} <= {"ok", "warn"}


@contextmanager
def serving(installed: Installed, folder: Path) -> Iterator[Client]:
    """`reflex serve demo` of the installation, which records what it consumed."""
    command = (installed.prefix / "bin" / "reflex", "serve", "demo", "--port", "0", "--record", "traces")
    server = subprocess.Popen(
        [*command, "--record-images", "full", "--device", "cpu"],
        cwd=folder, env=environment(**ALONE), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        lines = (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in server.stdout)
        client = Client(int(next(filter(None, lines))[1]))
        wait_for(lambda: client.get("/health").status == 200)
        yield client
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.communicate()


def test_what_it_serves_is_replayed_to_the_same_actions_there_and_here(
    installed: Installed, tmp_path: Path
) -> None:
    """There without OpenCV, here with it."""
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    encoded = text(cv2.imencode(".png", picture)[1].tobytes())
    with serving(installed, tmp_path) as client:
        answers = [client.act(image=encoded, episode_id="one", instruction=each) for each in ("red", "blue")]
    assert [(answer.status, len(answer.json["actions"])) for answer in answers] == [(200, 50), (200, 50)]
    (trace,) = (tmp_path / "traces").iterdir()
    command = (
        "replay",
        trace,
        "--model",
        "demo",
        "--device",
        "cpu",
        "--fail-on",
        "actions",
        "--max-abs",
        "1e-5",
    )
    assert "2" in installed.run("reflex", *command, cwd=tmp_path)
    run(sys.executable, "-m", "reflex_ros.cli.main", *command, cwd=ROOT)


def test_guard_tools_read_a_robot(installed: Installed, tmp_path: Path) -> None:
    robot = urdf(tmp_path)
    installed.run("reflex", "guard", "init", "--urdf", robot, "--output", "limits.json", cwd=tmp_path)
    assert "panda_joint1" in installed.run(
        "reflex", "guard", "check", "--config", "limits.json", cwd=tmp_path
    )
