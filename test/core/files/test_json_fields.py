# SPDX-License-Identifier: Apache-2.0
"""JSON that people write is read strictly, whichever file it stands in; and text of others is shown harmlessly."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reflex_core.calibration import cache
from reflex_core.errors import ReflexError
from reflex_core.export.export import open_export
from reflex_core.files.json_fields import (
    JsonError,
    JsonFields,
    is_number,
    is_whole,
    leaves,
    parse_json,
    read_json,
    read_object,
    refusing,
)
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
    "NaN above what is deep": (
        b'{"a": ' + b"[" * 500 + b"]" * 500 + b', "b": NaN}',
        "b must be a finite number",
    ),
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


def test_a_large_file_is_checked_without_a_name_for_every_value() -> None:
    """A folder that lies, with 300,000 rows in a table, is refused within two seconds. Names took more time and memory than parsing."""
    data = json.dumps([[90, 1.0, -0.5, 0.5, 0.25, 0.0, 0.0]] * 20_000).encode()
    assert most_bytes(lambda: parse_json(data)) < 1.5 * most_bytes(lambda: json.loads(data))


def most_bytes(run: Callable[[], object]) -> int:
    """Return how much memory a run took at most."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


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
    ("text", "message"),
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
def test_text_of_others_is_shown_on_one_line_and_cut(text: str, message: str) -> None:
    assert escaped(text) == message


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


def fields(**document: Any) -> JsonFields:
    return JsonFields({"a": document}, refusing("some.json", ValueError)).fields("a")


def test_a_field_that_is_right_is_returned_as_what_it_is() -> None:
    found = fields(
        n=3, x=0.5, yes=True, text="t", names=["b", "c"], numbers=[1, 2.5], inner={"n": 1}, nothing=None
    )
    assert (found.number("x", 0, 1), found.number("n"), found.whole("n", 1, 3)) == (0.5, 3.0, 3)
    assert (found.truth("yes"), found.text("text"), found.choice("text", ("s", "t"))) == (True, "t", "t")
    assert found.names("names") == ("b", "c")
    assert found.numbers("numbers", 1, 3).tolist() == [1.0, 2.5]
    assert dict(found.fields("inner")) == {"n": 1}
    assert len(found.only(list(found))) == 8
    assert dict(found.fields("nothing", optional=True)) == {}


def test_a_field_that_is_absent_has_its_default() -> None:
    found = fields()
    assert (found.number("x", default=2.0), found.whole("n", default=3)) == (2.0, 3)
    assert (found.truth("yes", default=False), found.text("t", ""), found.names("n", ())) == (False, "", ())
    assert (found.choice("c", ("s", "t"), "s"), dict(found.fields("f", optional=True))) == ("s", {})


Reads = Callable[[JsonFields], object]
WRONG: dict[str, tuple[Reads, str]] = {
    "no number": (lambda f: f.number("text"), "'a.text' must be a number, got \"t\""),
    "a number out of range": (lambda f: f.number("n", 0, 2), "'a.n' must be a number from 0 to 2, got 3"),
    "a number below": (lambda f: f.number("n", 4), "'a.n' must be a number from 4 on, got 3"),
    "true for a number": (lambda f: f.number("yes"), "'a.yes' must be a number, got true"),
    "null for a number with a default": (lambda f: f.number("nothing", default=1), "must be a number, got null"),
    "absent": (lambda f: f.number("gone"), "'a.gone' must be a number, got null"),
    "half a number": (lambda f: f.whole("x", 0, 9), "'a.x' must be a whole number from 0 to 9, got 0.5"),
    "a count, in other words": (lambda f: f.whole("n", 5, expected="rows"), "'a.n' must be rows, got 3"),
    "no truth": (lambda f: f.truth("n"), "'a.n' must be true or false, got 3"),
    "no text": (lambda f: f.text("names"), "'a.names' must be a text, got [\"b\", 1]"),
    "no choice": (lambda f: f.choice("text", ("r", "s")), "'a.text' must be one of r, s, got \"t\""),
    "a list for a choice": (lambda f: f.choice("names", ("r", "s")), "'a.names' must be one of r, s"),
    "no names": (lambda f: f.names("names"), "'a.names' must be a list of names, got [\"b\", 1]"),
    "no numbers": (lambda f: f.numbers("names", 0, 2), "'a.names' must be a list of numbers from 0 to 2"),
    "no object": (lambda f: f.fields("n"), "'a.n' must be an object, got 3"),
    "no object where it is optional": (lambda f: f.fields("n", optional=True), "'a.n' must be an object, got 3"),
    "a misspelt key": (
        lambda f: f.only(("s", "nam", "numbers")), "only the keys s, nam, numbers (did you mean nam?), got ["
    ),
    "an unknown key": (lambda f: f.only(("n", "x")), "'a' must be an object with only the keys n, x, got [\"names\""),
    "what only the caller knows": (lambda f: f.refusal("n", "even"), "'a.n' must be even, got 3"),
    "what the caller shows": (lambda f: f.refusal("n", "even", [1, 3]), "'a.n' must be even, got [1, 3]"),
}  # fmt: skip


@pytest.mark.parametrize(("read", "says"), list(WRONG.values()), ids=list(WRONG))
def test_a_field_that_is_wrong_is_refused_with_key_expected_and_got(read: Reads, says: str) -> None:
    found = fields(n=3, x=0.5, yes=True, text="t", names=["b", 1], nothing=None)
    try:
        error = read(found)
    except ValueError as raised:
        error = raised
    assert str(error).startswith("some.json: ")
    assert says in str(error)


def test_a_document_that_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match=r"some.json: 'document' must be an object, got \[1\]"):
        JsonFields([1], refusing("some.json", ValueError))


def test_a_value_of_megabytes_is_cut_in_its_refusal() -> None:
    with pytest.raises(ValueError, match=r"must be a number, got \[0, 0, ") as caught:
        fields(x=[0] * 10**6).number("x")
    assert len(str(caught.value)) < 200


def test_the_leaves_of_a_value_are_all_that_is_no_object_and_no_list() -> None:
    value = {"a": [1, {"b": "t"}, []], "c": None, "d": {"e": [[True]]}}
    assert list(leaves(value)) == [1, "t", None, True]
    assert list(leaves("alone")) == ["alone"]
