# SPDX-License-Identifier: Apache-2.0
"""The how-to page of ~/run_policy: its program runs against a node, its command and its table are those of the interface."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from reflex_ros.action import RunPolicy
from repository import ROOT
from ros_world import PATIENCE_S, REACH_HOME, world

PAGE = (ROOT / "docs/how-to/call-a-policy-as-a-skill.md").read_text(encoding="utf-8")


def test_the_program_of_the_page_runs_a_policy(tmp_path: Path) -> None:
    [program] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "skill.py").write_text(program, encoding="utf-8")
    with world() as scene:
        scene.robot.positions = list(REACH_HOME)
        scene.activate(instruction="")
        done = subprocess.run(
            [sys.executable, "skill.py"],
            cwd=tmp_path,
            env=os.environ | {"ROS_DOMAIN_ID": str(scene.domain)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith("1: the 5 s of the goal are over, the robot holds\n")
        assert "1 chunks\n" in done.stdout
        assert scene.robot.status.instruction == "reach the red block"


def test_the_command_of_the_page_is_a_goal() -> None:
    [command] = re.findall(r"^ros2 action send_goal .*$", PAGE, re.MULTILINE)
    assert "/reflex/run_policy reflex_ros/action/RunPolicy " in command
    RunPolicy.Goal(**yaml.safe_load(command.split(chr(34))[1]))


def test_the_page_lists_every_reason_for_which_a_goal_ends() -> None:
    reasons = {name for name in dir(RunPolicy.Result) if name.startswith("TERMINATION_")}
    assert set(re.findall(r"^\| `(TERMINATION_\w+)`", PAGE, re.MULTILINE)) == reasons - {
        "TERMINATION_UNKNOWN"
    }
