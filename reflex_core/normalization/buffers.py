# SPDX-License-Identifier: Apache-2.0
"""Read the statistics that LeRobot 0.3 and older stored among the weights, in model.safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reflex_core.errors import ExportError
from reflex_core.files.json_fields import JsonError, read_object
from reflex_core.normalization.affine import IDENTITY, MODES
from reflex_core.normalization.statistics_file import Numbers, read_table

WEIGHTS, POLICY_CONFIG = "model.safetensors", "config.json"
# names forward, dots as underscores; backward they would be ambiguous
BUFFERS = {
    "state": ("normalize_inputs.buffer_observation_state",),
    "action": ("unnormalize_outputs.buffer_action", "normalize_targets.buffer_action"),
}


@dataclass(frozen=True, slots=True)
class Buffers:
    """statistics: `state` and `action` -> statistic -> numbers. modes: how they are normalised, `identity` without numbers."""

    file: Path
    statistics: Mapping[str, Mapping[str, Numbers]]
    modes: Mapping[str, str]


def read_buffers(folder: Path) -> Buffers | None:
    """Return the statistics among the weights, None where there are none. Raises ExportError where they were never filled."""
    file = folder / WEIGHTS
    if not file.exists():
        return None
    table = read_table(file, [name + "." for names in BUFFERS.values() for name in names])
    if not table:
        return None
    statistics = {
        key: next((table[name] for name in names if name in table), {}) for key, names in BUFFERS.items()
    }
    for key, numbers in statistics.items():
        for part, values in numbers.items():
            if np.isinf(values).any():
                raise ExportError(
                    f"{file}: {BUFFERS[key][0]}.{part} is infinite: LeRobot never filled in the statistics of the {key}; save"
                    " the policy again after it has seen its dataset",
                    "bad-statistics",
                )
    written = _written(folder / POLICY_CONFIG)
    return Buffers(
        file, statistics, {key: written.get(key.upper(), _mode(found)) for key, found in statistics.items()}
    )


def _mode(numbers: Mapping[str, Numbers]) -> str:
    """Return the mode by the stored numbers: 0.3 stores only those of the mode in use."""
    return next((mode for mode, parts in MODES.items() if set(parts) <= set(numbers)), IDENTITY)


def _written(path: Path) -> dict[str, str]:
    """Return the modes in LeRobot's config.json, where it is next to the weights."""
    try:
        mapping = read_object(path).get("normalization_mapping")
    except FileNotFoundError:
        return {}
    except (JsonError, OSError) as error:
        raise ExportError(f"{path}: {error}") from error
    modes = {key: str(mode).lower() for key, mode in mapping.items()} if isinstance(mapping, dict) else {}
    for key, mode in modes.items():
        if mode not in (*MODES, IDENTITY):
            raise ExportError(f"{path}: normalization_mapping.{key} is not known here: {mode!r}")
    return modes
