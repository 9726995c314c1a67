# SPDX-License-Identifier: Apache-2.0
"""An export directory: its configuration, hashes, statistics. Reads nothing outside the directory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from reflex_core.errors import ExportError
from reflex_core.files.json_fields import JsonError, read_json
from reflex_core.values import Floats

CONFIG_NAME = "reflex_config.json"
WEIGHT_PATTERNS = ("*.onnx", "*.bin", "*.data")
HASH_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Affine:
    """What normalisation is, whatever it is called: normalised = (physical - shift) / scale, per dimension."""

    shift: NDArray[np.float64]
    scale: NDArray[np.float64]

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.shift)

    def normalise(self, physical: NDArray[Any]) -> Floats:
        """(..., dim) physical units to the policy's units, float32."""
        return ((physical - self.shift) / self.scale).astype(np.float32)

    def denormalise(self, normalised: NDArray[Any]) -> Floats:
        """(..., dim) the policy's units to physical units, float32."""
        return (normalised * self.scale + self.shift).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Export:
    """One export on disk. `config` is reflex_config.json as it was written."""

    path: Path
    config: Mapping[str, Any]
    model_id: str
    model_hash: str
    config_hash: str
    state_statistics: Affine | None
    action_statistics: Affine | None

    @property
    def says_how_it_normalises(self) -> bool:
        """True when it brings statistics, or writes that it needs none (`"mode": "identity"`)."""
        written = self.config.get("normalization") or {}
        brings = self.state_statistics is not None or self.action_statistics is not None
        return brings or bool({"state", "action"} & set(written))

    @property
    def model_version(self) -> str:
        """`<model id>@<model hash>`, what replies and traces call the model."""
        return f"{self.model_id}@{self.model_hash}"

    def file(self, name: str, purpose: str) -> Path:
        """A file of the export. Raises ExportError when it is not there or points outside the directory."""
        path = self.path / name
        # by name, not by link target: caches of model hubs are made of links
        if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(self.path)):
            raise ExportError(
                f"{self.path / CONFIG_NAME}: '{name}' ({purpose}) lies outside the export directory"
            )
        if not path.is_file():
            raise ExportError(f"{path}: missing: the export needs it as {purpose}", "export-file-missing")
        return path


def open_export(path: Path) -> Export:
    """Read the configuration, statistics and hashes of an export. Raises ExportError in one sentence."""
    if not path.is_dir():
        raise ExportError(f"{path}: no such export directory", "export-missing")
    config = _read_config(path / CONFIG_NAME)
    state, action = _statistics(path, config)
    return Export(
        path=path,
        config=config,
        model_id=_model_id(config, path),
        model_hash=model_hash(path),
        config_hash=config_hash(config),
        state_statistics=state,
        action_statistics=action,
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        document = read_json(path)
    except FileNotFoundError as error:
        raise ExportError(f"{path}: missing: every export needs one", "export-file-missing") from error
    except JsonError as error:
        raise ExportError(f"{path}: {error}") from error
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not isinstance(document, dict):
        raise ExportError(f"{path}: must hold a JSON object, got {type(document).__name__}")
    return document


def _model_id(config: Mapping[str, Any], path: Path) -> str:
    """The last part of `model_id`: it travels in headers and labels, so it is kept short and plain."""
    name = str(config.get("model_id") or path.resolve().name).rstrip("/").rsplit("/", 1)[-1]
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)[:80]


def model_hash(path: Path) -> str:
    """First 16 hex digits of SHA-256 over basename and content of every weight file, sorted by name.

    External data (`*.data`) counts, so the weights of large exports are covered. Where none lie at the top, those one
    folder down count: some exporters put their graphs in `monolithic/`.
    """
    digest = hashlib.sha256()
    top, below = (
        sorted({found for pattern in WEIGHT_PATTERNS for found in path.glob(f"{folder}{pattern}")})
        for folder in ("", "*/")
    )
    for file in top or below:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:HASH_LENGTH]


def config_hash(config: Mapping[str, Any]) -> str:
    """First 16 hex digits of SHA-256 over the configuration as compact JSON with sorted keys."""
    compact = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(compact.encode()).hexdigest()[:HASH_LENGTH]


def _statistics(path: Path, config: Mapping[str, Any]) -> tuple[Affine | None, Affine | None]:
    """(state, action) statistics: from reflex_config.json, else from the policy processors' safetensors."""
    block = config.get("normalization") or {}
    where = f"{path / CONFIG_NAME}: normalization"
    if not isinstance(block, Mapping):
        raise ExportError(f"{where} must be an object, got {block!r}")
    if "state" in block or "action" in block:
        state, action = (
            _affine(block[key], f"{where}.{key}") if key in block else None for key in ("state", "action")
        )
        return state, action
    mode = str(block.get("mode", "mean_std"))
    return (
        _from_safetensors(path, "policy_preprocessor*.safetensors", "observation.state", mode),
        _from_safetensors(path, "policy_postprocessor*.safetensors", "action", mode),
    )


_MODES = {"mean_std": ("mean", "std"), "min_max": ("min", "max"), "quantiles": ("q01", "q99")}


def _affine(block: Any, where: str) -> Affine | None:
    if not isinstance(block, Mapping):
        raise ExportError(f"{where} must be an object, got {block!r}")
    mode = block.get("mode", "mean_std")
    if mode == "identity":
        return None
    if not isinstance(mode, str) or mode not in _MODES:
        raise ExportError(f"{where}.mode must be one of {', '.join(_MODES)} or identity, got {mode!r}")
    first, second = _MODES[mode]
    return affine(mode, block.get(first), block.get(second), where)


def affine(mode: str, first: Any, second: Any, where: str) -> Affine:
    """Statistics of one mode as shift and scale. Raises ExportError when they are not finite numbers that pair up."""
    names = _MODES[mode]
    try:
        low, high = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ExportError(f"{where}: '{names[0]}' and '{names[1]}' must be lists of numbers") from error
    if low.ndim != 1 or low.shape != high.shape or low.size == 0:
        raise ExportError(
            f"{where}: '{names[0]}' and '{names[1]}' must be lists of the same length, got {low.shape} and {high.shape}"
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ExportError(f"{where}: the statistics hold NaN or Inf", "bad-statistics")
    shift, scale = (low, high) if mode == "mean_std" else ((low + high) / 2, (high - low) / 2)
    if (scale < 0).any():
        raise ExportError(
            f"{where}: '{names[1]}' must not be {'negative' if mode == 'mean_std' else 'below the other'}"
        )
    # a dimension that never moved in training has no spread; 1e-8 is what the training code adds to it
    return Affine(shift, np.maximum(scale, 1e-8))


def _from_safetensors(path: Path, pattern: str, prefix: str, mode: str) -> Affine | None:
    if mode not in _MODES:
        raise ExportError(
            f"{path / CONFIG_NAME}: normalization.mode must be one of {', '.join(_MODES)}, got {mode!r}"
        )
    for file in sorted(path.glob(pattern)):
        try:
            with safe_open(str(file), framework="np") as tensors:
                found = {
                    part: tensors.get_tensor(key)
                    for part in _MODES[mode]
                    for key in tensors.keys()  # noqa: SIM118  (not a mapping)
                    if key == f"{prefix}.{part}" or key.endswith(f".{prefix}.{part}")
                }
        except (OSError, SafetensorError) as error:
            raise ExportError(f"{file}: not readable as safetensors: {error}") from error
        if len(found) == len(_MODES[mode]):
            first, second = (found[part].reshape(-1) for part in _MODES[mode])
            return affine(mode, first, second, str(file))
    return None
