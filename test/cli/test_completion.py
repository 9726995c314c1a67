# SPDX-License-Identifier: Apache-2.0
"""`reflex completion`: what a shell offers after each beginning of a command line, and that the scripts know every option."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from reflex_core.robot.presets import preset_names
from reflex_ros.cli.commands import commands
from reflex_ros.cli.main import main
from reflex_ros.cli.verbs import VERBS

Output = pytest.CaptureFixture[str]

OFFER = """
source "$1"; shift
compopt() { :; }  # only bash's own line editor has it
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_reflex
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str, capsys: Output) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ser"], {"serve"}),
        ([""], set(VERBS)),
        (["serve", "--embodim"], {"--embodiment"}),
        (["serve", "--device", "c"], {"cpu", "cuda"}),
        (["serve", "--embodiment", ""], set(preset_names())),
        (["serve", "--port", ""], set()),
        (["serve", "--config", ""], {"a robot.yaml", "folder"}),
        (["serve", "--record", ""], {"folder"}),
        (["serve", ""], {"a robot.yaml", "folder"}),
        (["trace", "ex"], {"export"}),
        (["trace", "export", "--for"], {"--format"}),
        (["trace", "export", "--format", "n"], {"npz"}),
        (["guard", "init", "--mar"], {"--margin"}),
        (["guard", "check", "--mar"], set()),
        (["help", "rep"], {"replay"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["nonsense", ""], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_offers_what_can_stand_there(
    words: list[str], offered: set[str], tmp_path: Path, capsys: Output
) -> None:
    place = tmp_path / "here"
    (place / "folder").mkdir(parents=True)
    (place / "a robot.yaml").touch()
    file = tmp_path / "reflex.bash"
    file.write_text(script("bash", capsys))
    run = ["bash", "--norc", "-c", OFFER, "bash", str(file), "reflex", *words]
    done = subprocess.run(run, cwd=place, capture_output=True, text=True, check=True)
    assert set(filter(None, done.stdout.split("\n"))) == offered
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_has_every_option_of_every_command(shell: str, capsys: Output) -> None:
    text = script(shell, capsys)
    for command in commands():
        name = " ".join(command.words)
        if shell == "fish":
            seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words)
            block = "\n".join(line for line in text.splitlines() if f"-n '{seen}' " in line)
        else:
            blocks = re.findall(rf"^    '?{name}'?\) (?:options=|_arguments).*$", text, re.M)
            assert len(blocks) == 1, name
            block = blocks[0]
        for option in command.options:
            for flag in option.option_strings:
                written = f"-l {flag[2:]} " if shell == "fish" and flag.startswith("--") else flag.lstrip("-")
                assert written in block, f"{name} {flag}"


def test_an_unknown_shell_is_refused_with_the_known_ones(capsys: Output) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["completion", "tcsh"])
    assert ended.value.code == 2
    assert "SHELL takes one of bash, zsh, fish, got 'tcsh'" in capsys.readouterr().err
