# SPDX-License-Identifier: Apache-2.0
"""Help, errors and versions of every verb: what a person reads who types something."""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from episodes_recorded import documents, write

from reflex_core import __version__
from reflex_ros.cli import version
from reflex_ros.cli.commands import Command, commands, takes_value
from reflex_ros.cli.main import main
from reflex_ros.cli.verbs import VERBS

Output = pytest.CaptureFixture[str]

COMMANDS = list(commands())


def status_of(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as ended:
        return int(str(ended.code))


def words_of(command: Command) -> str:
    return " ".join(command.words)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("srve", "did you mean serve?"),
        ("help srve", "did you mean serve?"),
        ("serve --embodyment franka", "did you mean --embodiment?"),
        ("serve --embodyment=franka", "no such option --embodyment; did you mean --embodiment?"),
        ("serve --embod franka", "did you mean --embodiment?"),
        ("serve --embodiment Frank", "did you mean franka?"),
        ("serve --slo-mode degrad", "did you mean degrade?"),
        ("serve ./a ./b", "unexpected argument './b'"),
        ("serve --config", "--config needs a value: --config FILE"),
        ("doctor --jsn", "did you mean --json?"),
        ("trace exprt", "no such command 'exprt'; did you mean export?"),
        ("guard init --urd robot.urdf", "did you mean --urdf?"),
        ("audit verify --hed x log", "did you mean --head?"),
        ("completion bsh", "did you mean bash?"),
        ("ab", "COMMAND"),
    ],
)
def test_a_typo_costs_two_lines_and_status_2(words: str, meant: str, capsys: Output) -> None:
    assert status_of(words.split()) == 2
    captured = capsys.readouterr()
    first, second = captured.err.splitlines()
    assert captured.out == ""
    assert first.startswith("reflex")
    assert meant in first
    assert re.fullmatch(r"`reflex help[ a-z]*` lists the (verbs|options|commands)\.", second)


def test_what_a_typo_says_to_type_is_understood(capsys: Output) -> None:
    for words in (["serve", "--x"], ["guard", "init", "--x"], ["trace", "x"], ["x"]):
        status_of(words)
        [hint] = re.findall(r"`reflex (help[ a-z]*)`", capsys.readouterr().err)
        assert status_of(hint.split()) == 0
        assert "usage: reflex" in capsys.readouterr().out


def test_a_line_break_in_a_word_makes_no_line_of_its_own(capsys: Output) -> None:
    status_of(["serve", "--x\nreflex:fake"])
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_help_lists_every_verb_in_a_group(capsys: Output) -> None:
    assert status_of(["help"]) == 0
    shown = capsys.readouterr().out
    for verb in VERBS.values():
        assert re.search(
            rf"^{re.escape(verb.group)}:\n(  .*\n)*  {verb.name} +{re.escape(verb.what)}$", shown, re.M
        )
    status_of(["--help"])
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("command", COMMANDS, ids=words_of)
def test_every_help_names_its_values_and_ends_with_examples(command: Command, capsys: Output) -> None:
    assert status_of(["help", *command.words]) == 0
    shown = capsys.readouterr().out
    if command.below:
        return  # its commands have them
    assert shown.startswith(f"usage: reflex {words_of(command)}")
    examples = shown.partition("\nexamples:\n")[2].splitlines()
    assert examples == [f"  {example}" for example in command.parser.examples]
    assert any(f"reflex {words_of(command)}" in example for example in examples)
    for action in command.options:
        if takes_value(action):
            assert action.metavar or action.choices, f"{action.option_strings}: its value has no name"
            assert action.metavar not in ("STR", "INT", "FLOAT", "TUPLE")
    assert "==SUPPRESS==" not in shown
    assert "[default: []]" not in shown


@pytest.mark.parametrize("command", COMMANDS, ids=words_of)
def test_every_example_is_understood(command: Command) -> None:
    """Only parsed, not run: files and robots of the examples are not here."""
    for example in command.parser.examples:
        found = re.search(rf"reflex {words_of(command)}(( [^\s|>)]+)*)", example)
        assert found is not None, example
        words = re.sub(r"\$\(.*", "0" * 64, found[1]).partition(" --ros-args")[0].split()
        assert isinstance(command.parser.parse_args(words), argparse.Namespace)


@pytest.mark.parametrize("words", ["version", "--version"])
def test_the_version_names_what_it_runs_on(words: str, capsys: Output) -> None:
    assert main([words]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:2] == ["reflex", __version__]
    assert lines[1][:2] == ["Python", platform.python_version()]
    assert lines[2][:4] == ["ONNX", "Runtime", metadata.version("onnxruntime"), "onnxruntime"]
    assert lines[3][0] == "ROS"


def test_a_sourced_ros_is_named_by_its_distribution() -> None:
    assert "kilted  sourced" in version.text({"ROS_DISTRO": "kilted"})


@pytest.mark.parametrize("words", ["help", "serve --print-config", "trace ls records"])
def test_a_reader_that_ends_early_costs_no_traceback(words: str, tmp_path: Path) -> None:
    recorded = write(tmp_path / "a.jsonl", documents())
    command = [sys.executable, "-m", "reflex_ros.cli.main", *words.replace("records", str(recorded)).split()]
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(command, check=False, stdout=writes, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, "")
