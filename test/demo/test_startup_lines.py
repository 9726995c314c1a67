# SPDX-License-Identifier: Apache-2.0
"""The start of `make demo` shows that it goes on: imports, a policy that does not answer, and what is not imported for it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from demos import Demo, wait_for

from reflex_ros.demo.startup_lines import startup_lines


def test_the_last_line_is_repeated_until_the_start_is_over(capfd: pytest.CaptureFixture[str]) -> None:
    printed: list[str] = []

    def repeated(text: str, often: int) -> bool:
        printed.extend(capfd.readouterr().out.splitlines())
        return sum(line.endswith(f" s {text}") for line in printed) >= often

    with startup_lines("it starts", quiet_s=0.02) as show:
        wait_for(lambda: repeated("it starts", 3), "a line that is printed again")
        show("it is ready")
        wait_for(lambda: repeated("it is ready", 2), "the next line again")
    capfd.readouterr()
    assert all(re.fullmatch(r" +\d+\.\d s it (starts|is ready)", line) for line in printed), printed


@pytest.mark.parametrize(
    ("module", "slow"),
    [
        ("reflex_ros.demo.run", ("rclpy", "mujoco", "cv2")),
        ("reflex_ros.demo.opengl", ("rclpy", "mujoco", "numpy")),
    ],
)
def test_nothing_slow_is_imported_before_the_first_line(module: str, slow: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sorted(set({slow!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_policy_that_does_not_answer_leaves_the_demo_neither_silent_nor_deaf(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "out", "--episodes", "1", "--port", "0")
    try:
        os.kill(demo.pid("policy"), signal.SIGSTOP)
        wait_for(lambda: len(re.findall(r"^ +\d+\.\d s ", demo.printed, re.MULTILINE)) >= 3, "more lines")
        lines = re.findall(r"^ +\d+\.\d s (.+)$", demo.printed, re.MULTILINE)
        assert lines[0] == "robot and policy start"
        assert lines[-1] == lines[-2]
        os.kill(demo.pid("policy"), signal.SIGCONT)
        demo.wait_for("first chunk followed")
    finally:
        demo.process.send_signal(signal.SIGINT)
        demo.end()
    assert "Traceback" not in demo.printed
