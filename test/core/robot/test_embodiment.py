# SPDX-License-Identifier: Apache-2.0
"""Embodiment files: what is read, and the one sentence with which each contradiction is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reflex_core.errors import EmbodimentError
from reflex_core.files.share import share
from reflex_core.robot.embodiment import TwoEnded
from reflex_core.robot.embodiment_file import COLOR_SPACES, KEYS, NAMES
from reflex_core.robot.presets import load_embodiment

Change = Callable[[dict[str, Any]], object]


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


EDGES: list[Change] = [
    put("normalization", "std_state", value=[100, 1e-9]),
    put("control", "frequency_hz", value=1000),
    put("control", "frequency_hz", value=1e-6),
    put("control", "chunk_size", value=200),
    put("constraints", "max_ee_velocity", value=50),
    put("constraints", "max_gripper_velocity", value=10),
    put("cameras", 0, "fps", value=240),
    put("cameras", 0, "resolution", value=[32, 4096]),
    put("gripper", "close_threshold", value=0),
    put("gripper", "close_threshold", value=1),
    put("gripper", "component_idx", value=0),
    put("action_space", "type", value="discrete"),
    put("cameras", value=[dict(document()["cameras"][0], name=str(number)) for number in range(8)]),
]


@pytest.mark.parametrize("change", EDGES)
def test_the_bounds_themselves_are_allowed(tmp_path: Path, change: Change) -> None:
    load_embodiment(written(tmp_path, change))


def test_what_the_gripper_and_the_limits_say_is_read(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["acceleration_max"] = [3, None, 4.5]
        content["gripper"] = {"component_idx": 2, "close_threshold": 0.25, "inverted": True}
        content["payload_release"] = {"component_idx": 1, "trigger_threshold": 0.75}

    robot = load_embodiment(written(tmp_path, change))
    assert robot.acceleration_max is not None
    assert robot.acceleration_max.tolist() == [3, float("inf"), 4.5]
    assert robot.gripper == TwoEnded(2, 0.25, inverted=True)
    assert robot.payload_release == TwoEnded(1, 0.75)
    assert (robot.max_ee_velocity, robot.max_gripper_velocity) == (1.0, 1.0)
    continuous = load_embodiment(written(tmp_path, without("gripper", "close_threshold")))
    assert continuous.gripper == TwoEnded(2, None)


@pytest.mark.parametrize(
    ("written_down", "used"), [([1, 2, 0.5], [1, 2, 0.5]), ([1, 2, 3], [1, 2, 1]), ([1, 2, None], [1, 2, 1])]
)
def test_the_gripper_is_never_faster_than_its_cap(
    tmp_path: Path, written_down: list[Any], used: list[float]
) -> None:
    robot = load_embodiment(written(tmp_path, put("velocity_max", value=written_down)))
    assert robot.velocity_max is not None
    assert robot.velocity_max.tolist() == used


def test_the_cap_of_the_gripper_holds_where_no_joint_has_a_limit(tmp_path: Path) -> None:
    robot = load_embodiment(written(tmp_path, without("velocity_max")))
    assert robot.velocity_max is not None
    assert robot.velocity_max.tolist() == [np.inf, np.inf, 1.0]


def test_the_schema_for_editors_knows_the_same_keys() -> None:
    schema = json.loads((share() / "config" / "embodiment.schema.json").read_text(encoding="utf-8"))
    properties = schema["properties"]
    blocks = {key: properties[key] for key in KEYS if key in properties} | {
        "document": schema,
        "cameras[]": properties["cameras"]["items"],
    }
    for key, known in KEYS.items():
        assert set(blocks[key]["properties"]) == set(known.split()), key
        assert blocks[key]["additionalProperties"] is False, key
    assert tuple(schema["then"]["properties"]["embodiment"]["enum"]) == NAMES
    assert tuple(blocks["cameras[]"]["properties"]["color_space"]["enum"]) == COLOR_SPACES


CONTRADICTIONS: dict[str, list[Change]] = {
    "action-ranges-length-mismatch": [
        put("action_space", "dim", value=4),
        put("action_space", "ranges", value=[[-1, 1]]),
        put("action_space", "ranges", value=None),
    ],
    "action-range-inverted": [
        put("action_space", "ranges", 1, value=[2, -2]),
        put("action_space", "ranges", 1, value=[2, 2]),
        put("action_space", "ranges", 1, value=[0, 1e-320]),
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
    "action_space.ranges[1] in degrees": put("action_space", "ranges", 1, value=[-166, 166]),
    "action_space.ranges[2] in percent": put("action_space", "ranges", 2, value=[0, 100]),
    "velocity_max in degrees": put("velocity_max", value=[180, 180, 1]),
    "velocity_max that is next to nothing": put("velocity_max", value=[1, 1e-320, 1]),
    "acceleration_max that is next to nothing": put("acceleration_max", value=[1, None, 1e-320]),
    "max_gripper_velocity that is next to nothing": put("constraints", "max_gripper_velocity", value=1e-320),
    "frequency_hz that is next to nothing": put("control", "frequency_hz", value=1e-320),
    "std_action that is nothing": put("normalization", "std_action", value=[0.5, 1e-320, 0.5]),
    "std_state that is next to nothing": put("normalization", "std_state", value=[1e-12, 1]),
    "schema_version": put("schema_version", value=3),
    "schema_version of groups": put("groups", value=[]),
    "schema_version true": put("schema_version", value=True),
    "embodiment": put("embodiment", value=""),
    "embodiment unknown": put("embodiment", value="panda"),
    "notes": put("notes", value=["a"]),
    "sources": put("sources", value="a"),
    "acceleration_max": put("acceleration_max", value=[1, None, -1]),
    "velocity_max text": put("velocity_max", value="fast"),
    "mean_action texts": put("normalization", "mean_action", value=["0", "0", "0"]),
    "mean_action huge": put("normalization", "mean_action", value=[0, 0, 10**400]),
    "mean_state true": put("normalization", "mean_state", value=[True, False]),
    "std_action 101": put("normalization", "std_action", value=[0.5, 0.5, 101]),
    "std_state zero": put("normalization", "std_state", value=[0.5, 0]),
    "action_space.ranges texts": put("action_space", "ranges", value=[["-1", "1"], [-2, 2], [0, 1]]),
    "gripper": put("gripper", value=2),
    "component_idx missing": without("gripper", "component_idx"),
    "component_idx of a payload": put("payload_release", value={"component_idx": 0.5}),
    "payload_release": put("payload_release", value={"component_idx": 0, "inverted": True}),
    "cameras[] text": put("cameras", value=["wrist"]),
    "resolution huge": put("cameras", 0, "resolution", value=[4097, 480]),
    "resolution true": put("cameras", 0, "resolution", value=[True, 480]),
    "control": put("control", value=[]),
    "chunk_size none": put("control", "chunk_size", value=0),
    "rtc_execution_horizon far": put("control", "rtc_execution_horizon", value=1001),
    "max_ee_velocity fast": put("constraints", "max_ee_velocity", value=50.1),
    "max_gripper_velocity": put("constraints", "max_gripper_velocity", value=0),
    "max_gripper_velocity fast": put("constraints", "max_gripper_velocity", value=10.5),
    "joint_names": put("joint_names", value=["shoulder", "elbow"]),
    "joint_names twice": put("joint_names", value=["shoulder", "shoulder", "gripper"]),
    "joint_names of two lines": put("joint_names", value=["shoulder", "x\n[ERROR] fake", "gripper"]),
    "joint_names that look alike": put("joint_names", value=["shoulder", "shoulder ", "gripper"]),
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
    ("horizon_s", "used", "slug"),
    [
        (0, 1, "rtc-horizon-too-short"),
        (51, 50, "rtc-horizon-exceeds-chunk"),
        (0.5, 25, "rtc-horizon-fraction"),
        (2.5, 2, "rtc-horizon-fraction"),
    ],
)
def test_a_horizon_that_no_chunk_can_serve_is_corrected_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, horizon_s: float, used: int, slug: str
) -> None:
    path = written(tmp_path, put("control", "rtc_execution_horizon", value=horizon_s))
    assert load_embodiment(path).execution_horizon == used
    assert slug in caplog.text
    assert str(path) in caplog.text


def test_a_good_file_warns_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_embodiment(written(tmp_path))
    assert caplog.text == ""
