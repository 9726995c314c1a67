# SPDX-License-Identifier: Apache-2.0
"""`reflex guard init` and `reflex guard check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from described_panda import described
from urdfs import ARM, urdf

from reflex_core.robot.limits.safety_config import load_safety_config
from reflex_ros.cli.main import main


def init(path: Path, output: Path, *more: str) -> int:
    return main(["guard", "init", "--urdf", str(path), "--output", str(output), *more])


def test_what_init_writes_passes_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "safety.json"
    assert init(urdf(tmp_path), output) == 0
    assert main(["guard", "check", "--config", str(output)]) == 0
    printed = capsys.readouterr().out
    assert ["panda_joint4", "-3.0718", "-0.0698", "2", "unlimited"] in [
        line.split() for line in printed.splitlines()
    ]
    assert "effort_max is not checked" in printed
    assert load_safety_config(output).joint_names == ARM.joint_names


def test_check_shows_the_tighter_of_file_and_embodiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "safety.json"
    init(urdf(tmp_path), output, "--margin", "0.1")
    assert main(["guard", "check", "--config", str(output), "--embodiment", "franka"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["panda_joint1", "-2.7973", "2.7973", "2", "unlimited"] in lines
    assert ["panda_finger_joint1", "0", "0.04", "0.2", "unlimited"] in lines


def test_check_shows_what_is_limited_of_the_tool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    robot, file = described(tmp_path, 0.3), tmp_path / "safety.json"
    file.write_text(json.dumps({"tool": {"speed_max": 0.5, "turning_max": 2.0}}))
    assert main(["guard", "check", "--config", str(file), "--custom-embodiment-config", str(robot)]) == 0
    printed = capsys.readouterr().out
    assert "tool: link8 at most 0.3 m/s" in printed
    assert "tool: link8 turning at most 2 rad/s" in printed
    assert main(["guard", "check", "--config", str(file), "--embodiment", "franka"]) == 1
    assert "'tool' can only be checked where the embodiment has 'kinematics'" in capsys.readouterr().err


def test_check_refuses_a_file_of_another_robot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "safety.json"
    init(urdf(tmp_path), output)
    assert main(["guard", "check", "--config", str(output), "--embodiment", "ur5"]) == 1
    assert "must be names of this robot's actions" in capsys.readouterr().err


def test_a_misspelt_key_is_refused_with_the_one_that_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "safety.json"
    init(urdf(tmp_path), output)
    document = json.loads(output.read_text())
    document["velocty_max"] = document.pop("velocity_max")
    output.write_text(json.dumps(document))
    assert main(["guard", "check", "--config", str(output)]) == 1
    assert '(did you mean velocity_max?), got ["velocty_max"]' in capsys.readouterr().err


def test_a_limit_that_is_next_to_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "safety.json"
    wheel = '<joint name="wheel" type="continuous"><limit velocity="1e-320" effort="1"/></joint>'
    assert init(urdf(tmp_path, wheel), output) == 1
    assert "'velocity' of joint 'wheel' must be at least 1e-06" in capsys.readouterr().err
    assert init(urdf(tmp_path), output) == 0
    document = json.loads(output.read_text())
    output.write_text(json.dumps(document | {"velocity_max": [1e-320] * len(document["joint_names"])}))
    assert main(["guard", "check", "--config", str(output)]) == 1
    assert "'velocity_max' must be numbers of at least 1e-06" in capsys.readouterr().err


def test_init_does_not_overwrite_without_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "safety.json"
    output.write_text("mine")
    assert init(urdf(tmp_path), output) == 1
    assert output.read_text() == "mine"
    assert "is there already" in capsys.readouterr().err
    assert init(urdf(tmp_path), output, "--force") == 0
    assert json.loads(output.read_text())["schema_version"] == 1


def test_init_writes_nothing_where_limits_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "safety.json"
    path = urdf(tmp_path, '<joint name="wrist" type="revolute"/>')
    assert init(path, output) == 1
    assert not output.exists()
    assert "missing: wrist: no position limits" in capsys.readouterr().err


def test_partial_leaves_out_the_joint_without_a_range(tmp_path: Path) -> None:
    """Written with `null` it would be taken for a joint that turns for ever."""
    output = tmp_path / "safety.json"
    unknown = '<joint name="wrist" type="revolute"><limit velocity="1" effort="1"/></joint>'
    assert init(urdf(tmp_path, unknown), output, "--partial") == 0
    assert "wrist" not in load_safety_config(output).joint_names


def test_a_continuous_joint_is_written_without_a_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "safety.json"
    wheel = '<joint name="wheel" type="continuous"><limit velocity="3" effort="1"/></joint>'
    assert init(urdf(tmp_path, wheel), output) == 0
    assert main(["guard", "check", "--config", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "note: wheel: turns for ever" in printed
    assert ["wheel", "unlimited", "unlimited", "3", "unlimited"] in [
        line.split() for line in printed.splitlines()
    ]


def test_with_an_embodiment_only_its_joints_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "safety.json"
    path = urdf(tmp_path, '<joint name="camera_tilt" type="revolute"/>')
    assert init(path, output, "--embodiment", "franka") == 1
    printed = capsys.readouterr().err
    assert "missing: panda_finger_joint1: not in the description" in printed
    assert "'panda_finger_joint1' is the gripper of embodiment 'franka'" in printed
    assert "with --partial" in printed
    assert init(path, output, "--embodiment", "franka", "--partial") == 0
    assert load_safety_config(output).joint_names == ARM.joint_names


def test_the_gripper_is_not_blamed_where_a_joint_of_the_arm_is_missing_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = urdf(tmp_path, joints=6)
    assert init(path, tmp_path / "safety.json", "--embodiment", "franka") == 1
    output = capsys.readouterr().err
    assert "2 limits are missing; nothing written. Add them to the description" in output


def test_a_margin_that_leaves_no_range_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(urdf(tmp_path), tmp_path / "safety.json", "--margin", "2") == 1
    assert "--margin must leave joint" in capsys.readouterr().err
    assert not (tmp_path / "safety.json").exists()


def test_an_output_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(urdf(tmp_path), tmp_path / "nowhere" / "safety.json") == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("margin", ["-1", "nan", "inf", "wide"])
def test_a_margin_that_is_none_is_a_bad_command_line(tmp_path: Path, margin: str) -> None:
    with pytest.raises(SystemExit) as caught:
        init(urdf(tmp_path), tmp_path / "safety.json", "--margin", margin)
    assert caught.value.code == 2
