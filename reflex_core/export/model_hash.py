# SPDX-License-Identifier: Apache-2.0
"""The hash of everything in an export that can change an action, but its configuration, which has one of its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.export.onnx_data import external_data
from reflex_core.files.json_fields import leaves
from reflex_core.files.regular_file import unreadable

HASH_LENGTH = 16
WEIGHT_PATTERNS = ("*.onnx", "*.bin", "*.data")
MONOLITHIC_FILES = (
    "model.onnx",
    "monolithic/model.onnx",
    "pi0_monolithic.onnx",
    "smolvla_monolithic/model.onnx",
    "smolvla_monolithic.onnx",
)
# what is read without being named, where it is there
_BY_NAME = (
    "policy_preprocessor*.json",
    "policy_postprocessor*.json",
    "policy_preprocessor*.safetensors",
    "policy_postprocessor*.safetensors",
    "state_proj_*.npy",
    "tokenizer.json",
    "tokenizer/tokenizer.json",
)
_BESIDE_TOKENIZERS = ("tokenizer_config.json", "special_tokens_map.json")
_BLOCK = 1 << 20


def model_hash(path: Path, config: Mapping[str, Any] | None = None, also: Iterable[Path] = ()) -> str:
    """Return the first 16 hex digits of SHA-256 over all that determines an export's actions: the first of `model_hashes`."""
    return model_hashes(path, config, also)[0]


def model_hashes(
    path: Path, config: Mapping[str, Any] | None = None, also: Iterable[Path] = ()
) -> tuple[str, str]:
    """Return (model_hash, weights_hash), each the first 16 hex digits of a SHA-256.

    model_hash: first basename and content of every weight file (WEIGHT_PATTERNS), sorted by path: those at the top, or, where none lie
    there, those one folder down. That is the published hash of exports that consist of nothing else. Then, each as zero
    byte, path in the export, zero byte and content, sorted: graphs elsewhere, the external data that graphs name under
    whatever name, statistics, processors, tokenizers, and every other file that the configuration names.
    weights_hash: over the weight files alone, which is the model_hash of the first versions in traces, thresholds and
    calibrations.

    config: reflex_config.json. also: further files, in the export. Raises ExportError for what is no regular file, and for
    external data that is missing or outside the export.
    """
    digest = hashlib.sha256()
    weights = _weights(path)
    for file in weights:
        digest.update(file.name.encode())
        _feed(digest, file)
    weights_hash = digest.copy().hexdigest()[:HASH_LENGTH]
    done = {os.path.abspath(file) for file in weights}
    named = {os.path.abspath(file) for file in (*_named(path, config or {}), *also)}
    graphs = [Path(file) for file in done | named if file.endswith(".onnx")]
    named |= {os.path.abspath(file) for graph in graphs for file in _external(path, graph)}
    for name in sorted(named - done):
        digest.update(b"\0" + Path(os.path.relpath(name, path)).as_posix().encode() + b"\0")
        _feed(digest, Path(name))
    return digest.hexdigest()[:HASH_LENGTH], weights_hash


def _weights(path: Path) -> list[Path]:
    top, below = (
        sorted({found for pattern in WEIGHT_PATTERNS for found in path.glob(f"{folder}{pattern}")})
        for folder in ("", "*/")
    )
    return top or below


def _feed(digest: Any, file: Path) -> None:
    if why := unreadable(file):
        raise ExportError(f"{file}: must be a regular file, it is {why}", "export-file-missing")
    try:
        with file.open("rb", buffering=0) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise ExportError(f"{file}: cannot be read: {error.strerror or error}") from error


def _named(path: Path, config: Mapping[str, Any]) -> Iterator[Path]:
    """Yield files of the export that its configuration names, or that are read when they exist."""
    for pattern in _BY_NAME:
        yield from path.glob(pattern)
    if config.get("export_kind") == "monolithic":
        yield from (path / name for name in MONOLITHIC_FILES if (path / name).is_file())
    folder = config.get("tokenizer_path")
    texts = [text for text in leaves(config) if isinstance(text, str)]
    texts += [f"{folder}/tokenizer.json"] if isinstance(folder, str) else []
    home = os.path.abspath(path)
    for text in texts:
        file = _inside(path, home, text)
        if file is not None:
            yield file
            if file.suffix == ".json":
                yield from (found for name in _BESIDE_TOKENIZERS if (found := file.parent / name).is_file())
    for tokenizer in (*path.glob("tokenizer.json"), *path.glob("tokenizer/tokenizer.json")):
        yield from (found for name in _BESIDE_TOKENIZERS if (found := tokenizer.parent / name).is_file())


# these describe the others, or the robot, and make no action
_NOT_THE_MODEL = (
    "reflex_config.json",
    "tether_config.json",
    "parity.npz",
    "VERIFICATION.md",
    "embodiment.json",
)


def _inside(path: Path, home: str, text: str) -> Path | None:
    if not text or len(text) > 500 or "\0" in text:
        return None
    file = Path(os.path.abspath(path / text))
    if not file.is_relative_to(home) or file.name in _NOT_THE_MODEL:
        return None
    try:
        return file if file.is_file() else None
    except OSError:
        return None


def _external(path: Path, graph: Path) -> Iterator[Path]:
    try:
        locations = external_data(graph)
    except OSError as error:
        raise ExportError(f"{graph}: cannot be read: {error.strerror or error}") from error
    home = os.path.abspath(path)
    for location in locations:
        file = Path(os.path.abspath(graph.parent / location))
        if not location or Path(location).is_absolute() or not file.is_relative_to(home):
            raise ExportError(
                f"{graph}: keeps weights in '{location[:120]}', outside the export directory: an export brings all of itself"
            )
        if why := unreadable(file):
            raise ExportError(f"{file}: {why}: {graph.name} keeps weights in it", "export-file-missing")
        yield file
