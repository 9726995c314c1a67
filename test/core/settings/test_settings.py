# SPDX-License-Identifier: Apache-2.0
"""Every setting is described once and checked wherever it comes from."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import pytest

from reflex_core.concurrency.real_time import MOST_HZ
from reflex_core.errors import SettingError
from reflex_core.settings.cli import GROUPS, add_arguments, add_config, markdown, parse
from reflex_core.settings.row import Setting, checked, from_text
from reflex_core.settings.table import TABLE, Settings, settings_from
from reflex_ros.cli.parser import Parser

BOUNDED = [row for row in TABLE if row.minimum is not None or row.maximum is not None]


def row_of(name: str) -> Setting:
    return next(row for row in TABLE if row.name == name)


def parsed(*words: str) -> Settings:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return settings_from(vars(parser.parse_args(words)))


def by_name(row: Setting) -> str:
    return row.name


def test_the_table_has_one_row_per_field() -> None:
    assert [row.name for row in TABLE] == [field.name for field in dataclasses.fields(Settings)]


@pytest.mark.parametrize("row", TABLE, ids=by_name)
def test_every_row_has_help_that_is_a_sentence(row: Setting) -> None:
    assert len(row.help) > 15
    assert row.help[0].isupper()
    assert row.help.endswith(".")
    assert "|" not in row.help  # it would break the table in docs/reference/settings.md


@pytest.mark.parametrize("row", TABLE, ids=by_name)
def test_every_row_says_who_reads_it_and_when_a_change_counts(row: Setting) -> None:
    assert row.group in GROUPS
    assert row.when in ("start", "configure", "live")


@pytest.mark.parametrize("row", TABLE, ids=by_name)
def test_every_default_passes_its_own_check(row: Setting) -> None:
    assert checked(row, row.default) == row.default


@pytest.mark.parametrize("row", BOUNDED, ids=by_name)
def test_a_value_beyond_the_range_is_refused_and_both_are_named(row: Setting) -> None:
    kind = type(row.default)
    beyond = []
    if row.minimum is not None:
        beyond.append(kind(row.minimum - 1))
    if row.maximum is not None:
        beyond.append(kind(row.maximum + 1))
    for value in beyond:
        with pytest.raises(SettingError, match=rf"'{row.name}' takes .*, got {value}"):
            checked(row, value)


@pytest.mark.parametrize("row", BOUNDED, ids=by_name)
def test_the_ends_of_the_range_are_inside(row: Setting) -> None:
    for end in (row.minimum, row.maximum):
        if end is not None:
            assert checked(row, type(row.default)(end)) == end


@pytest.mark.parametrize("row", [row for row in TABLE if isinstance(row.default, float)], ids=by_name)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_no_number_is_refused(row: Setting, value: float) -> None:
    with pytest.raises(SettingError, match=row.name):
        checked(row, value)


@pytest.mark.parametrize("row", [row for row in TABLE if row.choices], ids=by_name)
def test_a_word_that_is_no_choice_is_refused_and_the_choices_are_named(row: Setting) -> None:
    with pytest.raises(
        SettingError, match=f"'{row.name}' takes one of {', '.join(row.choices)}, got 'nonsense'"
    ):
        checked(row, "nonsense")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "8000"),
        ("port", True),
        ("port", 8000.5),
        ("port", float("nan")),
        ("deadline_ms", "33"),
        ("deadline_ms", None),
        ("slo_mode", 500),
        ("slo_mode", True),
        ("http", 1),
        ("http", "true"),
        ("robot_id", 7),
        ("robot_id", None),
        ("max_age_ms", "300"),
        ("max_age_ms", False),
        ("joint_names", "a,b"),
        ("joint_names", [1, 2]),
        ("joint_names", ["a", 2]),
        ("joint_names", {"a": "b"}),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(SettingError, match=name):
        settings_from({name: value})


def test_a_whole_number_is_good_for_a_float_setting() -> None:
    settings = settings_from({"max_age_ms": 250})
    assert settings.max_age_ms == 250.0
    assert isinstance(settings.max_age_ms, float)


def test_a_float_that_is_whole_is_good_for_a_whole_number() -> None:
    port = settings_from({"port": 8000.0}).port
    assert (port, type(port)) == (8000, int)


def test_a_number_is_good_for_a_choice_that_is_written_in_digits() -> None:
    """YAML and `ros2 param set` take 503 for a number."""
    assert settings_from({"slo_mode": 503}).slo_mode == "503"


def test_a_list_that_is_not_there_is_empty() -> None:
    assert settings_from({"joint_names": None}).joint_names == ()


def test_ros_marks_an_empty_list_of_names_with_one_empty_name() -> None:
    assert settings_from({"joint_names": [""]}).joint_names == ()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("safety_confg", "safety_config"),
        ("embodyment", "embodiment"),
        ("deadline", "deadline_ms"),
        ("deadlin_ms", "deadline_ms"),
        ("Robot-ID", "robot_id"),
        ("time.deadline_ms", "deadline_ms"),
    ],
)
def test_an_unknown_name_is_refused_with_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(SettingError) as refused:
        settings_from({name: 33})
    assert str(refused.value) == f"no such setting '{name}'; did you mean {meant}?"


def test_a_name_like_none_is_refused_without_a_guess() -> None:
    with pytest.raises(SettingError, match=r"^no such setting 'qwxz'$"):
        settings_from({"qwxz": 1})


def test_several_unknown_names_are_one_sentence() -> None:
    with pytest.raises(SettingError) as refused:
        settings_from({"prot": 8000, "max_age": 3.0})
    message = "no such settings: 'max_age' (did you mean max_age_ms?), 'prot' (did you mean port?)"
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *(("adaptive_steps", word, True) for word in ("1", "yes", "on", "True", "TRUE", " true ")),
        *(("http", word, False) for word in ("0", "no", "off", "False")),
        ("deadline_ms", "33", 33.0),
        ("deadline_ms", "1e3", 1000.0),
        ("port", "8000.0", 8000),
        ("slo_mode", "503", "503"),
        ("robot_id", "7", "7"),
        *(("joint_names", text, ("a", "b")) for text in ("[a,b]", "a,b", "a b", "['a', \"b\"]", "a, b")),
        ("joint_names", "[]", ()),
    ],
)
def test_text_is_read_as_launch_and_yaml_users_write_it(name: str, text: str, value: Any) -> None:
    found = from_text(row_of(name), text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text"),
    [("http", "maybe"), ("http", "2"), ("port", "8000.5"), ("deadline_ms", "fast"), ("joint_names", "[1, 2]"), ("joint_names", "a,2")],
)  # fmt: skip
def test_text_of_another_kind_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=f"setting '{name}' takes "):
        from_text(row_of(name), text)


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings_from({}).port = 1  # type: ignore[misc]


def test_nothing_written_on_the_command_line_gives_the_defaults() -> None:
    assert parsed() == Settings()


def words_for(row: Setting) -> tuple[list[str], Any]:
    """What to write for a value that is not the default, and that value."""
    if isinstance(row.default, bool):
        return [row.flag if not row.default else row.flag.replace("--", "--no-", 1)], not row.default
    if isinstance(row.default, tuple):
        return [row.flag, "left", "right"], ("left", "right")
    if row.choices:
        value: Any = next(choice for choice in row.choices if choice != row.default)
    elif isinstance(row.default, str):
        value = "some words"
    else:
        value = row.default + 1 if row.maximum is None or row.default < row.maximum else row.default - 1
    return [row.flag, str(value)], value


@pytest.mark.parametrize("row", TABLE, ids=by_name)
def test_what_is_written_on_the_command_line_arrives(row: Setting) -> None:
    words, value = words_for(row)
    settings = parsed(*words)
    assert getattr(settings, row.name) == value
    assert dataclasses.replace(settings, **{row.name: row.default}) == Settings()


def test_a_control_rate_that_no_thread_keeps_is_refused_with_what_to_take_instead() -> None:
    assert parsed("--control-rate-hz", "250").control_rate_hz == MOST_HZ
    with pytest.raises(
        SettingError,
        match=r"'control_rate_hz' takes 0 to 250, got 500\.0: .*take the output joint_trajectory",
    ):
        parsed("--control-rate-hz", "500")
    with pytest.raises(SettingError, match=r"'control_rate_hz' takes 0 to 250, got -1\.0$"):
        settings_from({"control_rate_hz": -1})


def test_whole_ends_of_a_range_are_written_out() -> None:
    with pytest.raises(SettingError, match=f"takes -1 to {2**63 - 1}, got -7"):
        settings_from({"seed": -7})


def test_the_command_line_refuses_what_is_out_of_range() -> None:
    with pytest.raises(SettingError, match="'port' takes 0 to 65535, got 70000"):
        parsed("--port", "70000")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("--deadlin-ms", "--deadline-ms"), ("--embodyment", "--embodiment"), ("--no-htpp", "--no-http"), ("--deadline_ms", "--deadline-ms")],
)  # fmt: skip
def test_an_unknown_option_is_refused_with_what_was_meant(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = Parser(prog="reflex serve")
    add_arguments(parser)
    with pytest.raises(SystemExit) as ended:
        parse(parser, [word])
    assert ended.value.code == 2
    assert f"reflex serve: no such option {word}; did you mean {meant}?\n" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["a", "b"], ["a,b"], ["[a,", "b]"], ["[a,b]"]])
def test_a_list_on_the_command_line_may_be_written_in_any_way(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert settings_from(parse(parser, ["--joint-names", *words])).joint_names == ("a", "b")


def test_a_second_config_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_config(parser)
    assert parse(parser, ["--config", "a.yaml"]) == {"config": "a.yaml"}
    assert parse(parser, []) == {"config": None}
    with pytest.raises(SystemExit):
        parse(parser, ["--config", "a.yaml", "--config", "b.yaml"])
    assert "--config takes one file, got 2: a.yaml, b.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["1_0", "1_0.5", "\u0661\u0660"])
def test_only_digits_that_people_and_yaml_read_alike_are_numbers(text: str) -> None:
    with pytest.raises(SettingError, match="'deadline_ms' takes a number, got"):
        settings_from(parse(_parser(), ["--deadline-ms", text]))
    with pytest.raises(SettingError, match="'port' takes a whole number, got"):
        from_text(row_of("port"), text)
    with pytest.raises(SettingError, match="'deadline_ms' takes a number, got"):
        from_text(row_of("deadline_ms"), text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser


PATHS = [row for row in TABLE if row.path]


@pytest.mark.parametrize("row", PATHS, ids=by_name)
def test_a_path_of_home_is_expanded_as_a_shell_would(row: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert checked(row, "~/x") == "/home/ada/x"
    assert from_text(row, "~") == "/home/ada"
    assert checked(row, "./~") == "./~"
    assert getattr(settings_from({row.name: "~/x"}), row.name) == "/home/ada/x"


def test_the_home_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(SettingError, match=r"'record': '~no-such-user' is no user's home directory"):
        checked(row_of("record"), "~no-such-user/traces")


def test_every_setting_that_names_a_file_or_directory_is_a_path() -> None:
    words = ("Directory", "File", "JSON file", "File that caches", "Export ", "(.npz)")
    named = {
        row.name for row in TABLE if any(word in row.help for word in words) and isinstance(row.default, str)
    }
    assert named == {row.name for row in PATHS}


def test_help_can_be_printed_and_names_every_flag() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = parser.format_help()
    assert [row.flag for row in TABLE if row.flag not in text] == []


def test_the_page_about_settings_has_a_line_per_setting() -> None:
    lines = [line for line in markdown().splitlines() if line.startswith("| `")]
    assert sorted(line.split("`")[1] for line in lines) == sorted(row.name for row in TABLE)
    assert len({line.count("|") for line in lines}) == 1
