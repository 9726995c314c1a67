# SPDX-License-Identifier: Apache-2.0
"""`reflex import`: exit statuses, what it prints, and that it needs neither torch nor the program that made the folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bundles import manifest_of, package, write
from repository import ROOT

from reflex_ros.cli import import_folder
from reflex_ros.cli.main import main

Output = pytest.CaptureFixture[str]


def test_an_import_is_status_0_and_says_what_was_read_and_what_was_not_compared(
    tmp_path: Path, capsys: Output
) -> None:
    out = tmp_path / "out"
    assert main(["import", str(package(tmp_path / "package")), str(out), "--fps", "20"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"imported: {out}, act@")
    assert (
        "chunks of 16 rows and 7 actions, all finite; whether it answers as its own program does was not"
        in captured.out
    )
    assert "read: policy_package 1.0\n" in captured.err
    assert "taken for granted: units of states and actions are those of the robot" in captured.err
    assert {path.name for path in out.iterdir()} == {
        "model.onnx", "reflex_config.json", "parity.npz", "VERIFICATION.md",
    }  # fmt: skip


def test_a_refusal_is_status_2_in_one_sentence_and_nothing_is_written(tmp_path: Path, capsys: Output) -> None:
    folder = package(tmp_path / "package", runner={"class_path": "os.system"})
    assert main(["import", str(folder), str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(
        f"reflex import: {folder / 'manifest.json'}: runner names the class 'os.system'"
    )
    assert len(captured.err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package"]


def test_every_option_reaches_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def run(*arguments: Any) -> None:
        seen.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(import_folder, "run", run)
    words = "a out --names x,y --state-names x,y,z --fps 25 --units degrees,percent --tokenizer t --image-range 0,255 --force"
    assert main(["import", *words.split()]) == 130
    folder, out, options = seen[0][:3]
    assert (folder, out) == (Path("a"), Path("out"))
    assert (options.names, options.state_names, options.fps) == (("x", "y"), ("x", "y", "z"), 25.0)
    assert options.image_range == (0.0, 255.0)
    assert (options.units, options.tokenizer, options.force) == (("degrees", "percent"), Path("t"), True)


@pytest.mark.parametrize(
    "words", [[], ["a"], ["a", "b", "c"], ["a", "b", "--fps", "0"], ["a", "b", "--fps", "nan"],
        ["a", "b", "--image-range", "1,0"], ["a", "b", "--image-range", "1"],]
)  # fmt: skip
def test_a_command_line_that_is_not_understood_is_status_2(words: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["import", *words])
    assert ended.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("reflex import: ")
    assert second == "`reflex help import` lists the options."


def test_it_runs_without_torch_ros_and_the_libraries_of_training(tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    manifest = manifest_of(folder)
    manifest["model"]["preprocessors"].append({"class_path": "this.would.be.imported"})
    write(folder, manifest)
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'lerobot', 'onnx', 'physicalai', 'rclpy', 'this']))"
    code = f"{blocked}; from reflex_ros.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "import", str(folder), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "names the class 'this.would.be.imported', which is code of another program" in done.stderr
