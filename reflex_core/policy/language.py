# SPDX-License-Identifier: Apache-2.0
"""What the robot is told becomes the tokens of the training text: prompt, then the export's own tokenizer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from reflex_core.errors import ExportError, ObservationError
from reflex_core.files.json_fields import JsonError, is_whole, read_object
from reflex_core.text.untrusted import escaped

LONGEST_PROMPT = 10_000  # characters: far beyond any token window, and what the cache may hold stays small
SIDES = ("right", "left")
CLEAN = {"_": " ", "\n": " "}

Fail = Callable[[str, str, object], ExportError]  # key, expected, got


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text a policy was trained on. replace: pairs that are replaced in the instruction, which is stripped first if so.

    newline: a line break at the end unless there is one.
    """

    template: str = "{instruction}"
    strip: bool = False
    replace: tuple[tuple[str, str], ...] = ()
    newline: bool = False

    def text(self, instruction: str, state: str = "") -> str:
        """The text for an instruction and the words of a state."""
        if self.strip:
            instruction = instruction.strip()
        for old, new in self.replace:
            instruction = instruction.replace(old, new)
        text = self.template.replace("{state}", state).replace("{instruction}", instruction)
        return text + "\n" if self.newline and not text.endswith("\n") else text


def read_prompt(block: Mapping[str, Any], fail: Fail) -> Prompt:
    """The prompt that the block `language` describes. `clean` is short for `strip` and the usual `replace`."""
    template = block.get("template", "{instruction}")
    if not isinstance(template, str) or "{instruction}" not in template:
        raise fail("language.template", "a text with {instruction} in it", template)
    truths = {key: block.get(key, False) for key in ("clean", "strip", "newline")}
    for key, value in truths.items():
        if not isinstance(value, bool):
            raise fail(f"language.{key}", "true or false", value)
    replace = block.get("replace", CLEAN if truths["clean"] else {})
    pairs = replace.items() if isinstance(replace, dict) else [("", replace)]
    if not all(isinstance(old, str) and old and isinstance(new, str) for old, new in pairs):
        raise fail("language.replace", "an object of texts and what stands in their place", replace)
    newline = truths["newline"]
    if re.search(r"\}\n\Z", template):  # a line break right behind the words is the one that is never doubled
        template, newline = template[:-1], True
    return Prompt(template, truths["clean"] or truths["strip"], tuple(sorted(pairs)), newline)


@dataclass(frozen=True, slots=True)
class LanguageSlot:
    """The token input: `length` tokens, of which the text may have `window`, 0 for all.

    truncate: a longer text is cut, at `truncation_side` ('' as the tokenizer says), instead of refused.
    padding_side: where the padding stands.
    """

    tokens: str
    mask: str | None
    length: int
    tokenizer: str
    prompt: Prompt = Prompt()
    window: int = 0
    truncate: bool = True
    truncation_side: str = ""
    padding_side: str = "right"


def read_window(block: Mapping[str, Any], length: int, fail: Fail) -> dict[str, Any]:
    """How the block `language` fits a text into the `length` tokens of the graph: fields of LanguageSlot."""
    window = block.get("max_length", length)
    if not is_whole(window, 1, 100_000):
        raise fail("language.max_length", "a positive number of tokens", window)
    for key, allowed in (("padding_side", SIDES), ("truncation_side", SIDES), ("truncation", (True, False))):
        if key in block and block[key] not in allowed:
            raise fail(f"language.{key}", " or ".join(str(name).lower() for name in allowed), block[key])
    return {
        "window": min(window, length),
        "truncate": bool(block.get("truncation", True)),
        "truncation_side": str(block.get("truncation_side", "")),
        "padding_side": str(block.get("padding_side", "right")),
    }


@dataclass(frozen=True, slots=True)
class Tokens:
    """ids, mask: (1, length). cut: how many tokens of the text did not fit."""

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    cut: int


class Language:
    """Turns an instruction into tokens with the export's own tokenizer. Thread-safe."""

    def __init__(self, slot: LanguageSlot, path: Path) -> None:
        """Raises ExportError for files that are no tokenizer."""
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise ExportError(f"{path}: not a tokenizer file: {str(error)[:200]}", "bad-tokenizer") from error
        said = _settings(path.parent / "tokenizer_config.json")
        own = (tokenizer.truncation or {}).get("direction", "right").lower()
        side = slot.truncation_side or said.get("truncation_side", own)
        window = slot.window or slot.length
        if window <= tokenizer.num_special_tokens_to_add(False):
            raise ExportError(
                f"{path}: adds {tokenizer.num_special_tokens_to_add(False)} tokens of its own to a text, the policy takes {window}"
            )
        tokenizer.no_padding()
        # not by cutting the ids: the tokens that a tokenizer puts around a text stay
        tokenizer.enable_truncation(window, direction=side if side in SIDES else "right")
        self._slot = slot
        pads = (said.get("pad_token"), "<pad>", "[PAD]", "<|endoftext|>")
        found = (tokenizer.token_to_id(token) for token in pads if isinstance(token, str))
        pad = next((identifier for identifier in found if identifier is not None), 0)
        # a robot hears few different sentences; the cache holds no reference to self, which would be a cycle
        self._tokens = lru_cache(maxsize=64)(partial(_tokens, tokenizer, slot, pad))

    def prompt(self, instruction: str, state: str = "") -> str:
        """The text the policy was trained on, made from what the robot was told."""
        return self._slot.prompt.text(instruction, state)

    def tokens(self, prompt: str) -> Tokens:
        """The tokens of a prompt.

        Raises ObservationError for a text that is no Unicode, unreasonably long, or longer than a policy takes that cuts
        nothing off.
        """
        if len(prompt) > LONGEST_PROMPT:
            raise ObservationError(
                f"the instruction has {len(prompt)} characters, at most {LONGEST_PROMPT} are read",
                "bad-instruction",
            )
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise ObservationError(
                f"the instruction is not valid Unicode: {error.reason}", "bad-instruction"
            ) from error
        try:
            tokens = self._tokens(prompt)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # a panic of the tokenizer's Rust code is no Exception
            raise ObservationError(
                f"the tokenizer fails on this instruction: {escaped(str(error))}", "bad-instruction"
            ) from error
        if tokens.cut and not self._slot.truncate:
            raise ObservationError(
                f"the instruction is {tokens.cut} tokens longer than the {self._slot.window or self._slot.length} that the"
                " policy takes, and it cuts nothing off",
                "bad-instruction",
            )
        return tokens


def _settings(path: Path) -> dict[str, Any]:
    """What tokenizer_config.json says about padding and truncation; a token may be written as an object."""
    try:
        document = read_object(path)
    except FileNotFoundError:
        return {}
    except (JsonError, OSError) as error:
        raise ExportError(f"{path}: {error}", "bad-tokenizer") from error
    pad = document.get("pad_token")
    found = {"pad_token": pad.get("content") if isinstance(pad, dict) else pad}
    if document.get("truncation_side") in SIDES:
        found["truncation_side"] = document["truncation_side"]
    return found


def _tokens(tokenizer: Tokenizer, slot: LanguageSlot, pad: int, prompt: str) -> Tokens:
    encoding = tokenizer.encode(prompt)
    kept = encoding.ids
    cut = sum(len(rest.ids) - sum(rest.special_tokens_mask) for rest in encoding.overflowing)
    begin = slot.length - len(kept) if slot.padding_side == "left" else 0
    ids = np.full((1, slot.length), pad, dtype=np.int64)
    ids[0, begin : begin + len(kept)] = kept
    at = np.arange(slot.length)[None]
    return Tokens(ids, (at >= begin) & (at < begin + len(kept)), cut)
