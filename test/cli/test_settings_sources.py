# SPDX-License-Identifier: Apache-2.0
"""Settings from every source: who wins, what is refused, what belongs to ROS; the same for `serve` and `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reflex_core.errors import SettingError
from reflex_ros.cli.serve import unused
from reflex_ros.console.ros_args import ROS_ARGS
from reflex_ros.settings_sources import given

HEAD = "/**:\n  ros__parameters:\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "robot.yaml"


def settings_of(*words: str, **options: Any) -> Any:
    return given(options, [ROS_ARGS, *words])


def refusal(*words: str, config: str | None = None) -> str:
    with pytest.raises(SettingError) as refused:
        given({}, [ROS_ARGS, *words], config)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_the_later_source_wins_and_options_win_over_all(tmp_path: Path) -> None:
    first, second, config = (tmp_path / name for name in ("a.yaml", "b.yaml", "c.yaml"))
    config.write_text("robot_id: config\nport: 1\nhost: 127.0.0.2\nmax_age_ms: 1\nmax_skew_ms: 1\n")
    first.write_text(HEAD + "    robot_id: a\n    port: 2\n    max_age_ms: 2\n    max_skew_ms: 2\n")
    second.write_text(HEAD + "    robot_id: b\n    max_age_ms: 3\n")
    ros = [ROS_ARGS, "--params-file", str(first), "-p", "max_age_ms:=4", "--params-file", str(second)]
    found = given({"robot_id": "option"}, ros, str(config))
    settings = found.settings
    assert (settings.robot_id, settings.max_age_ms, settings.port, settings.host) == (
        "option",
        3.0,
        2,
        "127.0.0.2",
    )
    assert set(found.written) == {"robot_id", "port", "host", "max_age_ms", "max_skew_ms"}


@pytest.mark.parametrize(
    ("words", "node"),
    [
        ([], "/reflex"),
        (["-r", "__node:=arm"], "/arm"),
        (["--remap", "__ns:=/robot1"], "/robot1/reflex"),
        (["-r", "reflex:__ns:=/left", "-r", "reflex:__node:=pi"], "/left/pi"),
        (["-r", "other:__ns:=/left"], "/reflex"),
        (["-r", "__ns:=/first", "-r", "__ns:=/second"], "/first/reflex"),
        (["-r", "__ns:=/"], "/reflex"),
    ],
)
def test_the_node_has_the_name_that_ros_will_give_it(words: list[str], node: str, file: Path) -> None:
    file.write_text(f"{node}:\n  ros__parameters:\n    deadline_ms: 33\n")
    found = settings_of(*words, "--params-file", str(file))
    assert (found.node, found.settings.deadline_ms) == (node, 33.0)
    file.write_text("/nobody: {ros__parameters: {deadline_ms: 33}}\n")
    assert f"nothing is for the node {node}: its sections are for /nobody" in refusal(
        *words, "--params-file", str(file)
    )


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("safety_confg: x.json", "no such setting 'safety_confg'; did you mean safety_config?"),
        ("embodyment: franka", "no such setting 'embodyment'; did you mean embodiment?"),
        ("deadline: 33", "no such setting 'deadline'; did you mean deadline_ms?"),
        ("time: {deadline_ms: 33}", "no such setting 'time.deadline_ms'; did you mean deadline_ms?"),
        ("use_sim_tim: true", "no such setting 'use_sim_tim'"),
        ("qos_override: {a: 1}", "no such setting 'qos_override.a'"),
        ("deadline_ms: '33'", "setting 'deadline_ms' takes a number, got '33'"),
        ("deadline_ms: true", "setting 'deadline_ms' takes a number, got True"),
        ("deadline_ms: -1", "setting 'deadline_ms' takes 0 to 60000, got -1.0"),
        ("deadline_ms: .nan", "setting 'deadline_ms' takes 0 to 60000, got nan"),
        ("port: 80.5", "setting 'port' takes a whole number, got 80.5"),
        ("http: 1", "setting 'http' takes true or false, got 1"),
        ("http: 'on'", "setting 'http' takes true or false, got 'on'"),
        ("robot_id: 7", "setting 'robot_id' takes text, got 7: write it in quotes"),
        ("safety_config:", "setting 'safety_config' takes text, got nothing"),
        ("device: gpu", "setting 'device' takes one of auto, cpu, cuda, tensorrt, got 'gpu'"),
        ("slo_mode: degrad", "did you mean degrade?"),
        ("joint_names: [1, 2]", "setting 'joint_names' takes a list of names such as [a, b], got [1, 2]"),
        ("joint_names: [a, 2]", "got ['a', 2]"),
        ("joint_names: a", "got 'a'"),
        ("use_sim_time: 1", "parameter 'use_sim_time' takes true or false, got 1"),
    ],
)  # fmt: skip
def test_what_no_setting_can_be_is_refused_in_every_file(file: Path, written: str, says: str) -> None:
    file.write_text(f"{HEAD}    {written}\n")
    for words, config in ((["--params-file", str(file)], None), ([], str(file))):
        message = refusal(*words, config=config)
        assert says in message
        assert str(file) in message


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["-p", "deadlin_ms:=33.0"],
            "-p deadlin_ms:=33.0: no such setting 'deadlin_ms'; did you mean deadline_ms?",
        ),
        (["-p", "deadline_ms=33"], "-p takes name:=value, got 'deadline_ms=33'"),
        (["-p", "deadline_ms:=fast"], "setting 'deadline_ms' takes a number, got 'fast'"),
        (["-p", "joint_names:=[a"], "is no YAML"),
        (["-p", "instruction:=reach: the block"], "setting 'instruction' takes text"),
        (["-p", "arm:deadline_ms:=33"], "is for the node arm, and this is /reflex"),
        (["--param"], "needs a value"),
        (["--params-file"], "needs a value"),
        (["--params-file", "/nope.yaml"], "/nope.yaml: No such file or directory"),
    ],
)
def test_a_parameter_behind_ros_args_that_is_none_is_refused(words: list[str], says: str) -> None:
    assert says in refusal(*words)


def test_a_file_of_settings_may_have_sections_and_needs_one_for_this_node(file: Path) -> None:
    file.write_text("reflex: {ros__parameters: {deadline_ms: 33}}\n")
    assert given({}, [], str(file)).settings.deadline_ms == 33.0
    assert "nothing is for the node /left/reflex" in refusal("-r", "__ns:=/left", config=str(file))
    assert "Is a directory" in refusal(config="")


def test_near_kinds_are_understood(file: Path) -> None:
    file.write_text(
        HEAD
        + "    deadline_ms: 33\n    max_age_ms: 300\n    port: 8000.0\n    slo_mode: 503\n    joint_names: [r1, r2]\n"
        "    providers: []\n    http: off\n"
    )
    settings = settings_of(
        "--params-file", str(file), "-p", "margin_ms:=1e2", "-p", "reflex:split:=50"
    ).settings
    assert (settings.deadline_ms, settings.max_age_ms, settings.port, settings.slo_mode) == (
        33.0,
        300.0,
        8000,
        "503",
    )
    assert (settings.joint_names, settings.providers, settings.http) == (("r1", "r2"), (), False)
    assert (settings.margin_ms, settings.split) == (100.0, 50)


@pytest.mark.parametrize(
    ("text", "names"),
    [("[a,b]", ("a", "b")), ("[]", ()), ("['']", ()), ("~", ()), ("[ 'a' , b ]", ("a", "b"))],
)
def test_lists_behind_p_are_lists(text: str, names: tuple[str, ...]) -> None:
    assert settings_of("-p", f"joint_names:={text}").settings.joint_names == names


def test_what_ros_declares_itself_goes_to_ros_and_the_rest_of_its_arguments_too(file: Path) -> None:
    file.write_text(
        HEAD + "    use_sim_time: true\n    start_type_description_service: false\n"
        "    qos_overrides: {/camera/image_raw: {subscription: {depth: 5}}}\n"
    )
    found = settings_of("-r", "a:=/b", "--params-file", str(file), "--log-level", "debug", "-p", "port:=0")
    assert found.ros_parameters == {
        "use_sim_time": True,
        "start_type_description_service": False,
        "qos_overrides./camera/image_raw.subscription.depth": 5,
    }
    assert found.ros_args == (ROS_ARGS, "-r", "a:=/b", "--log-level", "debug")
    assert found.written == {"port": 0}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--param-file", "a.yaml"], "--param-file is no option of ROS, and what follows --ros-args is for ROS; did you mean --params-file?"),
        (["--params-file=a.yaml"], "did you mean --params-file?"),
        (["--log-levl", "info"], "did you mean --log-level?"),
        (["--deadline-ms", "33"], "options of this program go before it, or behind --"),
        (["a.yaml"], "a.yaml is no option of ROS"),
        (["x\n[ERROR] fake"], "x\\n[ERROR] fake is no option"),
        (["--log-level"], "--log-level behind --ros-args needs a value, got nothing"),
    ],
)  # fmt: skip
def test_what_is_no_option_of_ros_is_refused_with_what_was_meant(words: list[str], says: str) -> None:
    assert says in refusal(*words)


def test_home_is_expanded_wherever_it_is_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    file.write_text("record: ~/traces\n")
    assert given({}, [], str(file)).settings.record == "/home/ada/traces"
    file.write_text("/**:\n  ros__parameters:\n    record: ~/traces\n")
    assert settings_of("--params-file", str(file)).settings.record == "/home/ada/traces"
    assert settings_of("-p", "record:=~/traces").settings.record == "/home/ada/traces"
    assert settings_of(record="~/traces").written["record"] == "/home/ada/traces"


def test_what_counts_for_nothing_without_ros_is_named_by_itself(file: Path) -> None:
    file.write_text("use_sim_time: true\n")
    assert unused(given({}, [], str(file))) == ["without ROS these parameters are not used: use_sim_time"]
    assert unused(given({}, [ROS_ARGS, "-r", "a:=b"])) == [
        f"what follows {ROS_ARGS} is used for settings alone"
    ]
    assert unused(given({"port": 1}, [ROS_ARGS, "-p", "port:=2"])) == []


def test_options_of_ros_are_left_to_ros() -> None:
    words = [
        "--log-level",
        "reflex:=debug",
        "--disable-rosout-logs",
        "-e",
        "/arm",
        ROS_ARGS,
        "--log-file-name",
        "-x",
    ]
    assert settings_of(*words).ros_args == (ROS_ARGS, *words)
