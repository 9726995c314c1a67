# SPDX-License-Identifier: Apache-2.0
"""Observations as files: one JSON file each, next to the camera images that it names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.files.json_fields import JsonFields, read_bounded, read_object, refusing
from reflex_core.images.raw_encodings import encoded_size
from reflex_core.values import Floats, Frame, Observation

PICTURE_BYTES = 256 << 20


def read_observations(folder: Path) -> list[Observation]:
    """Read every `*.json` of the folder, by name.

    {"instruction": "...", "state": [...], "images": {"camera": "file.png"}}; state in physical units, images PNG or
    JPEG, relative to the folder. `history`: a list of objects with `state` and `images`, the observations before it, oldest
    first, for a policy that sees several. Raises ObservationError naming file, key, expected and got.
    """
    return list(named_observations(folder).values())


def named_observations(folder: Path) -> dict[str, Observation]:
    """Read the same by the names of their files without the suffix; img-2 comes before img-10."""
    files = sorted(folder.glob("*.json"), key=lambda path: _natural(path.stem))
    if not files:
        raise ObservationError(f"{folder}: expected a folder with one JSON file per observation, found none")
    return {path.stem: read_observation(path) for path in files}


def _natural(name: str) -> list[tuple[str, int]]:
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def read_observation(path: Path) -> Observation:
    """Read one observation and the images that it names. Raises ObservationError naming file, key, expected and got."""
    try:
        document = read_object(path)
    except OSError as error:
        raise ObservationError(f"{path}: not readable as JSON: {error.strerror or error}") from error
    except ValueError as error:
        raise ObservationError(f"{path}: {error}") from error
    refuse = refusing(str(path), ObservationError)
    fields = JsonFields(document, refuse)
    instruction, entries = fields.text("instruction", ""), fields.get("history", [])
    if not isinstance(entries, list):
        raise fields.refusal("history", "a list of objects")
    history = tuple(
        _sensors(JsonFields(entry, refuse, f"history[{number}]"), path, instruction)
        for number, entry in enumerate(entries)
    )
    return replace(_sensors(fields, path, instruction), history=history)


def _sensors(fields: JsonFields, path: Path, instruction: str) -> Observation:
    """Read images and state of one observation."""
    images = fields.get("images", {})
    if not isinstance(images, dict) or not all(isinstance(name, str) for name in images.values()):
        raise fields.refusal("images", "an object of camera name to file name")
    frames = {camera: _frame(path.parent / name, path) for camera, name in images.items()}
    return Observation(frames, _state(fields), instruction)


def _state(fields: JsonFields) -> Floats | None:
    if fields.get("state") is None:
        return None
    return fields.numbers("state").astype(np.float32)


def _frame(path: Path, named_in: Path) -> Frame:
    try:
        data = read_bounded(path, PICTURE_BYTES)
    except OSError as error:
        raise ObservationError(f"{path}: {error.strerror or error}; {named_in} names it") from error
    except ValueError as error:
        raise ObservationError(f"{path}: {error}; {named_in} names it") from error
    try:
        encoding, height, width = encoded_size(data)
    except ObservationError as error:
        raise ObservationError(f"{path}: {error}") from error
    return Frame(data, encoding, height, width)
