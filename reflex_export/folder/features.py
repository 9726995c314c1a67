# SPDX-License-Identifier: Apache-2.0
"""What a policy reads and writes: `input_features` and `output_features` of its config.json."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.export.processed import IMAGES
from reflex_core.export.processors import ACTION, STATE
from reflex_core.files.json_fields import JsonFields, is_whole, refusing
from reflex_core.text.untrusted import escaped, shown
from reflex_export.checkpoint import CameraFeature

EMPTY = f"{IMAGES}empty_camera_"
MOST_SIDE, MOST_NUMBERS = 8192, 10_000
FEATURES_REFUSED = "features-refused"


@dataclass(frozen=True, slots=True)
class Features:
    """cameras: in the policy's order. state_dim: 0 where it reads no state. notes: one sentence each."""

    cameras: tuple[CameraFeature, ...]
    state_dim: int
    action_dim: int
    notes: tuple[str, ...] = ()


def read_features(file: Path, config: Mapping[str, Any], rename: Mapping[str, str]) -> Features:
    """Return the features of a config.json. rename: the robot's name of an observation -> the policy's.

    Raises ExportError for what no robot measures, and for what is no picture, state or action.
    """
    fields = JsonFields(config, refusing(str(file), lambda message: ExportError(message, FEATURES_REFUSED)))
    inputs, outputs = fields.fields("input_features"), fields.fields("output_features")
    for name, entry in (*inputs.items(), *outputs.items()):
        if not isinstance(entry, dict) or not _is_shape(entry.get("shape")):
            raise fields.refusal(f"features.{escaped(name)}", "an object with type and shape", entry)
    if measured := next((name for name, entry in inputs.items() if entry.get("type") == "ENV"), None):
        raise ExportError(
            f"{file}: the policy reads {shown(measured)}, the state of a simulated world, which no robot measures",
            FEATURES_REFUSED,
        )
    old_names = {new: old for old, new in rename.items()}
    pictures = [(name, entry["shape"]) for name, entry in inputs.items() if entry.get("type") == "VISUAL"]
    states = {name: entry["shape"] for name, entry in inputs.items() if entry.get("type") == "STATE"}
    if states and STATE not in states:
        raise ExportError(
            f"{file}: the policy reads {shown(next(iter(states)))}, and no {STATE}, which is the one that is served",
            FEATURES_REFUSED,
        )
    return Features(
        cameras=tuple(_cameras(file, pictures, old_names)),
        state_dim=_vector(file, STATE, states[STATE]) if states else 0,
        action_dim=_action_dim(file, outputs),
        notes=tuple(
            f"{name} is listed in config.json, and LeRobot does not feed it to the policy: neither does the export"
            for name in states
            if name != STATE
        ),
    )


def _is_shape(shape: object) -> bool:
    return isinstance(shape, list) and all(is_whole(size, 1, MOST_NUMBERS) for size in shape)


def _vector(file: Path, name: str, shape: list[int]) -> int:
    if len(shape) != 1:
        raise ExportError(
            f"{file}: {name} must be one row of numbers, got shape {shown(shape)}", FEATURES_REFUSED
        )
    return shape[0]


def _action_dim(file: Path, outputs: Mapping[str, Any]) -> int:
    if set(outputs) != {ACTION}:
        raise ExportError(
            f"{file}: output_features must be '{ACTION}' alone, got {shown(sorted(outputs))}",
            FEATURES_REFUSED,
        )
    return _vector(file, ACTION, outputs[ACTION]["shape"])


def _cameras(
    file: Path, pictures: list[tuple[str, list[int]]], old_names: Mapping[str, str]
) -> Iterator[CameraFeature]:
    """Yield the cameras, those that had none in training last, as LeRobot feeds them."""
    taken: set[str] = set()
    for name, shape in sorted(pictures, key=lambda picture: picture[0].startswith(EMPTY)):
        if len(shape) != 3 or shape[0] != 3 or max(shape) > MOST_SIDE:
            raise ExportError(
                f"{file}: {shown(name)} must be a colour picture of shape [3, height, width], got {shown(shape)}: depth and"
                " grey pictures are not served",
                FEATURES_REFUSED,
            )
        observation = old_names.get(name, name)
        camera = observation.removeprefix(IMAGES).removeprefix("observation.")
        slot = re.sub(r"\W", "_", name.removeprefix(IMAGES).removeprefix("observation."), flags=re.ASCII)
        while slot in taken:
            slot += "_"
        taken.add(slot)
        yield CameraFeature(name, observation, camera, slot, shape[1], shape[2], name.startswith(EMPTY))
