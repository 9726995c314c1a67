# SPDX-License-Identifier: Apache-2.0
"""Parameter files: what they may hold, whom a section is for, and that every other file is refused in one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reflex_core.errors import SettingError
from reflex_core.settings.parameter_file import matches, parameter_value, read_parameters

HEAD = "/**:\n  ros__parameters:\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "robot.yaml"


@pytest.mark.parametrize(
    ("section", "node", "right"),
    [
        ("/**", "/reflex", True),
        ("/**", "/a/b/reflex", True),
        ("reflex", "/reflex", True),
        ("/reflex", "/reflex", True),
        ("reflex", "/robot1/reflex", False),
        ("/robot1/reflex", "/robot1/reflex", True),
        ("robot1/reflex", "/robot1/reflex", True),
        ("/*/reflex", "/robot1/reflex", True),
        ("/*/reflex", "/reflex", False),
        ("/*/reflex", "/a/b/reflex", False),
        ("/**/reflex", "/reflex", True),
        ("/**/reflex", "/a/b/reflex", True),
        ("/robot1/**", "/robot1/reflex", True),
        ("/*", "/reflex", True),
        ("/*", "/robot1/reflex", False),
        ("arm", "/reflex", False),
        ("/reflex_2", "/reflex", False),
        ("/refle.", "/reflex", False),
    ],
)
def test_a_section_is_for_the_nodes_that_its_name_matches(section: str, node: str, right: bool) -> None:
    assert matches(section, node) is right


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("33", 33), ("-1", -1), ("33.0", 33.0), ("1e3", 1000.0), (".5", 0.5), ("0x10", 16), ("010", "010"), ("08", "08"),
         ("0", 0), ("1.", 1.0), ("-2e-3", -0.002),
        ("true", True), ("on", True), ("No", False), ("'33'", "33"), ('"on"', "on"), ("!!str 7", "7"),
        ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("~", None), ("y", "y"), ("p99=150ms", "p99=150ms"),
        ("[a, b]", ["a", "b"]), ("[]", []), ("[1, a]", [1, "a"]), ("", ""),
    ],
)  # fmt: skip
def test_values_are_what_ros_users_mean(text: str, value: object) -> None:
    found = parameter_value(text)
    assert (found, type(found)) == (value, type(value))


def test_the_nearer_section_wins_and_nested_names_get_dots(file: Path) -> None:
    file.write_text(
        "/robot1/reflex: {ros__parameters: {a: near, deep: {er: 1}}}\n"
        "/*/reflex: {ros__parameters: {a: middle, b: middle}}\n"
        "/**: {ros__parameters: {a: far, b: far, c: far}}\n"
        "arm: {ros__parameters: {a: other}}\n"
    )
    found = read_parameters(file, "/robot1/reflex")
    assert found == {"a": "near", "b": "middle", "c": "far", "deep.er": 1}
    assert read_parameters(file, "/reflex") == {"a": "far", "b": "far", "c": "far"}


def test_a_namespace_may_be_a_mapping_of_its_own(file: Path) -> None:
    file.write_text("robot1:\n  reflex:\n    ros__parameters:\n      a: 1\n  arm:\n    ros__parameters:\n")
    assert read_parameters(file, "/robot1/reflex") == {"a": 1}


def test_a_section_may_be_empty(file: Path) -> None:
    file.write_text(HEAD)
    assert read_parameters(file, "/reflex") == {}


def test_settings_without_sections_are_taken_where_that_is_allowed(file: Path) -> None:
    file.write_text("embodiment: franka\ndeadline_ms: 33\n")
    assert read_parameters(file, "/reflex", plain=True) == {"embodiment": "franka", "deadline_ms": 33}
    with pytest.raises(SettingError, match="no section has ros__parameters"):
        read_parameters(file, "/reflex")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("# only words\n", "is empty"),
        ("- a\n- b\n", "must hold settings as name: value, got a list"),
        ("deadline_ms\n", "got 'deadline_ms'"),
        ("{", "is not YAML"),
        ("\tdeadline_ms: 3\n", "is not YAML: found character '\\t' that cannot start any token in line 1"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"a: \xff\n", "is not YAML"),
        ("a: 1\n---\nb: 2\n", "is not YAML: but found another document"),
        ("{" * 9000, "nested too deeply"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        (HEAD + "    a: 1\n    a: 2\n", "line 4: 'a' is there twice"),
        (HEAD + "    a.b: 1\n    a: {b: 2}\n", "'a.b' is there twice"),
        ("/**: {ros__parameters: {a: 1}}\n/**: {ros__parameters: {b: 1}}\n", "'/**' is there twice"),
        (HEAD + "    a: &x 1\n    b: *x\n", "aliases are not read"),
        ("a: &x {b: *x}\n", "aliases are not read"),
        (HEAD + "    a: !!python/object/apply:os.system [ls]\n", "the tag"),
        (HEAD + "    ? [a]\n    : 1\n", "a name must be text, got a list"),
        ("/**:\n  ros_parameters:\n    a: 1\n", "no section has ros__parameters (two underscores)"),
        ("/**:\n  ros__parameters:\n  a: 1\n", "'/**/a' stands outside of ros__parameters"),
        (HEAD + "    a: 1\ndeadline_ms: 3\n", "'deadline_ms' stands outside of ros__parameters"),
        ("ros__parameters:\n  a: 1\n", "stands below no node"),
        ("/**:\n  ros__parameters: [a]\n", "ros__parameters of /** must hold name: value, got a list"),
        ("arm:\n  ros__parameters:\n    a: 1\n", "nothing is for the node /reflex: its sections are for arm"),
        (b"a: " + b"x" * (1 << 20), "is larger than"),
    ],
)  # fmt: skip
def test_every_other_file_is_refused_in_one_sentence(file: Path, content: str | bytes, says: str) -> None:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SettingError) as refused:
        read_parameters(file, "/reflex")
    message = str(refused.value)
    assert says in message
    assert message.startswith(str(file))
    assert "\n" not in message


def test_a_file_that_cannot_be_opened_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingError, match=f"^{path}: {why}"):
            read_parameters(path, "/reflex")


def test_a_file_for_another_namespace_names_the_node_and_what_was_found(file: Path) -> None:
    file.write_text("reflex:\n  ros__parameters:\n    a: 1\narm: {ros__parameters: }\n")
    with pytest.raises(SettingError) as refused:
        read_parameters(file, "/robot1/reflex")
    assert "nothing is for the node /robot1/reflex: its sections are for reflex, arm; write /**:" in str(
        refused.value
    )


def test_a_section_that_is_as_good_as_ours_and_is_not_is_warned_of(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(
        "/**: {ros__parameters: {a: 1}}\nreflex: {ros__parameters: {b: 1}}\n/robot2/reflex: {ros__parameters: }\n"
    )
    assert read_parameters(file, "/robot1/reflex") == {"a": 1}
    assert [record.getMessage() for record in caplog.records] == [
        f"{file}: its section reflex is not for the node /robot1/reflex"
    ]


def test_a_file_may_be_a_pipe(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"a: 1\n")
    os.close(writer)
    try:
        assert read_parameters(Path(f"/dev/fd/{reader}"), "/reflex", plain=True) == {"a": 1}
    finally:
        os.close(reader)
