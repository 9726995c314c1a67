# SPDX-License-Identifier: Apache-2.0
"""The how-to pages of ~/run_policy and ~/get_action_chunk: programs run against a node, commands and tables fit the interface."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from reflex_ros.action import RunPolicy
from reflex_ros.srv import GetActionChunk
from repository import ROOT
from ros_world import PATIENCE_S, REACH_HOME, World, wait_for, world

from reflex_ros.node.observation_buffer import Gates

HOW_TO = ROOT / "docs/how-to"
PAGE = (HOW_TO / "call-a-policy-as-a-skill.md").read_text(encoding="utf-8")
CHUNKS_PAGE = (HOW_TO / "request-chunks-over-ros.md").read_text(encoding="utf-8")


def run_program(page: str, scene: World, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the one program of a page beside the node of a scene."""
    [program] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (directory / "program.py").write_text(program, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "program.py"],
        cwd=directory,
        env=os.environ | {"ROS_DOMAIN_ID": str(scene.domain)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_the_program_of_the_page_runs_a_policy(tmp_path: Path) -> None:
    with world() as scene:
        scene.robot.positions = list(REACH_HOME)
        scene.activate(instruction="")
        done = run_program(PAGE, scene, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith("1: the 5 s of the goal are over, the robot holds\n")
        assert "1 chunks\n" in done.stdout
        assert scene.robot.status.instruction == "reach the red block"


def test_the_program_of_the_page_requests_two_chunks(tmp_path: Path) -> None:
    with world() as scene:
        scene.robot.positions = list(REACH_HOME)
        scene.activate()
        scene.robot.next_chunk()
        assert scene.robot.call("stop").success
        wait_for(lambda: scene.buffer.peek(scene.server.now_ns(), Gates(300.0, 150.0)), "it has come to rest")
        done = run_program(CHUNKS_PAGE, scene, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        first, second = done.stdout.splitlines()[-2:]
        assert re.fullmatch(r"\d+ points of 0\.05 s for panda_joint1, .*, panda_joint7", first), first
        assert second == "guided by the chunk before: True"


def test_the_command_of_the_page_is_a_request() -> None:
    [command] = re.findall(r"^ros2 service call .*$", CHUNKS_PAGE, re.MULTILINE)
    assert "/reflex/get_action_chunk reflex_ros/srv/GetActionChunk " in command
    GetActionChunk.Request(**yaml.safe_load(command.split(chr(34))[1]))


def test_the_page_lists_every_status() -> None:
    statuses = {name for name in dir(GetActionChunk.Response) if name.startswith("STATUS_")}
    assert set(re.findall(r"^\| `(STATUS_\w+)`", CHUNKS_PAGE, re.MULTILINE)) == statuses - {"STATUS_UNKNOWN"}


def test_the_command_of_the_page_is_a_goal() -> None:
    [command] = re.findall(r"^ros2 action send_goal .*$", PAGE, re.MULTILINE)
    assert "/reflex/run_policy reflex_ros/action/RunPolicy " in command
    RunPolicy.Goal(**yaml.safe_load(command.split(chr(34))[1]))


def test_the_page_lists_every_reason_for_which_a_goal_ends() -> None:
    reasons = {name for name in dir(RunPolicy.Result) if name.startswith("TERMINATION_")}
    assert set(re.findall(r"^\| `(TERMINATION_\w+)`", PAGE, re.MULTILINE)) == reasons - {
        "TERMINATION_UNKNOWN"
    }
