# SPDX-License-Identifier: Apache-2.0
"""Folders with the processor files that LeRobot saves beside a policy, made up to the number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

Step = tuple[str, Mapping[str, Any]]

PADDED = [32]  # a shape that stands beside statistics of any smaller width

RENAME: Step = ("rename_observations_processor", {"rename_map": {}})
BATCH: Step = ("to_batch_processor", {})
DEVICE: Step = ("device_processor", {"device": "cuda", "float_dtype": None})
NEWLINE: Step = ("smolvla_new_line_processor", {})
PREPARE: Step = ("pi05_prepare_state_tokenizer_processor_step", {})
TOKENIZER: Step = (
    "tokenizer_processor",
    {"tokenizer_name": "somebody/words", "max_length": 8, "padding": "max_length", "padding_side": "right",
     "truncation": True, "task_key": "task"},
)  # fmt: skip
NOT_RELATIVE: Step = (
    "relative_actions_processor", {"enabled": False, "exclude_joints": [], "action_names": None}
)  # fmt: skip
NOT_ABSOLUTE: Step = ("absolute_actions_processor", {"enabled": False})
ABSOLUTE: Step = ("absolute_actions_processor", {"enabled": True})


def relative(name: str = "relative_actions_processor", **config: Any) -> Step:
    return name, {"enabled": True} | config


def normalizer(
    state: str = "MEAN_STD", action: str = "MEAN_STD", visual: str = "IDENTITY", **config: Any
) -> Step:
    features = {
        "observation.state": {"type": "STATE", "shape": PADDED},
        "action": {"type": "ACTION", "shape": PADDED},
    }
    return "normalizer_processor", {
        "eps": 1e-8, "norm_map": {"VISUAL": visual, "STATE": state, "ACTION": action}, "features": features
    } | config  # fmt: skip


def unnormalizer(action: str = "MEAN_STD", **config: Any) -> Step:
    return "unnormalizer_processor", {
        "eps": 1e-8, "norm_map": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": action},
        "features": {"action": {"type": "ACTION", "shape": PADDED}},
    } | config  # fmt: skip


def statistics(path: Path, **features: Mapping[str, Sequence[float]]) -> None:
    """A state file; `observation__state` is the feature observation.state."""
    tensors = {
        f"{feature.replace('__', '.')}.{name}": np.asarray(values, dtype=np.float32)
        for feature, found in features.items()
        for name, values in found.items()
    }
    save_file(tensors, path)


def pipelines(path: Path, before: Sequence[Step], after: Sequence[Step]) -> Path:
    """Both JSON files; a step that normalises names `before.safetensors` or `after.safetensors` as its state file."""
    path.mkdir(parents=True, exist_ok=True)
    for kind, steps, file in (("pre", before, "before"), ("post", after, "after")):
        entries = []
        for name, config in steps:
            entry = {"registry_name": name, "config": dict(config)}
            if name.endswith("normalizer_processor"):
                entry["state_file"] = f"{file}.safetensors"
            entries.append(entry)
        document = {"name": f"policy_{kind}processor", "steps": entries}
        (path / f"policy_{kind}processor.json").write_text(json.dumps(document))
    return path


MEAN, STD = [1.0, -2.0], [0.5, 4.0]
LOW, HIGH = [-1.0, 10.0], [3.0, 20.0]
Q01, Q99, Q10, Q90 = [-1.5, 0.0], [2.5, 1.0], [-1.0, 0.25], [1.0, 0.5]
EVERYTHING = {
    "mean": MEAN, "std": STD, "min": LOW, "max": HIGH, "q01": Q01, "q99": Q99, "q10": Q10, "q90": Q90, "q50": MEAN,
    "count": [100.0],
}  # fmt: skip


def folder(
    path: Path, before: Sequence[Step], after: Sequence[Step], config: Mapping[str, Any] | None = None
) -> Path:
    """An export's folder without graphs: reflex_config.json, both pipelines, and statistics of two dimensions."""
    pipelines(path, before, after)
    (path / "reflex_config.json").write_text(json.dumps(dict(config or {})))
    statistics(path / "before.safetensors", observation__state=EVERYTHING, action=EVERYTHING)
    statistics(path / "after.safetensors", observation__state=EVERYTHING, action=EVERYTHING)
    return path
