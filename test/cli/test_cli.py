# SPDX-License-Identifier: Apache-2.0
"""`reflex`: sub-commands, exit statuses, and what is handed to rclpy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from repository import ROOT

from reflex_core.files.share import embedded_policy
from reflex_ros.cli.main import main
from reflex_ros.console.ros_args import split_ros_args
from reflex_ros.settings_sources import Given

Output = pytest.CaptureFixture[str]


EXPORT = str(embedded_policy())


@pytest.fixture
def node_calls(monkeypatch: pytest.MonkeyPatch) -> list[Given]:
    """What the command line gives to the ROS node, which is not started here."""
    calls: list[Given] = []
    node = ModuleType("reflex_ros.node.process")
    node.run = lambda found: calls.append(found) or 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reflex_ros.node.process", node)
    return calls


@pytest.mark.parametrize("arguments", [[], ["launch"], ["--serve"]])
def test_what_is_not_a_verb_is_status_2_and_says_where_the_verbs_are(
    arguments: list[str], capsys: Output
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "reflex help" in captured.err
    assert captured.out == ""


def test_help_and_version_are_status_0(capsys: Output) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(
        f"  {command} " in output for command in ("serve", "replay", "doctor", "export", "calibrate-prefix")
    )
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("reflex ")


HELP_WITHOUT_EXTRAS = """
import sys
for name in ("cv2", "grpc", "matplotlib", "mujoco", "lerobot", "onnx", "pyarrow", "rclpy", "rich", "rosbags", "torch", "zmq"):
    sys.modules[name] = None
from reflex_ros.cli.main import main
from reflex_ros.cli.verbs import VERBS
for command in VERBS:
    try:
        status = main([command, "--help"])
    except SystemExit as ended:
        status = ended.code
    assert status == 0, command
"""


def test_every_command_shows_its_help_where_no_extra_is_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP_WITHOUT_EXTRAS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "own", "ros"),
    [
        ([], [], []),
        (["./export"], ["./export"], []),
        (["--ros-args", "-r", "__node:=a"], [], ["--ros-args", "-r", "__node:=a"]),
        (["x", "--ros-args", "-p", "port:=1", "--", "y"], ["x", "y"], ["--ros-args", "-p", "port:=1"]),
        (["x", "--ros-args", "--ros-args"], ["x"], ["--ros-args", "--ros-args"]),
    ],
)
def test_what_is_between_ros_args_and_two_dashes_is_not_ours(
    arguments: list[str], own: list[str], ros: list[str]
) -> None:
    assert split_ros_args(arguments) == (own, ros)


def test_serve_hands_the_node_only_what_was_written(node_calls: list[Given]) -> None:
    options = ["--embodiment", "franka", "--port", "0", "--no-autostart", "--joint-names", "a", "b"]
    ros = ["--ros-args", "-p", "deadline_ms:=33", "-p", "use_sim_time:=true", "--log-level", "debug"]
    assert main(["serve", EXPORT, *options, *ros]) == 0
    [found] = node_calls
    assert found.written == {
        "export_dir": EXPORT, "embodiment": "franka", "port": 0, "autostart": False, "joint_names": ("a", "b"),
        "deadline_ms": 33.0,
    }  # fmt: skip
    assert found.ros_parameters == {"use_sim_time": True}
    assert found.ros_args == ("--ros-args", "--log-level", "debug")


def test_started_by_launch_there_is_nothing_but_ros_args(node_calls: list[Given]) -> None:
    assert main(["serve", "--ros-args", "-r", "__node:=reflex"]) == 0
    [found] = node_calls
    assert (found.written, found.ros_args) == ({}, ("--ros-args", "-r", "__node:=reflex"))


def test_the_export_may_be_an_option_too(node_calls: list[Given]) -> None:
    assert main(["serve", "--export-dir", EXPORT]) == 0
    assert node_calls[0].written == {"export_dir": EXPORT}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-age-ms", "0"], "setting 'max_age_ms' takes 1 to 60000, got 0.0"),
        (["--port", "70000"], "setting 'port' takes 0 to 65535, got 70000"),
        (["--port", "many"], "setting 'port' takes a whole number, got 'many'"),
        (
            ["--joint-names", "1", "2"],
            "setting 'joint_names' takes a list of names such as [a, b], got [1, 2]",
        ),
    ],
)
def test_a_bad_setting_is_status_2_with_a_sentence(arguments: list[str], says: str, capsys: Output) -> None:
    assert main(["serve", *arguments]) == 2
    output = capsys.readouterr().err
    assert says in output
    assert output.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["--device", "abacus"], ["--emb", "franka"], ["--config"]]
)
def test_a_bad_option_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seed", "-7"], f"setting 'seed' takes -1 to {2**63 - 1}, got -7"),
        (["--providers", "CUDA"], "did you mean CUDAExecutionProvider?"),
        (["--host", "nohost.invalid"], "--host nohost.invalid: "),
        (["--record", "loop"], "setting 'record': loop: loop is a loop of symbolic links"),
        (["./loop"], "loop: is a loop of symbolic links"),
        (["--a2c2-checkpoint", "loop"], "must be a regular file, it is a loop of symbolic links"),
        (
            ["--cloud-fallback", "http://x", "--cloud-api-key-file", "loop"],
            "setting 'cloud_api_key_file': loop: Too many",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_serve_refuses_is_said_in_one_sentence(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    assert main(["serve", "--no-ros", "--port", "0", *words]) in (1, 2, 78)
    [sentence] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("reflex serve: ")]
    assert says in sentence


@pytest.mark.parametrize(
    "words", [["ab", "report"], ["trace", "export", "--format", "npz", "--output", "out"]]
)
def test_a_trace_that_is_a_loop_of_links_is_one_sentence(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    assert main([*words, "loop"]) > 0
    assert "loop: cannot be read: Too many levels of symbolic links" in capsys.readouterr().err


def test_ros_that_cannot_be_imported_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setitem(sys.modules, "reflex_ros.node.process", None)
    assert main(["serve"]) == 1
    assert "build the package" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["doctor", "--embod", "franka"], ["replay", "x.jsonl", "--mod", "x"], ["guard", "init", "--urd", "x"], ["audit", "verify", "--hea", "x", "d"],
        ["ab", "report", "--alph", "0.1", "d"], ["trace", "export", "--outpu", "x", "d"],
        ["manifest", "--forc", "x"], ["export", "seal", "--forc", "x"],
        ["calibrate-adaptive", "x", "--observation", "d"], ["calibrate-prefix", "x", "--observation", "d"],
    ],
)  # fmt: skip
def test_no_command_takes_half_an_option(words: list[str], capsys: Output) -> None:
    """What --forc means today it need not mean when there is a --force-all."""
    try:
        status = main(words)
    except SystemExit as ended:
        status = int(str(ended.code))
    assert status > 0
    half = next(word for word in words if word.startswith("--"))
    output = capsys.readouterr().err
    assert f"no such option {half}" in output or "required" in output
