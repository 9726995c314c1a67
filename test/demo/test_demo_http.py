# SPDX-License-Identifier: Apache-2.0
"""`reflex demo` where ROS is missing: over HTTP, or one sentence that names what to install."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from repository import ROOT

PATIENCE_S = 240.0
WITHOUT = "import sys; sys.modules.update({name: None for name in sys.argv[1].split(',')}); "
VERB = "from reflex_ros.cli.main import main; sys.exit(main(['demo', *sys.argv[2:]]))"


def demo_without(modules: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + VERB, modules, *arguments], cwd=ROOT, text=True, capture_output=True,
        timeout=PATIENCE_S, check=False, env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )  # fmt: skip


def test_the_cube_is_picked_up_over_http(tmp_path: Path) -> None:
    found = demo_without(
        "rclpy", "--episodes", "1", "--port", "0", "--out", str(tmp_path), "--record", str(tmp_path / "kept")
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.startswith("ROS 2 is not installed here: the arm asks the policy over HTTP.")
    assert "picked up 1/1" in found.stdout
    result = json.loads((tmp_path / "demo.json").read_text())
    assert result["passed"]
    assert result["episodes"][0]["succeeded"]
    picture = cv2.imread(str(tmp_path / "episode.png"))
    assert picture.shape[1] > 3 * picture.shape[0]
    assert list((tmp_path / "kept" / "trace").iterdir()), "recorded"


@pytest.mark.parametrize(
    ("missing", "words"),
    [("rclpy,mujoco", "the simulator not installed"), ("rclpy,cv2", "OpenCV, for pictures")],
)
def test_what_is_missing_is_named_with_how_to_install_it(missing: str, words: str) -> None:
    found = demo_without(missing)
    assert found.returncode == 1
    assert words in found.stderr
    assert "pip install 'reflex_ros[demo]'" in found.stderr
    assert found.stderr.count("\n") == 1


def test_an_option_of_the_ros_controller_is_refused_over_http() -> None:
    found = demo_without("rclpy", "--era", "blend")
    assert found.returncode == 2
    assert found.stderr == "reflex demo: --era needs ROS 2, which is not used here\n"
