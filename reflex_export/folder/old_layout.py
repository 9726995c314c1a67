# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of LeRobot 0.3 and older: statistics among the weights, no pipelines. They are converted to the layout of 0.4.

Only ACT and Diffusion Policy: the tensors of the others have changed their names since. Names of features are mapped
forward, dots as underscores, as config.json lists them: backward they would be ambiguous.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from reflex_core.concurrency.progress import report
from reflex_core.errors import ExportError
from reflex_core.export.processors import ACTION, POSTPROCESSOR, PREPROCESSOR
from reflex_core.normalization.affine import IDENTITY, MODES
from reflex_core.text.untrusted import shown
from reflex_export.checkpoint import WeightsFile
from reflex_export.folder.locate import POLICY_CONFIG, WEIGHTS
from reflex_export.folder.weights import LENGTH_BYTES, read_weights

BUFFERS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
CONVERTED = ("act", "diffusion")
OLD_LAYOUT = "old-layout"
STATE_FILES = {
    PREPROCESSOR: "policy_preprocessor_step_3_normalizer_processor.safetensors",
    POSTPROCESSOR: "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
}
_PART = 1 << 24  # bytes that are copied at a time


def is_old(folder: Path, weights: WeightsFile) -> bool:
    """Return whether a checkpoint has its statistics among its weights, and nowhere else."""
    return not (folder / PREPROCESSOR).exists() and any(name.startswith(BUFFERS) for name in weights.tensors)


def convert(folder: Path, family: str, config: Mapping[str, Any], work: Path) -> Path:
    """Write the pipelines of an old checkpoint into a new folder below `work`, and return it; the weights are linked.

    Raises ExportError where its statistics were never filled in, and for a family that cannot be converted.
    """
    if family not in CONVERTED:
        raise ExportError(
            f"{folder}: was saved by LeRobot 0.3 or older, and its tensors have other names since: migrate it with LeRobot"
            f" first: python -m lerobot.processor.migrate_policy_normalization --pretrained-path {folder}",
            OLD_LAYOUT,
        )
    converted = work / "converted"
    converted.mkdir()
    modes = _modes(folder / POLICY_CONFIG, config)
    inputs, outputs = dict(config.get("input_features") or {}), dict(config.get("output_features") or {})
    tables = {
        PREPROCESSOR: dict(_statistics(folder / WEIGHTS, inputs | outputs, modes)),
        POSTPROCESSOR: dict(_statistics(folder / WEIGHTS, outputs, modes)),
    }
    for file, table in tables.items():
        save_file(table, converted / STATE_FILES[file])
    rename = {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}}
    batch = {"registry_name": "to_batch_processor", "config": {}}
    device = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
    before = _step("normalizer_processor", inputs | outputs, modes, STATE_FILES[PREPROCESSOR])
    after = _step("unnormalizer_processor", outputs, modes, STATE_FILES[POSTPROCESSOR])
    _write(converted / PREPROCESSOR, [rename, batch, device, before])
    _write(converted / POSTPROCESSOR, [after, device])
    _dump(converted / POLICY_CONFIG, config)
    (converted / WEIGHTS).symlink_to((folder / WEIGHTS).resolve())
    return converted


def without_buffers(weights: WeightsFile, converted: Path) -> WeightsFile:
    """Put the weights themselves, less the statistics, in place of the link that `convert` made, and return them.

    Tensor by tensor, so that it takes no memory.
    """
    kept = {name: entry for name, entry in weights.tensors.items() if not name.startswith(BUFFERS)}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, entry in kept.items():
        size = entry.end - entry.start
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # tensors begin at a multiple of 8
    made = converted / f".{WEIGHTS}"
    with weights.path.open("rb") as source, made.open("wb") as target:
        target.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        done = 0
        for entry in kept.values():
            source.seek(weights.data_start + entry.start)
            left = entry.end - entry.start
            while left:
                part = source.read(min(left, _PART))
                target.write(part)
                left -= len(part)
                done += len(part)
                report(done / at, "copying the weights", f"{done // 1_000_000} of {at // 1_000_000} MB")
    made.replace(converted / WEIGHTS)
    return read_weights(converted / WEIGHTS)


def _modes(file: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return how the features of each type are normalised, in capitals."""
    mapping = config.get("normalization_mapping")
    if not isinstance(mapping, Mapping):
        raise ExportError(
            f"{file}: names no 'normalization_mapping', so that nothing says which statistics the policy was trained with",
            OLD_LAYOUT,
        )
    modes = {str(kind): str(mode).upper() for kind, mode in mapping.items()}
    for kind, mode in modes.items():
        if mode.lower() not in (*MODES, IDENTITY):
            raise ExportError(
                f"{file}: normalization_mapping.{kind} is not known here: {shown(mode)}", OLD_LAYOUT
            )
    return modes


def _statistics(
    file: Path, features: Mapping[str, Any], modes: Mapping[str, str]
) -> Iterator[tuple[str, Any]]:
    """Yield (`<feature>.<statistic>`, its float32 numbers) of every feature that is normalised."""
    with safe_open(str(file), framework="np") as tensors:
        there = set(tensors.keys())
        for feature, entry in features.items():
            mode = modes.get(str(entry.get("type")), IDENTITY).lower()
            for part in MODES.get(mode, ()):
                name = _buffer(feature, part, there)
                if name is None:
                    raise ExportError(
                        f"{file}: normalises {feature} by {mode}, and holds no '{part}' of it: its statistics are missing",
                        "statistics-missing",
                    )
                numbers = np.asarray(tensors.get_tensor(name), dtype=np.float32)
                if not np.isfinite(numbers).all():
                    raise ExportError(
                        f"{file}: {name} is infinite: LeRobot never filled in the statistics of {feature}; save the policy"
                        " again after it has seen its data set",
                        "bad-statistics",
                    )
                yield f"{feature}.{part}", numbers


def _buffer(feature: str, part: str, there: set[str]) -> str | None:
    """Return the tensor of one statistic; None where the file has none."""
    name = "buffer_" + feature.replace(".", "_")
    groups = ("unnormalize_outputs", "normalize_targets") if feature == ACTION else ("normalize_inputs",)
    return next((f"{group}.{name}.{part}" for group in groups if f"{group}.{name}.{part}" in there), None)


def _step(
    name: str, features: Mapping[str, Any], modes: Mapping[str, str], state_file: str
) -> dict[str, Any]:
    config = {"eps": 1e-8, "features": dict(features), "norm_map": dict(modes)}
    return {"registry_name": name, "config": config, "state_file": state_file}


def _write(file: Path, steps: list[dict[str, Any]]) -> None:
    _dump(file, {"name": file.stem, "steps": steps})


def _dump(file: Path, document: Any) -> None:
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
