# SPDX-License-Identifier: Apache-2.0
"""`reflex export`: exit statuses, what it prints, and that an interrupted one leaves nothing."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoint_folders import CONFIG, DATASET, VLM, WORDS, checkpoint_folder, configure, edit
from checkpoint_graphs import small_side
from repository import ROOT

from reflex_ros.cli import export
from reflex_ros.cli.main import main

Output = pytest.CaptureFixture[str]
GIVEN = ["--dataset", str(DATASET), "--tokenizer", str(WORDS), "--vlm", str(VLM)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs that cost nothing, in place of torch's."""
    monkeypatch.setattr("reflex_export.export.LIBRARIES", ())
    monkeypatch.setattr(export, "torch_side", small_side)


def test_a_verified_export_is_status_0_and_says_what_to_do_next(tmp_path: Path, capsys: Output) -> None:
    policy, out = checkpoint_folder(tmp_path / "policy"), tmp_path / "out"
    assert main(["export", str(policy), str(out), *GIVEN]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(
        "verified: 1e-06, the largest difference from LeRobot over 1 observations, is within 0.0001\n"
    )
    assert f"reflex serve {out}" in captured.out
    assert "3/6 asking LeRobot for its answers: 0.0 s, at most" in captured.err
    assert "note: the units of its states and actions are not known" in captured.err


def test_a_robot_that_was_filled_in_is_kept_and_the_next_command_can_be_copied(
    tmp_path: Path, capsys: Output
) -> None:
    policy, out = checkpoint_folder(tmp_path / "policy"), tmp_path / "my export"
    assert main(["export", str(policy), str(out), *GIVEN]) == 0
    assert f"  reflex serve '{out}'\n" in capsys.readouterr().out
    edit(out / "embodiment.json", lambda document: document["velocity_max"].__setitem__(0, 1.0))
    mine = (out / "embodiment.json").read_bytes()
    assert main(["export", str(policy), str(out), *GIVEN, "--force"]) == 0
    assert f"note: {out}/embodiment.json is kept as it was filled in" in capsys.readouterr().err
    assert (out / "embodiment.json").read_bytes() == mine


def test_an_option_that_would_change_nothing_is_refused(tmp_path: Path, capsys: Output) -> None:
    policy = checkpoint_folder(tmp_path / "policy")
    assert main(["export", str(policy), str(tmp_path / "out"), *GIVEN, "--fused"]) == 2
    assert "--fused is for policies of type smolvla, pi0, pi05, xvla, and changes nothing" in (
        capsys.readouterr().err
    )


def test_a_difference_is_status_3_and_nothing_is_called_verified(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "torch_side", lambda: small_side(1e-3))
    assert main(["export", str(checkpoint_folder(tmp_path / "policy")), str(tmp_path / "out"), *GIVEN]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "reflex export: NOT VERIFIED: 0.001, the largest difference" in captured.err
    assert f"{tmp_path / 'out.not-verified'}: " in captured.err


def test_a_refusal_is_status_2_and_one_sentence(tmp_path: Path, capsys: Output) -> None:
    policy = checkpoint_folder(tmp_path / "policy")
    configure(policy, type="groot")
    assert main(["export", str(policy), str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    sentences = [line for line in captured.err.splitlines() if line.startswith("reflex export:")]
    assert len(sentences) == 1
    assert "of type 'groot' is not exported" in sentences[0]
    assert (captured.out, sorted(path.name for path in tmp_path.iterdir())) == ("", ["policy"])


@pytest.mark.parametrize(
    ("oldest", "where"),
    [((3, 10), ""), ((3, 99), "in an environment of Python 3.99 or newer, ")],
    ids=["this Python will do", "LeRobot needs a newer Python"],
)
def test_without_the_extra_it_says_how_to_install_it(
    oldest: tuple[int, int], where: str, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reflex_export.export.LIBRARIES", ("no_such_torch", "no_such_lerobot"))
    monkeypatch.setattr("reflex_export.export.OLDEST_PYTHON", oldest)
    assert main(["export", str(checkpoint_folder(tmp_path / "policy")), str(tmp_path / "out")]) == 2
    assert (
        f"no_such_torch, no_such_lerobot: not installed: {where}pip install 'reflex_ros[export]'"
        in capsys.readouterr().err
    )


def test_every_option_reaches_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def run(*arguments: Any) -> None:
        seen.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "run", run)
    words = (
        "a/b out --dataset d --names x,y --fps 25 --units degrees,percent --tokenizer t --vlm v --dtype fp16 --fused --bars -3"
        " --resize-cameras --observations 9 --seed 4 --tolerance 0.5 --force"
    )
    assert main(["export", *words.split()]) == 130
    named, out, options = seen[0][:3]
    assert (named, out) == ("a/b", Path("out"))
    assert (options.dataset, options.names, options.fps, options.units) == (
        Path("d"),
        ("x", "y"),
        25.0,
        ("degrees", "percent"),
    )
    assert (options.tokenizer, options.vlm, options.dtype, options.fused) == (
        Path("t"),
        Path("v"),
        "fp16",
        True,
    )
    assert (options.bars, options.resize_cameras, options.observations, options.seed) == (-3.0, True, 9, 4)
    assert (options.tolerance, options.force) == (0.5, True)


@pytest.mark.parametrize(
    "words",
    [
        [], ["a", "b", "c"], ["a", "--fps", "0"], ["a", "--fps", "1001"], ["a", "--fps", "nan"],
        ["a", "--observations", "0"], ["a", "--bars", "inf"], ["a", "--dtype", "int8"], ["a", "--seed", "-1"], ["a", "--tolerance", "-1"],
        ["a", "--forc"],
    ],
)  # fmt: skip
def test_a_bad_command_line_is_status_2(words: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", *words])
    assert ended.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("reflex export: ")
    assert second == "`reflex help export` lists the options."


def test_the_help_names_what_is_exported_and_how_to_begin(capsys: Output) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    output = " ".join(capsys.readouterr().out.split())
    assert "act, diffusion, smolvla, pi0, pi05, xvla" in output
    assert "examples: reflex export outputs/train/act_so101" in output


SLOW = """
import sys, time
from checkpoint_graphs import small_side
from reflex_ros.cli import export
from reflex_ros.cli.main import main
import reflex_export.export

def load(checkpoint):
    print("loading", flush=True)
    time.sleep(60)

reflex_export.export.LIBRARIES = ()
export.torch_side = lambda: small_side(load=load)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupted_one_leaves_nothing(number: signal.Signals, status: int, tmp_path: Path) -> None:
    policy = checkpoint_folder(tmp_path / "policy")
    command = [sys.executable, "-c", SLOW, "export", str(policy), str(tmp_path / "out"), *GIVEN]
    path = os.pathsep.join([str(ROOT), str(ROOT / "test" / "support")])
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_one_that_nohup_protects_goes_on_when_its_terminal_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen: list[object] = []

    def run(*_: Any) -> None:
        seen.append(signal.getsignal(signal.SIGHUP))
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "run", run)
    try:
        assert main(["export", "a/b", "out"]) == 130
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == [signal.SIG_IGN]


def test_a_refusal_takes_less_than_two_seconds_as_a_process(tmp_path: Path) -> None:
    policy = checkpoint_folder(tmp_path / "policy")
    (policy / "model.safetensors").write_bytes((policy / "model.safetensors").read_bytes()[:-1])
    before_s = children_s()
    command = [sys.executable, "-m", "reflex_ros.cli.main", "export", str(policy), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is cut short or damaged" in done.stderr
    assert children_s() - before_s < 2.0


def children_s() -> float:
    """Processor time of all processes that ended: other than the clock on the wall, it is the same on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_serve_refuses_the_skeleton_and_names_the_file_and_what_is_missing(tmp_path: Path) -> None:
    """Until its owner has filled in the robot's limits."""
    policy, out = checkpoint_folder(tmp_path / "policy", "smolvla"), tmp_path / "out"
    assert main(["export", str(policy), str(out), *GIVEN]) == 0
    command = [
        sys.executable,
        "-m",
        "reflex_ros.cli.main",
        "serve",
        str(out),
        "--no-ros",
        "--port",
        "0",
        "--device",
        "cpu",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    (sentence,) = [line for line in done.stderr.splitlines() if "asks for values" in line]
    assert re.search(
        rf"{re.escape(str(out / 'embodiment.json'))}: asks for values that the exporter could not know",
        sentence,
    )
    assert "action_space.ranges[0], action_space.ranges[1]" in sentence
    assert "Traceback" not in done.stderr


def test_a_name_of_a_folder_is_not_taken_for_the_former_spelling(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    edit(checkpoint_folder(tmp_path / "seal") / CONFIG, lambda config: config.update(type="groot"))
    assert main(["export", "./seal"]) == 2
    assert "'groot' is not exported" in capsys.readouterr().err
