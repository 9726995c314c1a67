# SPDX-License-Identifier: Apache-2.0
"""Find the tokenizer and the vision-language model's config: no checkpoint holds them, it only names them on a hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.export.processors import PREPROCESSOR
from reflex_core.files.json_fields import JsonError, read_object
from reflex_core.files.regular_file import unreadable
from reflex_core.text.untrusted import escaped
from reflex_export.checkpoint import WeightsFile
from reflex_export.folder.locate import hub_snapshots, is_hub_name

TOKENIZER = "tokenizer.json"
VLM_CONFIG = "config.json"
WORDS = ("smolvla", "pi0", "pi05", "xvla")  # families that read an instruction
_SIDE_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def find_tokenizer(folder: Path, given: Path | None) -> Path:
    """Return the folder with tokenizer.json: the one given, else where the pipeline's `tokenizer_name` is on this machine.

    Raises ExportError with what to fetch.
    """
    name = _tokenizer_name(folder)
    places = [given] if given is not None else _places(folder, name)
    for place in places:
        file = place if place.name == TOKENIZER else place / TOKENIZER
        if not unreadable(file):
            return file.parent
    if given is not None:
        raise ExportError(
            f"{given}: holds no {TOKENIZER}, which --tokenizer names the folder of", "tokenizer-missing"
        )
    called = f" ({escaped(name)})" if name else ""
    raise ExportError(
        f"{folder}: no checkpoint holds its tokenizer{called}: name a folder with its {TOKENIZER} with"
        f" --tokenizer{_fetched(name)}",
        "tokenizer-missing",
    )


def find_vlm(config: Mapping[str, Any], folder: Path, given: Path | None) -> Path:
    """Return the folder with the config.json of SmolVLA's vision-language model. Raises ExportError with what to fetch."""
    name = config.get("vlm_model_name", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct")
    places = [given] if given is not None else _places(None, name)
    for place in places:
        found = place.parent if place.name == VLM_CONFIG else place
        if not unreadable(found / VLM_CONFIG):
            _check_vlm(found / VLM_CONFIG)
            return found
    if given is not None:
        raise ExportError(f"{given}: holds no {VLM_CONFIG}, which --vlm names the folder of", "vlm-missing")
    raise ExportError(
        f"{folder}: no checkpoint holds the config of its vision-language model ({escaped(str(name))}): name a folder with its"
        f" {VLM_CONFIG} with --vlm{_fetched(name)}",
        "vlm-missing",
    )


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of a tokenizer that an export brings."""
    return tuple(
        path for path in (folder / TOKENIZER, *(folder / name for name in _SIDE_FILES)) if path.is_file()
    )


def check_vocabulary(folder: Path, weights: WeightsFile) -> None:
    """Raise ExportError where a tokenizer makes tokens that the policy has no embedding of: it is another one."""
    from tokenizers import Tokenizer

    file = folder / TOKENIZER
    try:
        words = Tokenizer.from_file(str(file)).get_vocab(
            with_added_tokens=False
        )  # PaliGemma's <image> has no embedding
    except Exception as error:  # the library raises plain Exception
        raise ExportError(
            f"{file}: is no tokenizer: {escaped(str(error), 200)}", "tokenizer-missing"
        ) from error
    rows = [
        entry.shape[0] for name, entry in weights.tensors.items()
        if name.endswith(("embed_tokens.weight", ".shared.weight")) and len(entry.shape) == 2
    ]  # fmt: skip
    tokens = max(words.values(), default=0) + 1
    if rows and tokens > max(rows):
        raise ExportError(
            f"{file}: makes {tokens} different tokens, and the policy knows {max(rows)}: it is the tokenizer of another model",
            "tokenizer-mismatch",
        )


def _places(folder: Path | None, name: Any) -> list[Path]:
    """Return where something that is called so on a hub may be: in the checkpoint, at that path, in the hub's cache."""
    named = Path(name) if isinstance(name, str) and name else None
    return [place for place in (folder, named, *hub_snapshots(name)) if place is not None]


def _fetched(name: object) -> str:
    """Return how to fetch what is called so on the hub; '' for another text of a checkpoint, which no shell is to see."""
    return (
        f": `hf download {name} --include '*.json'` fetches it where there is a network"
        if is_hub_name(name)
        else ""
    )


def _tokenizer_name(folder: Path) -> str:
    """Return what the tokenizer step of the pipeline names; '' where it names none."""
    steps = read_object(folder / PREPROCESSOR).get("steps", [])
    configs = [
        step.get("config") or {} for step in steps if step.get("registry_name") == "tokenizer_processor"
    ]
    return str(configs[0].get("tokenizer_name") or "") if configs else ""


def _check_vlm(file: Path) -> None:
    try:
        document = read_object(file)
    except (JsonError, OSError) as error:
        raise ExportError(f"{file}: {error}", "vlm-missing") from error
    if "text_config" not in document or "vision_config" not in document:
        raise ExportError(
            f"{file}: describes no vision-language model: it needs text_config and vision_config (--vlm names the model that"
            " SmolVLA was built on, not the policy)",
            "vlm-missing",
        )
