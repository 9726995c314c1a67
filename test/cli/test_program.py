# SPDX-License-Identifier: Apache-2.0
"""Messages that tell people what to type name only what is there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reflex_ros.cli.main import main
from reflex_ros.console.program import called, print_runnable

Output = pytest.CaptureFixture[str]

TEXT = "In another terminal:\n  curl localhost\n  export A=1\n  ros2 topic list\n  ros2 topic echo"


def program(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    made = folder / name
    made.write_text("#!/bin/sh\n")
    made.chmod(0o755)
    return made


@pytest.mark.parametrize(
    ("there", "shown"),
    [
        (["curl", "ros2"], TEXT),
        (["curl"], "In another terminal:\n  curl localhost"),
        (["ros2"], "In another terminal:\n  export A=1\n  ros2 topic list\n  ros2 topic echo"),
        ([], "In another terminal:"),
    ],
)
def test_command_lines_whose_program_is_missing_are_left_out(
    there: list[str], shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    for name in there:
        program(tmp_path, name)
    monkeypatch.setenv("PATH", str(tmp_path))
    print_runnable(TEXT)
    assert capsys.readouterr().out == shown + "\n"


def test_a_hint_names_the_program_as_it_was_called_unless_path_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    mine = program(tmp_path / "mine", "reflex")
    other = program(tmp_path / "other", "reflex")
    monkeypatch.setattr(sys, "argv", [str(mine)])
    monkeypatch.setenv("PATH", str(other.parent))
    assert main(["srve"]) == 2
    assert f"`{mine} help` lists the verbs." in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(mine.parent))
    assert called() == "reflex"
