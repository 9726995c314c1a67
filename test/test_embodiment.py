# SPDX-License-Identifier: Apache-2.0
"""Embodiment files: what is read, and the one sentence with which each contradiction is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reflex_core.embodiment import load_embodiment, load_preset, preset_names
from reflex_core.errors import EmbodimentError
from reflex_core.locations import share

Change = Callable[[dict[str, Any]], object]

# Franka Control Interface documentation, "Robot and interface specifications", Panda: joint space limits
PANDA_MIN = [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]
PANDA_MAX = [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]
PANDA_VELOCITY = [2.1750, 2.1750, 2.1750, 2.1750, 2.6100, 2.6100, 2.6100]


def document() -> dict[str, Any]:
    """A complete file of a robot with two joints and a gripper."""
    return {
        "schema_version": 1,
        "embodiment": "custom",
        "joint_names": ["shoulder", "elbow", "gripper"],
        "action_space": {"type": "continuous", "dim": 3, "ranges": [[-1, 1], [-2, 2], [0, 1]]},
        "velocity_max": [1.0, 2.0, 0.5],
        "normalization": {
            "mean_action": [0, 0, 0.5],
            "std_action": [0.5, 0.5, 0.25],
            "mean_state": [0, 0],
            "std_state": [0.25, 0.25],
        },
        "gripper": {"component_idx": 2, "close_threshold": 0.5, "inverted": False},
        "cameras": [{"name": "wrist", "resolution": [640, 480], "fps": 30, "color_space": "rgb8"}],
        "control": {"frequency_hz": 20.0, "chunk_size": 50, "rtc_execution_horizon": 25},
        "constraints": {"max_ee_velocity": 1.0, "max_gripper_velocity": 1.0, "collision_check": True},
    }


def written(tmp_path: Path, change: Change = lambda _: None) -> Path:
    content = document()
    change(content)
    path = tmp_path / "robot.json"
    path.write_text(json.dumps(content))
    return path


def put(*keys: str | int, value: Any) -> Change:
    """Sets document[keys...] = value."""

    def change(content: dict[str, Any]) -> None:
        holder: Any = content
        for key in keys[:-1]:
            holder = holder[key]
        holder[keys[-1]] = value

    return change


def without(*keys: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        holder: Any = content
        for key in keys[:-1]:
            holder = holder[key]
        del holder[keys[-1]]

    return change


def test_a_complete_file_is_read(tmp_path: Path) -> None:
    robot = load_embodiment(written(tmp_path))
    assert (robot.name, robot.action_dim) == ("custom", 3)
    assert robot.joint_names == ("shoulder", "elbow", "gripper")
    assert (robot.action_min.tolist(), robot.action_max.tolist()) == ([-1, -2, 0], [1, 2, 1])
    assert robot.velocity_max is not None
    assert robot.velocity_max.tolist() == [1.0, 2.0, 0.5]
    assert (robot.state_statistics.mean.tolist(), robot.state_statistics.std.tolist()) == (
        [0, 0],
        [0.25, 0.25],
    )
    assert (robot.frequency_hz, robot.chunk_size, robot.execution_horizon) == (20.0, 50, 25)
    assert [(camera.name, camera.resolution, camera.fps) for camera in robot.cameras] == [
        ("wrist", (640, 480), 30)
    ]


@pytest.mark.parametrize("key", ["joint_names", "velocity_max", "gripper"])
def test_what_is_optional_may_be_absent(tmp_path: Path, key: str) -> None:
    load_embodiment(written(tmp_path, without(key)))


CONTRADICTIONS: dict[str, list[Change]] = {
    "action-ranges-length-mismatch": [
        put("action_space", "dim", value=4),
        put("action_space", "ranges", value=[[-1, 1]]),
        put("action_space", "ranges", value=None),
    ],
    "action-range-inverted": [
        put("action_space", "ranges", 1, value=[2, -2]),
        put("action_space", "ranges", 1, value=[2, 2]),
        put("action_space", "ranges", 1, value=[float("-inf"), 2]),
        put("action_space", "ranges", 1, value=[float("nan"), 2]),
    ],
    "norm-mean-action-length-mismatch": [put("normalization", "mean_action", value=[0, 0])],
    "norm-std-action-length-mismatch": [put("normalization", "std_action", value=[1, 1, 1, 1])],
    "norm-state-length-mismatch": [put("normalization", "mean_state", value=[0, 0, 0])],
    "gripper-idx-out-of-range": [put("gripper", "component_idx", value=3)],
    "gripper-missing-velocity-cap": [without("constraints", "max_gripper_velocity")],
    "payload-release-idx-out-of-range": [
        put("payload_release", value={"component_idx": 3, "trigger_threshold": 0.5})
    ],
    "duplicate-camera-name": [
        lambda content: content["cameras"].append(dict(content["cameras"][0])),
    ],
}


@pytest.mark.parametrize(
    ("slug", "change"), [(slug, change) for slug, changes in CONTRADICTIONS.items() for change in changes]
)
def test_a_file_that_contradicts_itself_is_refused_by_slug(tmp_path: Path, slug: str, change: Change) -> None:
    path = written(tmp_path, change)
    with pytest.raises(EmbodimentError) as caught:
        load_embodiment(path)
    assert caught.value.slug == slug
    assert str(path) in str(caught.value)


VIOLATIONS: dict[str, Change] = {
    "schema_version": put("schema_version", value=2),
    "embodiment": put("embodiment", value=""),
    "joint_names": put("joint_names", value=["shoulder", "elbow"]),
    "joint_names twice": put("joint_names", value=["shoulder", "shoulder", "gripper"]),
    "joint_names empty": put("joint_names", value=["shoulder", "", "gripper"]),
    "action_space": put("action_space", value=[1]),
    "action_space.type": put("action_space", "type", value="spiral"),
    "dim": put("action_space", "dim", value=0),
    "dim too many": put("action_space", "dim", value=33),
    "dim a float": put("action_space", "dim", value=3.0),
    "dim true": put("action_space", "dim", value=True),
    "action_space.ranges": put("action_space", "ranges", value=[[-1, 1], [1], [0, 1]]),
    "action_space.ranges words": put("action_space", "ranges", value=[["a", "b"], [1, 2], [0, 1]]),
    "velocity_max": put("velocity_max", value=[1, 1]),
    "velocity_max zero": put("velocity_max", value=[1, 1, 0]),
    "normalization": without("normalization"),
    "mean_action": put("normalization", "mean_action", value=[0, 0, float("nan")]),
    "std_action": put("normalization", "std_action", value=[0.5, 0.0, 0.5]),
    "std_state": put("normalization", "std_state", value=[0.5, 101]),
    "mean_state": without("normalization", "mean_state"),
    "component_idx": put("gripper", "component_idx", value=-1),
    "close_threshold": put("gripper", "close_threshold", value=1.5),
    "inverted": put("gripper", "inverted", value="no"),
    "trigger_threshold": put("payload_release", value={"component_idx": 0, "trigger_threshold": 2}),
    "cameras": put("cameras", value=[]),
    "cameras nine": put("cameras", value=[{}] * 9),
    "name": put("cameras", 0, "name", value=""),
    "resolution": put("cameras", 0, "resolution", value=[640]),
    "resolution tiny": put("cameras", 0, "resolution", value=[640, 16]),
    "fps": put("cameras", 0, "fps", value=0),
    "fps fast": put("cameras", 0, "fps", value=241),
    "color_space": put("cameras", 0, "color_space", value="yuv"),
    "frequency_hz": put("control", "frequency_hz", value=0),
    "frequency_hz fast": put("control", "frequency_hz", value=1001),
    "chunk_size": put("control", "chunk_size", value=201),
    "rtc_execution_horizon": put("control", "rtc_execution_horizon", value=-1),
    "constraints": without("constraints"),
    "max_ee_velocity": put("constraints", "max_ee_velocity", value=0),
    "collision_check": put("constraints", "collision_check", value=1),
    "velocity_limit": put("velocity_limit", value=1),
    "colour": put("cameras", 0, "colour", value="red"),
}


@pytest.mark.parametrize("name", list(VIOLATIONS))
def test_a_file_that_breaks_the_schema_is_refused_with_file_key_and_value(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, VIOLATIONS[name])
    with pytest.raises(EmbodimentError) as caught:
        load_embodiment(path)
    sentence = str(caught.value)
    assert caught.value.slug == "schema-violation"
    assert sentence.startswith(f"{path}: ")
    assert name.split(maxsplit=1)[0] in sentence
    assert "must be" in sentence
    assert "\n" not in sentence


def test_a_missing_file_is_named() -> None:
    with pytest.raises(EmbodimentError, match=r"/nowhere/robot\.json: No such file") as caught:
        load_embodiment(Path("/nowhere/robot.json"))
    assert caught.value.slug == "embodiment-missing"


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"franka"', "\udcff"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "robot.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(EmbodimentError, match=str(path)):
        load_embodiment(path)


def test_a_fraction_of_the_chunk_is_migrated_to_actions(tmp_path: Path) -> None:
    path = written(tmp_path, put("control", "rtc_execution_horizon", value=0.5))
    assert load_embodiment(path).execution_horizon == 25


def test_the_smallest_fraction_is_one_action(tmp_path: Path) -> None:
    path = written(tmp_path, put("control", "rtc_execution_horizon", value=0.001))
    assert load_embodiment(path).execution_horizon == 1


@pytest.mark.parametrize(
    ("said", "used", "slug"), [(0, 1, "rtc-horizon-too-short"), (51, 50, "rtc-horizon-exceeds-chunk")]
)
def test_a_horizon_that_no_chunk_can_serve_is_corrected_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, said: int, used: int, slug: str
) -> None:
    path = written(tmp_path, put("control", "rtc_execution_horizon", value=said))
    assert load_embodiment(path).execution_horizon == used
    assert slug in caplog.text
    assert str(path) in caplog.text


def test_a_good_file_warns_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_embodiment(written(tmp_path))
    assert caplog.text == ""


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_that_comes_along_is_valid(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert load_preset(name).name == name
    assert caplog.text == ""


def test_the_franka_preset_has_the_published_limits_of_the_panda() -> None:
    franka = load_preset("franka")
    assert franka.joint_names == tuple(f"panda_joint{number}" for number in range(1, 8))
    assert franka.action_min.tolist() == PANDA_MIN
    assert franka.action_max.tolist() == PANDA_MAX
    assert franka.velocity_max is not None
    assert franka.velocity_max.tolist() == PANDA_VELOCITY
    assert (franka.frequency_hz, franka.chunk_size) == (20.0, 50)


def test_the_placeholder_mean_of_a_preset_is_inside_its_ranges() -> None:
    for name in preset_names():
        robot = load_preset(name)
        inside = (robot.action_min <= robot.action_statistics.mean) & (
            robot.action_statistics.mean <= robot.action_max
        )
        assert inside.all(), name


@pytest.mark.parametrize("name", ["frnka", "", "../franka", "/etc/passwd"])
def test_an_unknown_preset_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(EmbodimentError, match="there are .*franka") as caught:
        load_preset(name)
    assert caught.value.slug == "unknown-preset"


def test_presets_are_found_where_the_package_is_installed() -> None:
    assert (share() / "config" / "embodiments" / "franka.json").is_file()


def test_numbers_are_float64() -> None:
    franka = load_preset("franka")
    assert {franka.action_min.dtype, franka.action_max.dtype} == {np.dtype(np.float64)}
