# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as LeRobot saves them, with weights of a few numbers: they can be read and refused, not exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from repository import FIXTURES
from safetensors.numpy import load_file, save_file

from reflex_export.options import ExportOptions

CHECKPOINTS = FIXTURES / "checkpoints"
FAMILIES = ("act", "diffusion", "smolvla", "pi0", "pi05", "xvla")
WORDS, VLM, DATASET = CHECKPOINTS / "words", CHECKPOINTS / "vlm", CHECKPOINTS / "dataset"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
BEFORE, AFTER = "policy_preprocessor.json", "policy_postprocessor.json"
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
# the words' embedding says how many tokens a policy knows
TENSORS = {
    "model.text_model.embed_tokens.weight": np.zeros((512, 1), np.float32),
    "model.action_out.weight": np.arange(12, dtype=np.float32).reshape(6, 2),
}


def checkpoint_folder(folder: Path, family: str = "act") -> Path:
    """A copy of one of FAMILIES that a test may change."""
    shutil.copytree(CHECKPOINTS / family, folder)
    save_file(TENSORS, folder / WEIGHTS)
    return folder


def options(**changed: Any) -> ExportOptions:
    """Options with everything that no checkpoint holds."""
    return ExportOptions(**{"tokenizer": WORDS, "vlm": VLM, "dataset": DATASET} | changed)


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def configure(folder: Path, **changed: Any) -> None:
    """Set keys of config.json."""
    edit(folder / CONFIG, lambda config: config.update(changed))


def step(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The step of a pipeline."""
    return next(entry for entry in document["steps"] if entry.get("registry_name") == name)


def statistics_of(folder: Path) -> Path:
    """The state file of the normalizer."""
    document = json.loads((folder / BEFORE).read_text())
    return folder / str(step(document, "normalizer_processor")["state_file"])


def without_statistics(folder: Path, *features: str) -> None:
    """Take features out of the normalizer's state file."""
    file = statistics_of(folder)
    kept = {key: value for key, value in load_file(file).items() if key.rpartition(".")[0] not in features}
    save_file(kept, file)


def old_buffers(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The statistics of the modes in use, as LeRobot 0.3 keeps them among the weights."""
    config = json.loads((folder / CONFIG).read_text())
    table = load_file(statistics_of(folder))
    parts = {"MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"), "IDENTITY": ()}
    buffers: dict[str, Any] = {}
    for features, groups in (
        (config["input_features"], ("normalize_inputs",)),
        (config["output_features"], ("normalize_targets", "unnormalize_outputs")),
    ):
        for name, feature in features.items():
            for part in parts[config["normalization_mapping"][feature["type"]]]:
                for group in groups:
                    buffers[f"{group}.buffer_{name.replace('.', '_')}.{part}"] = table[f"{name}.{part}"]
    return buffers


def old_layout(folder: Path, family: str = "act", **changed: NDArray[np.float32]) -> Path:
    """A checkpoint of LeRobot 0.3: no pipelines, the statistics of the modes in use among the weights.

    changed: buffers by their name, with __ for a dot.
    """
    checkpoint_folder(folder, family)
    buffers = old_buffers(folder)
    buffers |= {name.replace("__", "."): value for name, value in changed.items()}
    for file in folder.glob("policy_*"):
        file.unlink()
    save_file(TENSORS | buffers, folder / WEIGHTS)
    return folder
