# SPDX-License-Identifier: Apache-2.0
"""What `reflex serve --no-ros` imports, and when: what a request does not need costs no memory, and no request waits for an import."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from http_client import PATIENCE_S, Client, good, jpeg, wait_for
from repository import ROOT

UNUSED = {
    "IPython", "PIL", "cv2", "google", "grpc", "jsonschema", "matplotlib", "mcap", "mujoco", "onnx", "opentelemetry", "pandas",
    "pyarrow", "rclpy", "rerun", "rosbags", "safetensors", "scipy", "torch", "websockets", "yaml", "zmq",
}  # fmt: skip
SERVE = [
    sys.executable, "-X", "importtime", "-m", "reflex_ros.cli.main", "serve", "demo", "--no-ros", "--port", "0", "--device", "cpu",
]  # fmt: skip

Imported = Callable[[], set[str]]


@contextmanager
def served(log: Path, *flags: str) -> Iterator[tuple[Client, Imported]]:
    """The embedded policy in a process of its own, ready; gives a client and the packages that are imported so far."""
    with log.open("w") as lines:
        process = subprocess.Popen(
            [*SERVE, *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=lines, text=True
        )

    def imported() -> set[str]:
        return set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\w+)", log.read_text(), re.MULTILINE))

    try:
        assert process.stdout is not None
        found = next(filter(None, (re.search(r"listening on .*:(\d+)$", line) for line in process.stdout)))
        client = Client(int(found[1]))
        wait_for(lambda: client.get("/health").status == 200)
        yield client, imported
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)


def test_serving_the_embedded_policy_imports_only_what_it_uses(tmp_path: Path) -> None:
    with served(tmp_path / "log") as (client, imported):
        assert {"numpy", "onnxruntime", "aiohttp", "tokenizers"} <= imported()
        assert client.act(good(image=jpeg(width=96, height=96))).status == 200
        assert imported() & UNUSED == set()
        assert client.act(good(image=jpeg(width=64, height=48))).status == 200
        assert imported() & UNUSED == {"cv2"}  # which scales it


@pytest.mark.parametrize("flags", [["--deadline-ms", "1000"], ["--prefix-cache"], ["--embodiment", "franka"]])
def test_where_a_robot_waits_opencv_is_imported_before_the_first_request(
    tmp_path: Path, flags: list[str]
) -> None:
    with served(tmp_path / "log", *flags) as (_, imported):
        assert "cv2" in imported()


@pytest.fixture
def damaged_opencv(tmp_path: Path) -> dict[str, str]:
    """An environment whose OpenCV lacks a library, as opencv-python does in a container without a display."""
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


@pytest.mark.parametrize("flags", [["--no-http"], ["--no-ros", "--port", "0", "--deadline-ms", "100"]])
def test_where_a_robot_waits_a_damaged_opencv_is_named_in_one_sentence(
    damaged_opencv: dict[str, str], flags: list[str]
) -> None:
    command = [sys.executable, "-m", "reflex_ros.cli.main", "serve", "demo", "--device", "cpu", *flags]
    done = subprocess.run(
        command, env=damaged_opencv, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "reflex serve: OpenCV is installed and cannot be imported (libGL.so.1"
    )
    assert "Traceback" not in done.stderr


def test_a_damaged_opencv_is_the_servers_fault_and_not_the_images(
    tmp_path: Path, damaged_opencv: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in damaged_opencv.items():
        monkeypatch.setenv(name, value)
    with served(tmp_path / "log") as (client, _):
        answer = client.act(good(image=jpeg(width=64, height=48)))
    assert (answer.status, answer.json["error"]) == (500, "internal-error")
    assert "OpenCV is installed and cannot be imported (libGL.so.1" in (tmp_path / "log").read_text()
