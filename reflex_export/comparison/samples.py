# SPDX-License-Identifier: Apache-2.0
"""Observations to compare an export with LeRobot on: what a robot could see and measure, made from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.normalization.affine import Affine
from reflex_export.checkpoint import Checkpoint
from reflex_export.families.table import family
from reflex_export.options import ExportOptions

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

# (height, width): wide, high and square ones, smaller and larger than any network's; square ones alone would hide wrong bars
SIZES = ((480, 640), (360, 640), (224, 224), (640, 480), (100, 90), (720, 1280))
# what prompts do to a text: underscores, spaces around it, a line that has ended already, letters beyond ASCII
INSTRUCTIONS = ("pick up the red block", "fold_the_towel\n", "  reach the blue cube  ", "räum die Blöcke weg")
_LEAST_CELL, _MOST_CELL = 7, 45  # pixels: edges everywhere, and few enough to be packed well


@dataclass(frozen=True, slots=True)
class Sample:
    """One observation, with those before it where the policy sees several.

    described: what it is, for people. pictures: of each moment, oldest first, camera -> (height, width, 3) uint8 RGB.
    states: (moments, state_dim) float32 in the units of training.
    """

    described: str
    pictures: tuple[Mapping[str, Pixels], ...]
    states: Floats
    instruction: str


def random_samples(checkpoint: Checkpoint, options: ExportOptions, count: int) -> Iterator[Sample]:
    """Yield `count` samples: pictures of several sizes where the policy takes any, states as in training."""
    scales = not _has_one_size(checkpoint, options)
    for number in range(count):
        random = np.random.Generator(np.random.Philox(key=(options.seed, number)))
        size = SIZES[number % len(SIZES)] if scales else None
        moments = tuple(_pictures(random, checkpoint, size) for _ in range(checkpoint.observation_steps))
        states = _states(random, checkpoint)
        height, width = size or _largest(checkpoint)
        described = f"random, camera images of {width}x{height}" if checkpoint.cameras else "random"
        yield Sample(described, moments, states, INSTRUCTIONS[number % len(INSTRUCTIONS)])


def blackened(sample: Sample) -> Sample:
    """Return the same observation, seen in the dark."""
    dark = tuple(
        {camera: np.zeros_like(picture) for camera, picture in moment.items()} for moment in sample.pictures
    )
    return Sample(f"{sample.described}, blackened", dark, sample.states, sample.instruction)


def takes(checkpoint: Checkpoint, options: ExportOptions, sample: Sample) -> bool:
    """Return whether LeRobot's policy takes pictures of these sizes: some take none but those of their training."""
    sizes = {camera.camera: (camera.height, camera.width) for camera in checkpoint.cameras}
    return not _has_one_size(checkpoint, options) or all(
        picture.shape[:2] == sizes[camera] for moment in sample.pictures for camera, picture in moment.items()
    )


def _has_one_size(checkpoint: Checkpoint, options: ExportOptions) -> bool:
    """Return whether LeRobot's policy takes pictures of the size of its training alone."""
    slots = family(checkpoint.family).describe(checkpoint, options)["images"]
    return any(slot.get("size") == "exact" or slot.get("resize") == "stretch" for slot in slots)


def _largest(checkpoint: Checkpoint) -> tuple[int, int]:
    return max(((camera.height, camera.width) for camera in checkpoint.cameras), default=(0, 0))


def _pictures(
    random: np.random.Generator, checkpoint: Checkpoint, size: tuple[int, int] | None
) -> dict[str, Pixels]:
    return {
        camera.camera: _picture(random, *(size or (camera.height, camera.width)))
        for camera in checkpoint.cameras
        if not camera.empty
    }


def _picture(random: np.random.Generator, height: int, width: int) -> Pixels:
    """Return coloured rectangles under a slope: a bar, a flip or a shift of one pixel changes it in many places."""
    rows, columns = (np.cumsum(random.integers(_LEAST_CELL, _MOST_CELL, side)) for side in (height, width))
    colours = random.integers(0, 192, (height, width, 3), dtype=np.uint8)
    cells = colours[
        np.searchsorted(rows, np.arange(height), side="right")[:, None],
        np.searchsorted(columns, np.arange(width), side="right")[None],
    ]
    slope = np.linspace(0, 63, height)[:, None] * np.linspace(0, 1, width)[None]
    return cells + slope.astype(np.uint8)[:, :, None]


def _states(random: np.random.Generator, checkpoint: Checkpoint) -> Floats:
    """Return states within what training saw, by its statistics; what never moved there stays where it was."""
    statistics: Affine | None = checkpoint.normalization.state
    shape = (checkpoint.observation_steps, checkpoint.state_dim)
    numbers = random.uniform(-1, 1, shape)
    if statistics is None or statistics.dim != checkpoint.state_dim:
        return numbers.astype(np.float32)
    if statistics.constant is not None:
        numbers[:, statistics.constant] = 0.0
    return statistics.denormalise(numbers)
