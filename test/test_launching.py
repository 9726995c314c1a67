# SPDX-License-Identifier: Apache-2.0
"""What the launch files decide."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from launch_double import launch_modules

from reflex_core.errors import SettingError
from reflex_core.locations import share
from reflex_core.settings import TABLE
from reflex_ros import launching
from reflex_ros.demo.scene import make_scene

LAUNCH = Path(__file__).parents[1] / "launch"


def test_every_setting_is_a_launch_argument_with_its_help() -> None:
    assert [name for name, _ in launching.arguments()] == [row.name for row in TABLE]
    assert all(row.help in text for row, (_, text) in zip(TABLE, launching.arguments(), strict=True))


def test_arguments_become_typed_parameters_and_empty_ones_are_left_alone() -> None:
    texts = {
        "port": "9000",
        "max_age_ms": "250",
        "http": "false",
        "joint_names": "a, b c",
        "robot_id": "r7",
        "host": "",
    }
    assert launching.parameters(texts) == {
        "port": 9000,
        "max_age_ms": 250.0,
        "http": False,
        "joint_names": ("a", "b", "c"),
        "robot_id": "r7",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [("port", "ninety"), ("port", "70000"), ("http", "maybe"), ("device", "tpu"), ("seed", "1.5")],
)
def test_a_wrong_argument_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=name):
        launching.parameters({name: text})


def test_processes_get_the_shared_memory_profile_unless_the_user_has_one() -> None:
    added = launching.environment({})
    assert added["FASTRTPS_DEFAULT_PROFILES_FILE"] == str(share() / "config" / "fastdds_shm.xml")
    assert Path(added["FASTRTPS_DEFAULT_PROFILES_FILE"]).is_file()
    own = {"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml", "MALLOC_TRIM_THRESHOLD_": "1"}
    assert launching.environment(own) == {"MALLOC_MMAP_THRESHOLD_": "67108864"}


def test_launch_files_are_valid_python() -> None:
    for path in LAUNCH.glob("*.launch.py"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")


def described(name: str) -> Any:
    """The launch description of a file; the doubles stand in where there is no ROS install."""
    spec = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.launch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with launch_modules():
        spec.loader.exec_module(module)
        return module.generate_launch_description()


@pytest.mark.parametrize("name", ["serve", "demo"])
def test_a_launch_file_describes_its_processes(name: str) -> None:
    assert described(name).entities


def test_serve_takes_every_setting_and_gives_the_node_those_that_were_written() -> None:
    entities = described("serve").entities
    defaults = {entity.name: entity.default_value for entity in entities if entity.kind == "argument"}
    assert {row.name for row in TABLE} < set(defaults)
    [function] = [entity.function for entity in entities if entity.kind == "function"]
    [node] = function(defaults | {"deadline_ms": "33", "adaptive_steps": "true", "namespace": "/left"})
    assert (node.executable, node.namespace) == ("serve", "/left")
    assert node.parameters == [{"use_sim_time": False, "deadline_ms": 33.0, "adaptive_steps": True}]
    assert node.remappings == []


def test_serve_wires_a_robot_without_a_launch_file_of_its_own() -> None:
    entities = described("serve").entities
    defaults = {entity.name: entity.default_value for entity in entities if entity.kind == "argument"}
    assert {name for name, _, _ in launching.OWN_ARGUMENTS} < set(defaults)
    [function] = [entity.function for entity in entities if entity.kind == "function"]
    given = {"trajectory": "/arm/joint_trajectory", "remap": "camera/image_raw:=/wrist/color"}
    [node] = function(defaults | given | {"params_file": "arm.yaml"})
    assert node.parameters[0] == "arm.yaml"
    assert node.remappings == [
        ("~/joint_trajectory", "/arm/joint_trajectory"),
        ("camera/image_raw", "/wrist/color"),
    ]


def test_rules_are_parted_by_blanks_or_commas() -> None:
    wanted = [("a/image_raw", "/b"), ("joint_states", "/arm/joint_states"), ("instruction", "~/words")]
    for parted in (" ", ", ", ","):
        assert launching.remappings("", parted.join(f"{name}:={target}" for name, target in wanted)) == wanted
    assert launching.remappings("", "") == []


@pytest.mark.parametrize(
    ("trajectory", "remap", "says"),
    [
        ("", "camera", "got '' in 'camera:='"),
        ("", "camera:=", "got ''"),
        ("", ":=/wrist", "got ''"),
        ("", "camera:=/wrist:=/color", "got '/wrist:=/color'"),
        ("", "camera:=/wrist-color", "got '/wrist-color'"),
        ("", "__node:=other", "got '__node'"),
        ("/arm/joint trajectory", "", "'trajectory' a topic"),
        ("", "camera:=/a camera:=/b", "name a topic twice: camera"),
        ("/a", "~/joint_trajectory:=/b", "name a topic twice: ~/joint_trajectory"),
    ],
)
def test_a_wrong_rule_is_refused(trajectory: str, remap: str, says: str) -> None:
    with pytest.raises(SettingError) as refused:
        launching.remappings(trajectory, remap)
    assert says in str(refused.value)


def test_demo_starts_robot_and_node_with_the_scene_and_its_instruction() -> None:
    entities = described("demo").entities
    defaults = {entity.name: entity.default_value for entity in entities if entity.kind == "argument"}
    [function] = [entity.function for entity in entities if entity.kind == "function"]
    robot, node = function(defaults | {"scene_seed": "7"})
    assert robot.parameters == [{"scene_seed": 7, "pictures_dir": ""}]
    assert node.parameters[0]["instruction"] == make_scene(7).instruction
    assert node.remappings == [("~/joint_trajectory", "joint_trajectory")]
