# SPDX-License-Identifier: Apache-2.0
"""Settings from environment variables: every row has one, which source counts, what is named that sets nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from reflex_core.errors import SettingError
from reflex_core.settings.environment import SECRETS, from_environment, unknown_variables
from reflex_core.settings.row import Setting
from reflex_core.settings.table import TABLE
from reflex_ros.cli.main import main
from reflex_ros.console.ros_args import ROS_ARGS
from reflex_ros.settings_sources import given

Output = pytest.CaptureFixture[str]


def text_of(row: Setting) -> str:
    """A value of the row as a variable has it, another than the default where there is one."""
    if isinstance(row.default, bool):
        return str(not row.default).lower()
    if isinstance(row.default, tuple):
        return "a, b"
    if row.choices:
        return row.choices[-1]
    if isinstance(row.default, str):
        return "/some/where"
    return str(row.maximum if row.maximum is not None else row.default)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_setting_has_a_variable(row: Setting) -> None:
    [(name, value)] = from_environment({row.variable: text_of(row)}).items()
    assert name == row.name
    assert type(value) is type(row.default)
    assert from_environment({row.variable: ""}) == {}
    assert unknown_variables({row.variable: "x"}) == ""


def test_option_before_ros_args_before_variable_before_file_before_default(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text("robot_id: file\nport: 1\nhost: 127.0.0.2\nmax_age_ms: 1\n")
    variables = {"REFLEX_ROBOT_ID": "variable", "REFLEX_PORT": "2", "REFLEX_HOST": "127.0.0.3"}
    found = given({"robot_id": "option"}, [ROS_ARGS, "-p", "port:=3"], str(file), variables)
    settings = found.settings
    assert (settings.robot_id, settings.port, settings.host, settings.max_age_ms) == (
        "option",
        3,
        "127.0.0.3",
        1,
    )
    assert found.sources == {
        "robot_id": "command line",
        "port": f"{ROS_ARGS} -p port:=3",
        "host": "environment REFLEX_HOST",
        "max_age_ms": f"file {file}",
    }


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("REFLEX_PORT", "many", "environment variable REFLEX_PORT: setting 'port' takes a whole number, got 'many'"),
        ("REFLEX_HTTP", "maybe", "environment variable REFLEX_HTTP: setting 'http' takes true or false"),
        ("REFLEX_DEVICE", "gpu", "takes one of auto, cpu, cuda, tensorrt, got 'gpu'"),
    ],
)  # fmt: skip
def test_a_variable_that_cannot_be_is_named(name: str, text: str, says: str) -> None:
    with pytest.raises(SettingError) as refused:
        from_environment({name: text})
    assert says in str(refused.value)


def test_variables_that_set_nothing_are_one_warning_with_what_was_meant() -> None:
    found = unknown_variables(
        {"REFLEX_EMBODYMENT": "x", "REFLEX_ZZZ\n": "", "HOME": "/", "REFLEX_ROS": "jazzy"}
    )
    assert found == (
        "environment variables that set nothing: REFLEX_EMBODYMENT (did you mean REFLEX_EMBODIMENT?), REFLEX_ZZZ\\n"
    )
    assert SECRETS == ("REFLEX_REMOTE_API_KEY", "REFLEX_CLOUD_API_KEY", "REFLEX_API_KEY")
    assert unknown_variables(dict.fromkeys(SECRETS, "x")) == ""


def test_what_kubernetes_says_of_a_service_called_reflex_is_no_setting() -> None:
    of_service = {
        "REFLEX_SERVICE_HOST": "10.0.0.7", "REFLEX_SERVICE_PORT": "8000", "REFLEX_SERVICE_PORT_HTTP": "8000",
        "REFLEX_PORT": "tcp://10.0.0.7:8000", "REFLEX_PORT_8000_TCP": "tcp://10.0.0.7:8000",
        "REFLEX_PORT_8000_TCP_ADDR": "10.0.0.7", "REFLEX_ROUTER_SERVICE_HOST": "10.0.0.8",
        "REFLEX_ROUTER_PORT": "tcp://10.0.0.8:80",
    }  # fmt: skip
    assert from_environment(of_service) == {}
    assert unknown_variables(of_service) == ""
    assert from_environment({**of_service, "REFLEX_PORT": "8001"}) == {"port": 8001}
    lerobot = {"REFLEX_LEROBOT_SERVICE_HOST": "10.0.0.9", "REFLEX_LEROBOT_PORT": "tcp://10.0.0.9:8080"}
    assert from_environment(lerobot) == {}
    assert from_environment({**lerobot, "REFLEX_LEROBOT_PORT": "8080"}) == {"lerobot_port": 8080}
    assert "REFLEX_PORT" in unknown_variables({"REFLEX_PORT_8000_TCP": "x"}), "there is no such service"


def test_print_config_shows_each_value_and_its_source_and_is_a_file_for_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("REFLEX_DEADLINE_MS", "33")
    monkeypatch.setenv("REFLEX_JOINT_NAMES", "a,b")
    words = ["serve", "--embodiment", "franka", "--print-config"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    lines = {line.partition(":")[0]: line.partition("#")[2].strip() for line in shown.splitlines()}
    assert lines["embodiment"] == "command line"
    assert lines["deadline_ms"] == "environment REFLEX_DEADLINE_MS"
    assert lines["port"] == "default"
    values = yaml.safe_load(shown)
    assert set(values) == {row.name for row in TABLE}
    assert (values["deadline_ms"], values["joint_names"]) == (33.0, ["a", "b"])
    monkeypatch.delenv("REFLEX_DEADLINE_MS")
    monkeypatch.delenv("REFLEX_JOINT_NAMES")
    file = tmp_path / "robot.yaml"
    file.write_text(shown)
    assert given({}, [], str(file), {}).settings == given({}, [], None, {
        "REFLEX_DEADLINE_MS": "33", "REFLEX_JOINT_NAMES": "a b", "REFLEX_EMBODIMENT": "franka",
    }).settings  # fmt: skip


def test_an_unknown_variable_is_one_line_of_the_log(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("REFLEX_EMBODYMENT", "franka")
    assert main(["serve", "--print-config"]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("set nothing: REFLEX_EMBODYMENT (did you mean REFLEX_EMBODIMENT?)")
