# SPDX-License-Identifier: Apache-2.0
"""An instruction becomes the tokens that the policy was trained on."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_exports import words
from tokenizers import Tokenizer, processors

from reflex_core.errors import ExportError, ObservationError
from reflex_core.export.prompt import LanguageSlot, Prompt, read_prompt, read_window
from reflex_core.files.json_fields import JsonFields
from reflex_core.policy.language import Language


def refusal(key: str, expected: str, got: object) -> ExportError:
    return ExportError(f"'{key}' must be {expected}, got {got!r}")


def fields_of(block: dict[str, Any]) -> JsonFields:
    return JsonFields(block, refusal, "language")


def language(
    path: Path, *, length: int = 8, template: str = "{instruction}", clean: bool = False, **more: Any
) -> Language:
    words(path / "words.json")
    prompt = read_prompt(fields_of({"template": template, "clean": clean}))
    return Language(
        LanguageSlot("spoken", "heard", length, "words.json", prompt, **more), path / "words.json"
    )


def test_words_become_tokens_and_the_rest_is_masked(tmp_path: Path) -> None:
    tokens = language(tmp_path).tokens("reach the red cube")
    assert tokens.ids.tolist() == [[2, 3, 4, 6, 0, 0, 0, 0]]
    assert tokens.mask.tolist() == [[True] * 4 + [False] * 4]
    assert (tokens.ids.dtype, tokens.mask.dtype, tokens.cut) == (np.int64, np.bool_, 0)


def test_an_instruction_that_is_too_long_is_cut_and_the_cut_is_reported(tmp_path: Path) -> None:
    tokens = language(tmp_path, length=3).tokens("reach the red cube the green cube")
    assert tokens.ids.tolist() == [[2, 3, 4]]
    assert tokens.mask.all()
    assert tokens.cut == 4


def test_an_instruction_that_just_fits_is_not_cut(tmp_path: Path) -> None:
    assert language(tmp_path, length=4).tokens("reach the red cube").cut == 0


def test_the_tokenizers_own_padding_and_truncation_are_switched_off(tmp_path: Path) -> None:
    words(tmp_path / "words.json")
    tokenizer = Tokenizer.from_file(str(tmp_path / "words.json"))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=20)
    tokenizer.save(str(tmp_path / "words.json"))
    slot_ = LanguageSlot("spoken", "heard", 8, "words.json")
    tokens = Language(slot_, tmp_path / "words.json").tokens("reach the red cube")
    assert int(tokens.mask.sum()) == 4


@pytest.mark.parametrize(("pad", "identifier"), [("<pad>", 0), ("[PAD]", 0), ("nothing", 0)])
def test_padding_is_a_token_of_the_vocabulary(tmp_path: Path, pad: str, identifier: int) -> None:
    words(tmp_path / "words.json", pad)
    slot_ = LanguageSlot("spoken", "heard", 3, "words.json")
    assert Language(slot_, tmp_path / "words.json").tokens("the").ids.tolist() == [
        [3, identifier, identifier]
    ]


def test_the_prompt_is_made_as_in_training(tmp_path: Path) -> None:
    spoken = language(tmp_path, template="Task: {instruction}, State: {state};\n", clean=True)
    assert spoken.prompt(" reach_the\nred cube ", "1 2") == "Task: reach the red cube, State: 1 2;\n"


def test_an_instruction_with_braces_is_only_text(tmp_path: Path) -> None:
    spoken = language(tmp_path, template="Task: {instruction}, State: {state};")
    assert spoken.prompt("{state} {0} {instruction}", "7") == "Task: {state} {0} {instruction}, State: 7;"


def test_an_instruction_that_is_not_cleaned_stays_as_it_is(tmp_path: Path) -> None:
    assert language(tmp_path, template="{instruction}\n").prompt(" a_b ") == " a_b \n"


def test_a_text_that_is_no_unicode_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="not valid Unicode"):
        language(tmp_path).tokens("reach \ud800 cube")


def test_a_text_of_a_megabyte_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="1000000 characters"):
        language(tmp_path).tokens("x" * 1_000_000)


def test_no_tokenizer_touches_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a tokenizer opened a socket")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert language(tmp_path).tokens("the").cut == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"google/paligemma-3b-pt-224", b"\x00" * 40])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    slot_ = LanguageSlot("spoken", None, 8, "tokenizer.json")
    with pytest.raises(ExportError, match=r"tokenizer\.json: not a tokenizer file") as caught:
        Language(slot_, tmp_path / "tokenizer.json")
    assert caught.value.slug == "bad-tokenizer"


@pytest.mark.parametrize(
    ("instruction", "text"),
    [("pick", "pick\n"), ("pick\n", "pick\n"), ("pick\n\n", "pick\n\n"), ("", "\n"), (" a_b ", " a_b \n")],
)
@pytest.mark.parametrize("block", [{"newline": True}, {"template": "{instruction}\n"}])
def test_a_line_break_at_the_end_is_never_doubled(instruction: str, text: str, block: dict[str, Any]) -> None:
    assert read_prompt(fields_of(block)).text(instruction) == text


@pytest.mark.parametrize("template", ["{instruction};\nAction: ", "{instruction} now\n", "{instruction}\n\n"])
def test_other_line_breaks_stand_as_they_are_written(template: str) -> None:
    assert read_prompt(fields_of({"template": template})).text("pick") == template.format(instruction="pick")


def test_stripping_and_replacing_are_said_each_by_itself() -> None:
    assert read_prompt(fields_of({"strip": True})) == Prompt(strip=True)
    assert read_prompt(fields_of({"replace": {"_": "-"}})).text(" a_b\n") == " a-b\n"
    assert read_prompt(fields_of({"clean": True})).text(" a_b\nc ") == "a b c"


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"template": "do it"}, "'language.template' must be a text with {instruction}"),
        ({"newline": 1}, "'language.newline' must be true or false"),
        ({"strip": "yes"}, "'language.strip' must be true or false"),
        ({"replace": [["_", " "]]}, "'language.replace' must be an object of texts"),
        ({"replace": {"": " "}}, "'language.replace' must be an object of texts"),
        ({"replace": {"_": 3}}, "'language.replace' must be an object of texts"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused(block: dict[str, Any], says: str) -> None:
    with pytest.raises(ExportError) as caught:
        read_prompt(fields_of(block))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"max_length": 0}, "'language.max_length' must be a positive number"),
        ({"max_length": True}, "'language.max_length' must be a positive number"),
        ({"padding_side": "up"}, "'language.padding_side' must be right or left"),
        ({"truncation_side": 3}, "'language.truncation_side' must be right or left"),
        ({"truncation": "no"}, "'language.truncation' must be true or false"),
    ],
)
def test_a_window_that_cannot_be_is_refused(block: dict[str, Any], says: str) -> None:
    with pytest.raises(ExportError) as caught:
        read_window(fields_of(block), 8)
    assert says in str(caught.value)


def test_the_window_is_no_wider_than_the_graph() -> None:
    assert read_window(fields_of({"max_length": 48}), 8)["window"] == 8
    assert read_window(fields_of({"max_length": 4}), 8)["window"] == 4


def test_padding_stands_where_the_policy_has_it(tmp_path: Path) -> None:
    tokens = language(tmp_path, length=6, padding_side="left").tokens("reach the")
    assert tokens.ids.tolist() == [[0, 0, 0, 0, 2, 3]]
    assert tokens.mask.tolist() == [[False] * 4 + [True] * 2]


def test_a_window_narrower_than_the_graph_cuts_the_text_and_pads_the_rest(tmp_path: Path) -> None:
    tokens = language(tmp_path, length=6, window=2).tokens("reach the red")
    assert (tokens.ids.tolist(), tokens.cut) == ([[2, 3, 0, 0, 0, 0]], 1)


@pytest.mark.parametrize(
    ("side", "kept"), [("right", [[1, 2, 3, 1, 0]]), ("left", [[1, 6, 7, 1, 0]]), ("", [[1, 6, 7, 1, 0]])]
)
def test_what_is_cut_off_is_not_what_the_tokenizer_puts_around_a_text(
    tmp_path: Path, side: str, kept: Any
) -> None:
    words(tmp_path / "words.json")
    tokenizer = Tokenizer.from_file(str(tmp_path / "words.json"))
    special = [("<unk>", 1)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<unk> $A <unk>", special_tokens=special)
    tokenizer.save(str(tmp_path / "words.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"truncation_side": "left"}))
    slot = LanguageSlot("spoken", None, 5, "words.json", window=4, truncation_side=side)
    tokens = Language(slot, tmp_path / "words.json").tokens("reach the red green cube Task")
    expected = [[1, 2, 3, 1, 0]] if side == "right" else [[1, *tokenizer.encode("cube Task").ids[1:3], 1, 0]]
    assert (tokens.ids.tolist(), tokens.cut) == (expected, 4)
    assert kept[0][0] == kept[0][3] == 1


def test_a_policy_that_cuts_nothing_refuses_what_is_too_long(tmp_path: Path) -> None:
    spoken = language(tmp_path, length=3, truncate=False)
    assert spoken.tokens("reach the red").cut == 0
    with pytest.raises(ObservationError, match="1 tokens longer than the 3 that the policy takes"):
        spoken.tokens("reach the red cube")


@pytest.mark.parametrize("written", ["cube", {"content": "cube", "lstrip": False}])
def test_the_padding_is_the_token_that_the_tokenizers_settings_name(tmp_path: Path, written: Any) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": written}))
    spoken = language(tmp_path, length=3)
    assert spoken.tokens("the").ids.tolist() == [[3, *spoken.tokens("cube cube").ids[0, :2].tolist()]]


def test_settings_of_a_tokenizer_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ExportError, match=r"tokenizer_config\.json: not readable as JSON"):
        language(tmp_path)
