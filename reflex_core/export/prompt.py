# SPDX-License-Identifier: Apache-2.0
"""The `language` of reflex_config.json: the text that a policy was trained on, and how it fits the token input."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from reflex_core.files.json_fields import JsonFields

SIDES = ("right", "left")
CLEAN = {"_": " ", "\n": " "}


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
        """Return the prompt for an instruction and the text of a state."""
        if self.strip:
            instruction = instruction.strip()
        for old, new in self.replace:
            instruction = instruction.replace(old, new)
        text = self.template.replace("{state}", state).replace("{instruction}", instruction)
        return text + "\n" if self.newline and not text.endswith("\n") else text


def read_prompt(block: JsonFields) -> Prompt:
    """Read the prompt that the block `language` describes. `clean` is short for `strip` and the usual `replace`."""
    template = block.get("template", "{instruction}")
    if not isinstance(template, str) or "{instruction}" not in template:
        raise block.refusal("template", "a text with {instruction} in it")
    truths = {key: block.truth(key, default=False) for key in ("clean", "strip", "newline")}
    replace = block.get("replace", CLEAN if truths["clean"] else {})
    pairs = replace.items() if isinstance(replace, dict) else [("", replace)]
    if not all(isinstance(old, str) and old and isinstance(new, str) for old, new in pairs):
        raise block.refusal("replace", "an object of texts and their replacements")
    newline = truths["newline"]
    if re.search(r"\}\n\Z", template):  # a line break right behind the words is the one that is never doubled
        template, newline = template[:-1], True
    return Prompt(template, truths["clean"] or truths["strip"], tuple(sorted(pairs)), newline)


@dataclass(frozen=True, slots=True)
class LanguageSlot:
    """The token input: `length` tokens, of which the text may have `window`, 0 for all.

    truncate: a longer text is cut, at `truncation_side` ('' as the tokenizer's own), instead of refused.
    padding_side: left or right, '' as the tokenizer's own.
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


def read_window(block: JsonFields, length: int) -> dict[str, Any]:
    """Read how the block `language` fits a text into the `length` tokens of the graph: fields of LanguageSlot."""
    window = block.whole("max_length", 1, 100_000, length, "a positive number of tokens")
    for key, allowed in (("padding_side", SIDES), ("truncation_side", SIDES), ("truncation", (True, False))):
        if key in block and block[key] not in allowed:
            raise block.refusal(key, " or ".join(str(name).lower() for name in allowed))
    return {
        "window": min(window, length),
        "truncate": bool(block.get("truncation", True)),
        "truncation_side": str(block.get("truncation_side", "")),
        "padding_side": str(block.get("padding_side", "right")),
    }
