# SPDX-License-Identifier: Apache-2.0
"""`reflex serve` with the ports of clients that speak no HTTP, opened as users open them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from children import end
from groot_client import GrootClient
from lerobot_client import LerobotClient, captured
from repository import ROOT

ExportDir = Callable[[str], Path]
Process = subprocess.Popen[str]
Start = Callable[..., Process]

COMMAND = ["-m", "reflex_ros.cli.main", "serve", "--no-ros", "--port", "0", "--device", "cpu"]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start("demo", "--groot-port", 0)`: a serving process that does not outlive the test."""
    processes: list[Process] = []

    def run(*arguments: object) -> Process:
        words = [sys.executable, *COMMAND, *map(str, arguments)]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(words, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True))
        return processes[-1]

    yield run
    for process in processes:
        end(process)


def port_of(process: Process, name: str) -> int:
    """The port that the startup banner names."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        if found := re.search(rf"{name}\s+127\.0\.0\.1:(\d+)", line):
            return int(found[1])
        lines.append(line)
    raise AssertionError("".join(lines))


@pytest.mark.parametrize("version", ["0_4_4", "0_6_1"])
def test_the_bytes_of_lerobots_robot_client_are_answered_by_the_command(
    start: Start, export_dir: ExportDir, version: str
) -> None:
    process = start(export_dir("so101"), "--embodiment", "so101", "--lerobot-port", 0)
    client = LerobotClient(port_of(process, "lerobot"))
    client.ready()
    assert client._setup(captured(f"setup_{version}.bin"), timeout=30) == b""
    assert client.send_parts(iter([captured(f"observation_{version}.bin")]), timeout=30) == b""
    found = client.actions()
    client.close()
    rows = np.array([row.action for row in found])
    assert [row.timestep for row in found] == list(range(50))
    assert rows.shape == (50, 6)
    assert np.abs(rows[:, :5]).max() < 180.0  # degrees, as the export counts
    assert 0.0 <= rows[:, 5].min() <= rows[:, 5].max() <= 100.0


def test_a_client_of_isaac_gr00t_is_answered_by_the_command(start: Start) -> None:
    client = GrootClient(port_of(start("demo", "--groot-port", 0), "gr00t"))
    actions, telemetry = client.act()
    client.close()
    assert actions["left_arm"].shape == (1, 50, 7)
    assert telemetry["reflex"]["chunk"]["source"] == "policy"
