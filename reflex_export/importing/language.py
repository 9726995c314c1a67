# SPDX-License-Identifier: Apache-2.0
"""The instruction of an imported policy: its token inputs, and the tokenizer, which is a file here and never a download."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.files.regular_file import unreadable
from reflex_export.folder.language_files import TOKENIZER, tokenizer_files
from reflex_export.importing.description_of import MISSING
from reflex_export.importing.graph_file import GraphFile
from reflex_export.importing.package_steps import Steps

# tokens and mask of physicalai, then of LeRobot's features
_INPUTS = (
    ("tokenized_prompt", "tokenized_prompt_mask"),
    ("observation.language.tokens", "observation.language.attention_mask"),
)


def language_block(
    graph: GraphFile, steps: Steps, folder: Path, given: Path | None, where: str
) -> tuple[dict[str, Any], Mapping[str, Path]]:
    """Return (`language` of reflex_config.json, the tokenizer's files); nothing of both where the graph reads no instruction.

    given: --tokenizer. Raises ExportError where there is no tokenizer, or no step that uses it.
    """
    tokens, mask = next((pair for pair in _INPUTS if pair[0] in graph.inputs), ("", ""))
    if not tokens:
        return {}, {}
    if steps.tokens is None:
        raise ExportError(
            f"{where}: the graph takes tokens ('{tokens}'), and no step of type hf_tokenizer makes them",
            MISSING,
        )
    block: dict[str, Any] = {
        "tokens": tokens, "mask": mask if mask in graph.inputs else None, "length": steps.tokens, "tokenizer": TOKENIZER,
        "max_length": steps.tokens, "padding_side": "right", "truncation": True, "template": "{instruction}",
        "strip": False, "replace": {}, "newline": steps.newline,
    }  # fmt: skip
    length = graph.inputs[tokens].shape[-1] if graph.inputs[tokens].shape else None
    if length is not None:
        block["length"] = length
    return block, {path.name: path for path in tokenizer_files(_tokenizer(folder, given, where))}


def _tokenizer(folder: Path, given: Path | None, where: str) -> Path:
    places = [given] if given is not None else [folder, folder / "tokenizer"]
    for place in places:
        file = place if place.name == TOKENIZER else place / TOKENIZER
        if not unreadable(file):
            return file.parent
    if given is not None:
        raise ExportError(f"{given}: holds no {TOKENIZER}, which --tokenizer names the folder of", MISSING)
    raise ExportError(
        f"{where}: the policy reads an instruction, and the folder holds no {TOKENIZER}: name a folder with the one it was"
        " trained with with --tokenizer",
        MISSING,
    )
