# SPDX-License-Identifier: Apache-2.0
"""The robots that come along: valid, no wider than what their makers publish, and plain about what is invented."""

from __future__ import annotations

import json

import numpy as np
import pytest
from repository import ROOT

from reflex_core.errors import EmbodimentError
from reflex_core.files.share import share
from reflex_core.robot.embodiment import TwoEnded
from reflex_core.robot.embodiment_file import NAMES
from reflex_core.robot.presets import load_preset, preset_names

PI = 3.141592653589793
ARMS = ("franka", "so100", "so101", "ur5", "trossen", "stretch", "aloha")

# What the makers publish, typed again from the sources that each preset names: range and velocity limit per joint.
PUBLISHED: dict[str, dict[str, tuple[float, float, float]]] = {
    "franka": {
        "panda_joint1": (-2.8973, 2.8973, 2.1750),
        "panda_joint2": (-1.7628, 1.7628, 2.1750),
        "panda_joint3": (-2.8973, 2.8973, 2.1750),
        "panda_joint4": (-3.0718, -0.0698, 2.1750),
        "panda_joint5": (-2.8973, 2.8973, 2.6100),
        "panda_joint6": (-0.0175, 3.7525, 2.6100),
        "panda_joint7": (-2.8973, 2.8973, 2.6100),
        "panda_finger_joint1": (0.0, 0.04, 0.2),
    },
    "ur5": {
        "shoulder_pan_joint": (-2 * PI, 2 * PI, PI),
        "shoulder_lift_joint": (-2 * PI, 2 * PI, PI),
        "elbow_joint": (-PI, PI, PI),
        "wrist_1_joint": (-2 * PI, 2 * PI, PI),
        "wrist_2_joint": (-2 * PI, 2 * PI, PI),
        "wrist_3_joint": (-2 * PI, 2 * PI, PI),
        "robotiq_85_left_knuckle_joint": (0.0, 0.8, 0.5),
    },
    "so100": {
        "shoulder_pan": (-2.0, 2.0, 1.0),
        "shoulder_lift": (0.0, 3.5, 1.0),
        "elbow_flex": (-3.14158, 0.0, 1.0),
        "wrist_flex": (-2.5, 1.2, 1.0),
        "wrist_roll": (-3.14158, 3.14158, 1.0),
        "gripper": (-0.2, 2.0, 1.0),
    },
    "so101": {
        "shoulder_pan": (-1.91986, 1.91986, 1.5 * PI),
        "shoulder_lift": (-1.74533, 1.74533, 1.5 * PI),
        "elbow_flex": (-1.69, 1.69, 1.5 * PI),
        "wrist_flex": (-1.65806, 1.65806, 1.5 * PI),
        "wrist_roll": (-2.79253, 2.79253, 1.5 * PI),
        "gripper": (-0.174533, 1.74533, 1.5 * PI),
    },
    "aloha": {
        f"{side}_{joint}": published
        for side in ("left", "right")
        for joint, published in {
            "waist": (-PI + 1e-5, PI - 1e-5, PI),
            "shoulder": (-106 / 180 * PI, 72 / 180 * PI, PI),
            "elbow": (-101 / 180 * PI, 92 / 180 * PI, PI),
            "forearm_roll": (-PI + 1e-5, PI - 1e-5, PI),
            "wrist_angle": (-107 / 180 * PI, 128 / 180 * PI, PI),
            "wrist_rotate": (-PI + 1e-5, PI - 1e-5, PI),
            "finger": (0.021, 0.057, 0.1),
        }.items()
    },
    "trossen": {
        "joint_0": (-175 / 180 * PI, 175 / 180 * PI, 3.375),
        "joint_1": (0.0, PI, 3.375),
        "joint_2": (0.0, 0.75 * PI, 3.375),
        "joint_3": (-PI / 2, PI / 2, 7.0),
        "joint_4": (-PI / 2, PI / 2, 7.0),
        "joint_5": (-PI, PI, 7.0),
        "left_carriage_joint": (0.0, 0.044, 0.0875),
    },
    "stretch": {
        "joint_lift": (0.0, 1.1, 0.15),
        "wrist_extension": (0.0, 0.52, 0.4),
        "joint_wrist_yaw": (-1.75, 4.0, 3.0),
        "joint_wrist_pitch": (-1.57, 0.56, 3.0),
        "joint_wrist_roll": (-3.14, 3.14, 4.5),
        "joint_gripper_finger_left": (-0.6, 0.6, 1.0),
    },
    "quadcopter": {
        "roll_rate": (-220 / 180 * PI, 220 / 180 * PI, float("inf")),
        "pitch_rate": (-220 / 180 * PI, 220 / 180 * PI, float("inf")),
        "yaw_rate": (-200 / 180 * PI, 200 / 180 * PI, float("inf")),
        "thrust": (0.0, 1.0, float("inf")),
    },
}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_that_comes_along_is_valid(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert load_preset(name).name == name
    assert caplog.text == ""


def test_the_presets_of_schema_v1_are_among_those_of_today() -> None:
    assert set(NAMES) - {"custom"} <= set(preset_names()) == set(PUBLISHED)


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_and_its_gripper_are_commanded_by_an_interface_each(name: str) -> None:
    robot = load_preset(name)
    arms = [group for group in robot.groups if group.space == "joints"]
    hands = [group for group in robot.groups if group.space == "gripper"]
    assert len(arms) == len(hands) == (2 if name == "aloha" else 1)
    assert {group.output for group in arms} == {"joint_trajectory"}
    for hand in hands:
        assert hand.gripper is not None
        assert hand.gripper.open != hand.gripper.closed
        assert hand.output in ("gripper_command", "parallel_gripper", "gripper_topic", "joint_trajectory")
    assert sorted(column for group in robot.groups for column in group.columns) == list(
        range(robot.action_dim)
    )


@pytest.mark.parametrize("name", ["so100", "so101"])
def test_lerobots_degrees_start_in_the_middle_of_each_joints_range(name: str) -> None:
    robot = load_preset(name)
    assert robot.calibrated is not None
    middle = (robot.action_min + robot.action_max) / 2
    assert robot.calibrated.zero[:5] == pytest.approx(middle[:5], abs=1e-5)
    assert robot.travel is not None
    assert robot.travel[5].tolist() == [robot.action_min[5], robot.action_max[5]]


def test_norm100_of_an_so101_needs_the_arms_own_file() -> None:
    file = ROOT / "test" / "fixtures" / "lerobot_calibration" / "so101.json"
    arm = load_preset("so101", str(file))
    assert arm.travel is not None
    assert arm.travel[0] == pytest.approx(
        [-(3292 - 758) / 2 * 2 * PI / 4095, (3292 - 758) / 2 * 2 * PI / 4095]
    )
    assert arm.travel[5].tolist() == [-0.174533, 1.74533]


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_preset_is_never_wider_than_what_is_published(name: str) -> None:
    """And narrower only by rounding, always inwards."""
    found = load_preset(name)
    for joint, (low, high, velocity) in PUBLISHED[name].items():
        column = found.joint_names.index(joint)
        assert low <= found.action_min[column] <= low + 2e-6, joint
        assert high - 2e-6 <= found.action_max[column] <= high, joint
        limits = found.velocity_max if found.velocity_max is not None else np.full(found.action_dim, np.inf)
        assert limits[column] == velocity or velocity - 1e-6 <= limits[column] <= velocity, joint


def test_the_franka_preset_has_the_published_accelerations_and_no_invented_one() -> None:
    franka = load_preset("franka")
    assert franka.acceleration_max is not None
    assert franka.acceleration_max.tolist() == [15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0, float("inf")]
    assert (franka.frequency_hz, franka.chunk_size) == (20.0, 50)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_names_its_sources_and_what_to_replace(name: str) -> None:
    written = json.loads((share() / "config" / "embodiments" / f"{name}.json").read_text(encoding="utf-8"))
    assert written["sources"]
    assert all(len(source) > 20 for source in written["sources"])
    assert "PLACEHOLDERS, replace" in written["notes"]
    assert "'normalization'" in written["notes"]


@pytest.mark.parametrize("name", ["franka", "so100", "ur5", "trossen", "stretch"])
def test_an_arm_can_be_served_without_its_gripper(name: str) -> None:
    arm = load_preset(name)
    assert arm.gripper is not None
    assert arm.gripper.threshold is None  # a preset invents no threshold
    assert arm.without_gripper().joint_names == arm.joint_names[:-1]


def test_the_quadcopter_releases_its_payload_at_a_threshold() -> None:
    release = load_preset("quadcopter").payload_release
    assert release == TwoEnded(4, 0.5)


def test_the_placeholder_mean_of_a_preset_is_inside_its_ranges() -> None:
    for name in preset_names():
        robot = load_preset(name)
        inside = (robot.action_min <= robot.action_statistics.mean) & (
            robot.action_statistics.mean <= robot.action_max
        )
        assert inside.all(), name


@pytest.mark.parametrize("name", ["frnka", "", "../franka", "/etc/passwd"])
def test_an_unknown_preset_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(EmbodimentError, match="[Tt]here are .*franka") as caught:
        load_preset(name)
    assert caught.value.slug == "unknown-preset"


def test_presets_are_found_where_the_package_is_installed() -> None:
    assert (share() / "config" / "embodiments" / "franka.json").is_file()


def test_numbers_are_float64() -> None:
    franka = load_preset("franka")
    assert {franka.action_min.dtype, franka.action_max.dtype} == {np.dtype(np.float64)}
