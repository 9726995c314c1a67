# SPDX-License-Identifier: Apache-2.0
"""What the launch files decide."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch_double import LAUNCH, Context, described

from reflex_core.errors import SettingError
from reflex_core.files.share import share
from reflex_core.settings.table import TABLE
from reflex_ros import launch_args
from reflex_ros.demo.pick_scene import make_pick_scene


def test_every_setting_is_a_launch_argument_with_its_help() -> None:
    own = [name for name, _, _ in launch_args.OWN_ARGUMENTS]  # log_level is handed to rcl
    rows = [row for row in TABLE if row.name not in own]
    assert [name for name, _ in launch_args.arguments()] == [row.name for row in rows]
    assert all(row.help in text for row, (_, text) in zip(rows, launch_args.arguments(), strict=True))


def test_arguments_become_typed_parameters_and_empty_ones_are_left_alone() -> None:
    texts = {
        "port": "9000",
        "max_age_ms": "250",
        "http": "false",
        "joint_names": "a, b c",
        "robot_id": "r7",
        "host": "",
    }
    assert launch_args.parameters(texts) == {
        "port": 9000,
        "max_age_ms": 250.0,
        "http": False,
        "joint_names": ("a", "b", "c"),
        "robot_id": "r7",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "ninety"),
        ("port", "70000"),
        ("http", "maybe"),
        ("device", "tpu"),
        ("seed", "1.5"),
        ("deadline_ms", "nan"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=name):
        launch_args.parameters({name: text})


def test_processes_get_the_shared_memory_profile_unless_the_user_has_one() -> None:
    added = launch_args.environment({})
    assert added["FASTRTPS_DEFAULT_PROFILES_FILE"] == str(share() / "config" / "fastdds_shm.xml")
    assert Path(added["FASTRTPS_DEFAULT_PROFILES_FILE"]).is_file()
    own = {"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml", "MALLOC_TRIM_THRESHOLD_": "1"}
    assert launch_args.environment(own) == {"MALLOC_MMAP_THRESHOLD_": "67108864"}


def test_launch_files_are_valid_python() -> None:
    for path in LAUNCH.glob("*.launch.py"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")


@pytest.mark.parametrize("name", ["serve", "demo"])
def test_a_launch_file_describes_its_processes(name: str) -> None:
    assert described(name).entities


def test_serve_takes_every_setting_and_gives_the_node_those_that_were_written() -> None:
    entities = described("serve").entities
    defaults = {entity.name: entity.default_value for entity in entities if entity.kind == "argument"}
    assert {row.name for row in TABLE} < set(defaults)
    [function] = [entity.function for entity in entities if entity.kind == "function"]
    [node] = function(
        Context(
            launch_configurations=defaults
            | {"deadline_ms": "33", "adaptive_steps": "true", "namespace": "/left"}
        )
    )
    assert (node.executable, node.namespace) == ("serve", "/left")
    assert node.parameters == [{"deadline_ms": 33.0, "adaptive_steps": True}]
    assert node.remappings == []


def test_serve_wires_a_robot_without_a_launch_file_of_its_own(tmp_path: Path) -> None:
    entities = described("serve").entities
    defaults = {entity.name: entity.default_value for entity in entities if entity.kind == "argument"}
    assert {name for name, _, _ in launch_args.OWN_ARGUMENTS} < set(defaults)
    [function] = [entity.function for entity in entities if entity.kind == "function"]
    file = tmp_path / "arm.yaml"
    file.write_text("/**:\n  ros__parameters:\n    deadline_ms: 33\n")
    given = {"trajectory": "/arm/joint_trajectory", "remap": "camera/image_raw:=/wrist/color"}
    [node] = function(Context(launch_configurations=defaults | given | {"params_file": str(file)}))
    assert node.parameters[0] == str(file)
    assert node.remappings == [
        ("~/joint_trajectory", "/arm/joint_trajectory"),
        ("camera/image_raw", "/wrist/color"),
    ]


def test_rules_are_parted_by_blanks_or_commas() -> None:
    wanted = [("a/image_raw", "/b"), ("joint_states", "/arm/joint_states"), ("instruction", "~/words")]
    for parted in (" ", ", ", ","):
        assert (
            launch_args.remappings("", parted.join(f"{name}:={target}" for name, target in wanted)) == wanted
        )
    assert launch_args.remappings("", "") == []


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
        launch_args.remappings(trajectory, remap)
    assert says in str(refused.value)


def serve_plan(**texts: str) -> launch_args.Plan:
    """What serve.launch.py makes of its arguments; those that are not given are as it declares them."""
    defaults = {row.name: "" for row in TABLE} | {name: value for name, value, _ in launch_args.OWN_ARGUMENTS}
    return launch_args.plan(
        defaults | texts, ["/opt/ros/bin/ros2", "launch", "reflex_ros", "serve.launch.py", *given(texts)]
    )


def given(texts: dict[str, str]) -> list[str]:
    return [f"{name}:={value}" for name, value in texts.items()]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("embodimnt", "no such launch argument 'embodimnt'; did you mean embodiment?"),
        ("params_flie", "did you mean params_file?"),
        ("trajectori", "did you mean trajectory?"),
        ("qwxz", "no such launch argument 'qwxz'"),
    ],
)
def test_a_launch_argument_that_there_is_not_is_refused(name: str, says: str) -> None:
    with pytest.raises(SettingError) as refused:
        serve_plan(**{name: "franka"})
    assert says in str(refused.value)


def test_arguments_of_a_launch_file_that_includes_ours_are_its_own(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    defaults = {row.name: "" for row in TABLE} | {name: value for name, value, _ in launch_args.OWN_ARGUMENTS}
    above = {"robot_ip": "10.0.0.1", "embodimnt": "franka", "ros_namespace": "/left"}
    called = ["ros2", "launch", "cell", "bringup.launch.py", "robot_ip:=10.0.0.1"]
    assert launch_args.plan(defaults | above, called).parameters == []
    assert "'embodimnt' is not one of serve.launch.py; did you mean embodiment?" in caplog.text
    file = tmp_path / "left.yaml"
    file.write_text("/left/reflex: {ros__parameters: {deadline_ms: 33}}\n")
    assert launch_args.plan(defaults | above | {"params_file": str(file)}, called).parameters == [str(file)]
    prefix = ["ros2", "launch", "--launch-prefix", "gdb", "reflex_ros", "serve.launch.py"]
    assert launch_args.plan(defaults | {"launch-prefix": "gdb"}, prefix).parameters == []


@pytest.mark.parametrize("word", ["1", "yes", "on", "True", "true"])
def test_on_is_written_in_many_ways(word: str) -> None:
    found = serve_plan(use_sim_time=word, respawn=word, adaptive_steps=word)
    assert (found.parameters, found.respawn) == ([{"use_sim_time": True, "adaptive_steps": True}], True)


@pytest.mark.parametrize("word", ["0", "no", "off", "False"])
def test_off_is_written_in_many_ways(word: str) -> None:
    found = serve_plan(use_sim_time=word, respawn=word, http=word)
    assert (found.parameters, found.respawn) == ([{"use_sim_time": False, "http": False}], False)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("use_sim_time", "maybe", "launch argument 'use_sim_time' takes true or false, got 'maybe'"),
        ("respawn", "2", "launch argument 'respawn' takes true or false, got '2'"),
        ("http", "ja", "setting 'http' takes true or false"),
        ("log_level", "loud", "'log_level' takes one of debug, info"),
        ("namespace", "robot 1", "'namespace' takes letters"),
        ("joint_names", "[1, 2]", "'joint_names' takes a list of names"),
        ("params_file", "/nope.yaml", "/nope.yaml: No such file or directory"),
    ],
)
def test_a_launch_argument_of_another_kind_is_refused(name: str, value: str, says: str) -> None:
    with pytest.raises(SettingError) as refused:
        serve_plan(**{name: value})
    assert says in str(refused.value)


@pytest.mark.parametrize("text", ["[r1, r2]", "r1,r2", "r1 r2", "['r1', 'r2']"])
def test_names_are_a_list_however_they_are_written(text: str) -> None:
    assert serve_plan(joint_names=text).parameters == [{"joint_names": ["r1", "r2"]}]


def test_an_empty_list_takes_the_names_of_the_parameter_file_away() -> None:
    """launch_ros knows no list without items; an empty name is no name."""
    assert serve_plan(joint_names="[]").parameters == [{"joint_names": [""]}]


def test_what_the_parameter_file_says_of_simulated_time_counts(tmp_path: Path) -> None:
    file = tmp_path / "sim.yaml"
    file.write_text("/**: {ros__parameters: {use_sim_time: true}}\n")
    assert serve_plan(params_file=str(file)).parameters == [str(file)]


def test_a_parameter_file_is_read_for_the_node_that_is_launched(tmp_path: Path) -> None:
    file = tmp_path / "arm.yaml"
    file.write_text("reflex:\n  ros__parameters:\n    deadline_ms: 33\n")
    assert serve_plan(params_file=str(file)).parameters == [str(file)]
    for namespace in ("robot1", "/robot1", "/robot1/"):
        with pytest.raises(SettingError, match="nothing is for the node /robot1/reflex"):
            serve_plan(params_file=str(file), namespace=namespace)
    file.write_text("/robot1/reflex:\n  ros__parameters:\n    deadlin_ms: 33\n")
    with pytest.raises(SettingError, match="did you mean deadline_ms"):
        serve_plan(params_file=str(file), namespace="robot1")


def test_the_file_that_is_shipped_is_for_every_name_and_namespace() -> None:
    file = str(share() / "config" / "serve.yaml")
    assert serve_plan(params_file=file, namespace="robot1").parameters == [file]


def test_demo_refuses_an_argument_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    entities = described("demo").entities
    defaults = {entity.name: entity.default_value for entity in entities if entity.kind == "argument"}
    [function] = [entity.function for entity in entities if entity.kind == "function"]
    monkeypatch.setattr("sys.argv", ["ros2", "launch", "reflex_ros", "demo.launch.py", "scene_sed:=7"])
    with pytest.raises(SettingError, match="did you mean scene_seed"):
        function(Context(launch_configurations=defaults | {"scene_sed": "7"}))


def test_demo_starts_robot_and_node_with_the_scene_and_its_instruction() -> None:
    entities = described("demo").entities
    defaults = {entity.name: entity.default_value for entity in entities if entity.kind == "argument"}
    [function] = [entity.function for entity in entities if entity.kind == "function"]
    robot, node = function(Context(launch_configurations=defaults | {"scene_seed": "7"}))
    assert robot.parameters == [{"scene_seed": 7, "pictures_dir": ""}]
    assert robot.arguments == ["--task", "pick"]
    assert node.parameters[0]["instruction"] == make_pick_scene(7).instruction
    assert node.remappings == [("~/joint_trajectory", "joint_trajectory")]
