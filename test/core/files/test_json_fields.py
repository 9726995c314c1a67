# SPDX-License-Identifier: Apache-2.0
"""JSON that people write is read strictly, whichever file it stands in; and text of others is shown harmlessly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reflex_core.calibration import cache
from reflex_core.errors import ReflexError
from reflex_core.export.export import open_export
from reflex_core.files.json_fields import JsonError, is_number, is_whole, parse_json, read_json, read_object
from reflex_core.files.observations import read_observations
from reflex_core.robot.limits.safety_config import load_safety_config
from reflex_core.robot.presets import load_embodiment
from reflex_core.text.untrusted import escaped, shown

TOO_DEEP = "nested deeper than 64 levels"
BAD: dict[str, tuple[bytes, str]] = {
    "a key twice": (b'{"a": 1, "b": {"c": 1, "c": 1}}', "key 'c' is there twice"),
    "a key twice, forging": (b'{"a\\n": 1, "a\\n": 1}', r"key 'a\n' is there twice"),
    "deep lists": (b"[" * 100_000, TOO_DEEP),
    "deep objects": (b'{"a":' * 100_000, TOO_DEEP),
    "deep and whole": (b"[" * 200 + b"]" * 200, TOO_DEEP),
    "NaN": (b'{"a": [1, NaN]}', "a[1] must be a finite number"),
    "Infinity": (b'{"a": {"b": -Infinity}}', "a.b must be a finite number"),
    "too large a number": (b'{"a": 1e999}', "1e999, which no float64 can"),
    "too long a number": (b'{"a": ' + b"9" * 5000 + b"}", "a whole number of 5000 digits"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "another encoding": ('{"a": "é"}'.encode("latin-1"), "not UTF-8: byte 7 is 0xe9"),
    "two bytes a character": ("{}".encode("utf-16"), "not UTF-8"),
    "half a character": (b'{"a": "\\ud800"}', r"half a character, \ud800"),
    "half a character in a key": (b'{"\\udfff": 1}', r"half a character, \udfff"),
    "nothing": (b"", "not readable as JSON"),
    "half an object": (b'{"a": 1', "not readable as JSON"),
    "a comma too many": (b'{"a": 1,}', "not readable as JSON"),
}

Read = Callable[[Path], object]


@pytest.mark.parametrize("name", list(BAD))
def test_what_is_no_trustworthy_json_is_refused_in_one_sentence(name: str) -> None:
    data, says = BAD[name]
    with pytest.raises(JsonError) as caught:
        parse_json(data)
    sentence = str(caught.value)
    assert says in sentence
    assert len(sentence) < 200
    assert sentence.isprintable()


def test_what_is_json_is_read_as_it_is() -> None:
    document = {"a": [1, -2.5, 1e300, 10**40, True, None, "é\n"], "b": {"c": {}}, "": []}
    assert parse_json(json.dumps(document).encode()) == document
    assert parse_json(json.dumps(document, ensure_ascii=False).encode()) == document
    assert parse_json(b"[" * 60 + b"]" * 60)


def test_a_file_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(JsonError, match="must be a regular file"):
            read_json(path)
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)


def test_a_file_of_gigabytes_is_refused_by_its_size(tmp_path: Path) -> None:
    huge = tmp_path / "huge.json"
    with huge.open("wb") as stream:
        stream.truncate(5 << 30)
    with pytest.raises(JsonError, match=f"at most 16777216 bytes, got {5 << 30}"):
        read_json(huge)


def test_where_an_object_belongs_nothing_else_will_do(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text("[1]")
    with pytest.raises(JsonError, match="must hold a JSON object, got list"):
        read_object(path)


def _export(path: Path) -> object:
    return open_export(path.rename(path.parent / "reflex_config.json").parent)


EVERY_FILE: dict[str, Read] = {
    "embodiment": load_embodiment,
    "safety": load_safety_config,
    "export": _export,
    "observation": lambda path: read_observations(path.parent),
    "calibration": cache.read,
}


@pytest.mark.parametrize(
    "name", ["a key twice", "deep lists", "a byte order mark", "another encoding", "half an object"]
)
@pytest.mark.parametrize("kind", list(EVERY_FILE))
def test_every_file_that_people_write_is_read_so(tmp_path: Path, kind: str, name: str) -> None:
    data, says = BAD[name]
    path = tmp_path / "some.json"
    path.write_bytes(data)
    with pytest.raises((ReflexError, ValueError)) as caught:
        EVERY_FILE[kind](path)
    sentence = str(caught.value)
    assert says in sentence
    assert len(sentence.splitlines()) == 1
    if kind != "calibration":  # its caller names the file
        assert sentence.startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("red cup", "red cup"),
        ("Würfel 立方体", "Würfel 立方体"),
        ("x\n[ERROR] fake", "x\\n[ERROR] fake"),
        ("a\x1b[2Jb\x7f\x00", "a\\x1b[2Jb\\x7f\\x00"),
        ("abc\u202edcba\u2066\u200b", "abc\\u202edcba\\u2066\\u200b"),
        ("line\u2028end\u0085", "line\\u2028end\\x85"),
        ("\ud800", "\\ud800"),
        ("x" * 81, "x" * 77 + "..."),
        ("\n" * 10**6, "\\n" * 38 + "\\..."),
    ],
)
def test_text_of_others_is_shown_on_one_line_and_cut(text: str, said: str) -> None:
    assert escaped(text) == said


def test_values_of_others_are_bounded_before_they_are_written() -> None:
    class Never:
        def __repr__(self) -> str:
            return "x" * 10**6

    assert shown("a\u202eb") == "'a\\u202eb'"
    assert len(shown([[0.1] * 10**6] * 10)) <= 80
    assert len(shown({"a" * 10**6: 1})) <= 80
    assert len(shown(Never())) <= 80


@pytest.mark.parametrize("value", [0, -1.5, 10**6, 1e300, -(10**300)])
def test_a_json_number_is_one_that_a_float_holds(value: object) -> None:
    assert is_number(value)


@pytest.mark.parametrize("value", [True, None, "1", [1], float("nan"), float("inf"), 10**400, -(10**400)])
def test_truths_texts_and_what_no_float_holds_are_no_numbers(value: object) -> None:
    assert not is_number(value)
    assert not is_whole(value, -(10**300), 10**300)


def test_bounds_belong_to_the_numbers_that_are_allowed() -> None:
    assert [is_number(value, 0, 2) for value in (-0.1, 0, 2, 2.1)] == [False, True, True, False]
    assert [is_whole(value, 1, 3) for value in (0, 1, 3, 4, 2.0)] == [False, True, True, False, False]
