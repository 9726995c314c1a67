# SPDX-License-Identifier: Apache-2.0
"""Tokenize instructions: the prompt of training, then the export's own tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ExportError, ObservationError
from reflex_core.export.prompt import SIDES, LanguageSlot
from reflex_core.files.json_fields import JsonError, read_object
from reflex_core.text.untrusted import escaped

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LONGEST_PROMPT = 10_000  # characters: far beyond any token window, and what the cache may hold stays small


@dataclass(frozen=True, slots=True)
class Tokens:
    """ids, mask: (1, length). cut: how many tokens of the text did not fit."""

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    cut: int


class Language:
    """The export's own tokenizer with its prompt. Thread-safe."""

    def __init__(self, slot: LanguageSlot, path: Path) -> None:
        """Load the tokenizer. Raises ExportError for files that are no tokenizer."""
        from tokenizers import Tokenizer  # only here: a policy without instructions does without its 4 MB

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise ExportError(f"{path}: not a tokenizer file: {str(error)[:200]}", "bad-tokenizer") from error
        config = _settings(path.parent / "tokenizer_config.json")
        own = (tokenizer.truncation or {}).get("direction", "right").lower()
        side = slot.truncation_side or config.get("truncation_side", own)
        window = slot.window or slot.length
        if window <= tokenizer.num_special_tokens_to_add(False):
            raise ExportError(
                f"{path}: adds {tokenizer.num_special_tokens_to_add(False)} tokens of its own to a text, the policy takes {window}"
            )
        tokenizer.no_padding()
        # not by cutting the ids: the tokens that a tokenizer puts around a text stay
        tokenizer.enable_truncation(window, direction=side if side in SIDES else "right")
        self._slot = slot
        pads = (config.get("pad_token"), "<pad>", "[PAD]", "<|endoftext|>")
        found = (tokenizer.token_to_id(token) for token in pads if isinstance(token, str))
        pad = next((identifier for identifier in found if identifier is not None), 0)
        # a robot gets few different instructions; the cache holds no reference to self, which would be a cycle
        self._tokens = lru_cache(maxsize=64)(partial(_tokens, tokenizer, slot, pad))

    def prompt(self, instruction: str, state: str = "") -> str:
        """Return the text the policy was trained on for this instruction."""
        return self._slot.prompt.text(instruction, state)

    def tokens(self, prompt: str) -> Tokens:
        """Return the tokens of a prompt.

        Raises ObservationError for invalid Unicode, for an unreasonably long text, and for one longer than a policy takes that
        truncates nothing.
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
    """Read padding and truncation from tokenizer_config.json; a token may be written as an object."""
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
