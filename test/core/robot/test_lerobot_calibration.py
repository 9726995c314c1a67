# SPDX-License-Identifier: Apache-2.0
"""An SO-101 that LeRobot calibrated: its degrees and shares of a travel against ticks counted by hand, and in both directions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echoes import echo
from repository import ROOT

from reflex_core.errors import ConfigurationError, EmbodimentError
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.presets import load_embodiment
from reflex_core.robot.units import DEGREES, NORM100, PERCENT, conversion
from reflex_core.settings.table import settings_from
from reflex_core.values import Observation

FILE = ROOT / "test" / "fixtures" / "lerobot_calibration" / "so101.json"
TICKS = json.loads(FILE.read_text(encoding="utf-8"))
JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
ZERO = dict(zip(JOINTS, [0.0, 0.1, -0.2, 0.0, 0.05, 0.785], strict=True))
SIGN = dict(zip(JOINTS, [1, -1, 1, 1, 1, 1], strict=True))


def document(**changes: Any) -> dict[str, Any]:
    arm = {"name": "arm", "space": "joints", "joints": JOINTS[:5], "output": {"kind": "joint_trajectory"}}
    jaw = {
        "name": "jaw", "space": "gripper", "joints": ["gripper"], "gripper": {"open": 1.745, "closed": -0.174},
        "output": {"kind": "gripper_topic", "topic": "/gripper_controller/commands"},
    }  # fmt: skip
    numbers = {
        "mean_action": [0.0] * 6,
        "std_action": [1.0] * 6,
        "mean_state": [0.0] * 6,
        "std_state": [1.0] * 6,
    }
    return {
        "schema_version": 2,
        "embodiment": "so101",
        "joint_names": JOINTS,
        "action_space": {"type": "continuous", "dim": 6, "ranges": [[-3.5, 3.5]] * 6},
        "velocity_max": [2.0] * 6,
        "normalization": numbers,
        "groups": [arm, jaw],
        "calibration": {
            "file": "so101_arm.json",
            "joints": {name: {"zero": ZERO[name], "sign": SIGN[name]} for name in JOINTS},
        },
        "cameras": [{"name": "front", "resolution": [640, 480], "fps": 30, "color_space": "rgb8"}],
        "control": {"frequency_hz": 30.0, "chunk_size": 50, "rtc_execution_horizon": 25},
        "constraints": {"max_ee_velocity": 0.5, "collision_check": False},
    } | changes


def written(path: Path, *, beside: bool = True, **changes: Any) -> Path:
    if beside:
        (path / "so101_arm.json").write_bytes(FILE.read_bytes())
    file = path / "robot.json"
    file.write_text(json.dumps(document(**changes)))
    return file


def converted(robot: Embodiment, unit: str) -> Any:
    assert robot.calibrated is not None
    assert robot.travel is not None
    return conversion([unit] * 6, robot.travel, robot.calibrated.zero, robot.calibrated.sign)


def at_ticks(ticks: list[float]) -> np.ndarray:
    """Return the joints in rad at these ticks, by hand."""
    middle = [(TICKS[name]["range_min"] + TICKS[name]["range_max"]) / 2 for name in JOINTS]
    return np.array(
        [
            ZERO[name] + SIGN[name] * (tick - mid) * 2 * math.pi / 4095
            for name, tick, mid in zip(JOINTS, ticks, middle, strict=True)
        ]
    )


def by_lerobot(ticks: list[float], unit: str) -> np.ndarray:
    """Return what LeRobot makes of ticks: its formulas, joint by joint."""
    numbers = []
    for name, tick in zip(JOINTS, ticks, strict=True):
        low, high, flipped = (TICKS[name][key] for key in ("range_min", "range_max", "drive_mode"))
        share = (tick - low) / (high - low)
        share = 1 - share if flipped else share
        numbers.append(
            {
                DEGREES: (tick - (low + high) / 2) * 360 / 4095,
                PERCENT: 100 * share,
                NORM100: 200 * share - 100,
            }[unit]
        )
    return np.array(numbers)


@pytest.mark.parametrize("unit", [DEGREES, PERCENT, NORM100])
@pytest.mark.parametrize("ticks", [[1000.0] * 5 + [2100.0], [2048.0, 3217.0, 861.0, 900.5, 0.0, 3500.0]])
def test_rad_become_what_lerobot_makes_of_the_ticks_and_back(
    tmp_path: Path, unit: str, ticks: list[float]
) -> None:
    found = converted(load_embodiment(written(tmp_path)), unit)
    rad, theirs = at_ticks(ticks), by_lerobot(ticks, unit)
    np.testing.assert_allclose(found.to_policy(rad), theirs, atol=1e-9, rtol=0)
    np.testing.assert_allclose(found.to_si(theirs), rad, atol=1e-9, rtol=0)
    np.testing.assert_allclose(found.to_si(found.to_policy(rad)), rad, atol=1e-9, rtol=0)


def policy_of(path: Path, robot: Embodiment, **config: Any) -> Policy:
    identity = {"mode": "identity"}
    made = echo(
        path / "export", "somebodys", felt=6, image=False, action_dim=6, action_names=JOINTS,
        state={"input": "state", "names": JOINTS}, normalization={"state": identity, "action": identity}, **config,
    )  # fmt: skip
    return load_policy(open_export(made), robot, "cpu", 1)


@pytest.mark.parametrize("units", ["degrees", "norm100"])
def test_the_policy_sees_its_units_and_the_robot_gets_rad(tmp_path: Path, units: str) -> None:
    unit = {"degrees": DEGREES, "norm100": NORM100}[units]
    each = [units] * 5 + ["percent"]
    policy = policy_of(tmp_path, load_embodiment(written(tmp_path)), units=each)
    ticks = [1500.0, 2500.0, 2000.0, 1800.0, 3000.0, 2400.0]
    theirs = np.array([*by_lerobot(ticks, unit)[:5], by_lerobot(ticks, PERCENT)[5]])
    chunk = policy.predict(Observation({}, at_ticks(ticks).astype(np.float32), "pick"), 1).normalised
    np.testing.assert_allclose(chunk[0, :6, 2], theirs, atol=1e-3)  # the echo repeats the state
    chunk[0, 0, :6] = theirs
    np.testing.assert_allclose(policy.positions(chunk, None)[0], at_ticks(ticks), atol=1e-6)
    assert not any("0 degrees is taken as 0 rad" in note for note in policy.notes)


def test_where_0_degrees_is_not_written_it_is_0_rad_and_that_is_said(tmp_path: Path) -> None:
    policy = policy_of(
        tmp_path, load_embodiment(written(tmp_path, calibration={"joints": {}})), units="degrees"
    )
    [note] = [note for note in policy.notes if "0 degrees is taken as 0 rad" in note]
    assert note.startswith("it counts shoulder_pan, shoulder_lift, ")


def test_degrees_need_no_file_and_shares_of_a_travel_do(tmp_path: Path) -> None:
    joints = {name: {"zero": ZERO[name], "sign": SIGN[name]} for name in JOINTS}
    robot = load_embodiment(written(tmp_path, calibration={"joints": joints}))
    assert robot.travel is None
    policy_of(tmp_path, robot, units="degrees")
    with pytest.raises(ConfigurationError, match="--lerobot-calibration FILE"):
        policy_of(tmp_path / "again", robot, units="norm100")


def test_another_file_can_be_named_for_another_arm_of_the_same_kind(tmp_path: Path) -> None:
    robot = load_embodiment(written(tmp_path, beside=False), str(FILE))
    assert robot.travel is not None
    assert robot.travel[0] == pytest.approx(
        [-(3292 - 758) / 2 * 2 * math.pi / 4095, (3292 - 758) / 2 * 2 * math.pi / 4095]
    )
    assert robot.travel[4][0] > robot.travel[4][1]  # its drive mode counts the other way
    assert settings_from({"lerobot_calibration": str(FILE)}).lerobot_calibration == str(FILE)


def test_without_its_gripper_the_arm_keeps_its_calibration(tmp_path: Path) -> None:
    bare = load_embodiment(written(tmp_path)).without_gripper()
    assert bare.calibrated is not None
    assert bare.calibrated.zero.tolist() == [ZERO[name] for name in JOINTS[:5]]


Change = Callable[[dict[str, Any]], object]
BAD_FILES: dict[str, tuple[Change, str]] = {
    "a motor missing": (lambda file: file.pop("elbow_flex"), "must have motor 'elbow_flex'"),
    "an empty range": (
        lambda file: file["gripper"].update(range_max=2030),
        r"'gripper\.range_max' must be above 'range_min'",
    ),
    "a drive mode of 2": (
        lambda file: file["gripper"].update(drive_mode=2),
        r"'gripper\.drive_mode' must be",
    ),
    "ticks in rad": (
        lambda file: file["gripper"].update(range_min=-1.5),
        r"'gripper\.range_min' must be a whole number",
    ),
    "no motors": (lambda file: file.clear(), "must be an object of motors"),
}


@pytest.mark.parametrize("name", list(BAD_FILES))
def test_a_file_that_is_no_calibration_is_refused_by_name(tmp_path: Path, name: str) -> None:
    change, sentence = BAD_FILES[name]
    file, path = json.loads(json.dumps(TICKS)), tmp_path / "arm.json"
    change(file)
    path.write_text(json.dumps(file))
    with pytest.raises(EmbodimentError, match=sentence) as caught:
        load_embodiment(written(tmp_path), str(path))
    assert str(path) in str(caught.value)


BAD_BLOCKS: dict[str, tuple[dict[str, Any], str]] = {
    "a joint that is none": ({"calibration": {"joints": {"thumb": {"zero": 0.0}}}}, "thumb"),
    "no zero": ({"calibration": {"joints": {"gripper": {}}}}, r"joints\.gripper\.zero' must be a number"),
    "a sign of 2": ({"calibration": {"joints": {"gripper": {"zero": 0, "sign": 2}}}}, r"gripper\.sign' must be 1 or -1"),
    "zero in degrees": ({"calibration": {"joints": {"gripper": {"zero": 90.0}}}}, r"gripper\.zero' must be a number from"),
    "travel twice": ({"travel": [[-1.0, 1.0], *[None] * 5]}, "'travel' must be null for shoulder_pan"),
    "a file that is not there": (
        {"calibration": {"file": "nowhere.json", "joints": {"gripper": {"zero": 0.7}}}}, r"nowhere\.json: No such file",
    ),
    "an unknown key": ({"calibration": {"joint": {}}}, "'calibration' must be an object with only the keys file, joints"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD_BLOCKS))
def test_a_calibration_that_does_not_fit_the_robot_is_refused(tmp_path: Path, name: str) -> None:
    changes, sentence = BAD_BLOCKS[name]
    with pytest.raises(EmbodimentError, match=sentence):
        load_embodiment(written(tmp_path, **changes))


def test_a_file_for_a_robot_that_does_not_say_what_its_joints_are_is_refused(tmp_path: Path) -> None:
    robot = document()
    del robot["calibration"]
    path = tmp_path / "robot.json"
    path.write_text(json.dumps(robot))
    with pytest.raises(EmbodimentError, match="'calibration' must be there, with 'joints'"):
        load_embodiment(path, str(FILE))
