# SPDX-License-Identifier: Apache-2.0
"""What a robot sees and measures, made anew from a number; needs numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZES = ((480, 640), (360, 640), (224, 224), (512, 512), (100, 90), (720, 1280))  # (height, width)
TASKS = ("pick up the red block", "fold_the_towel\n", "  reach the blue cube  ", "räum die Blöcke 🧱 weg")
# rad; a gripper from 0 to 1. No two joints have the same middle or the same size.
RANGES = np.array([[-1.9, 1.7], [-3.2, 0.4], [-0.3, 2.9], [-1.6, 1.2], [-0.25, 0.15], [0.02, 0.98]])


@dataclass(frozen=True)
class RawObservation:
    """One moment: camera -> (height, width, 3) uint8 RGB, state (n,) float32 in the robot's units, what is to be done."""

    pictures: dict[str, NDArray[np.uint8]]
    state: NDArray[np.float32]
    task: str


def observation(
    seed: int,
    size: tuple[int, int] = SIZES[0],
    cameras: Sequence[str] = ("top", "wrist"),
    task: str | None = None,
) -> RawObservation:
    """Make one; every camera has a picture of its own, and the state goes a little beyond the ranges of training."""
    random = np.random.default_rng(seed)
    pictures = {camera: _scene(random, *size) for camera in cameras}
    share = random.uniform(-0.1, 1.1, len(RANGES))
    state = (RANGES[:, 0] + share * (RANGES[:, 1] - RANGES[:, 0])).astype(np.float32)
    return RawObservation(pictures, state, TASKS[seed % len(TASKS)] if task is None else task)


def noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw standard normal numbers, as docs/reference/exports.md says that start noise is made."""
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32)


def _scene(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Coloured squares of 40 pixels under noise: a bar, a flip or a shift of one pixel changes it everywhere."""
    few = random.integers(0, 256, (-(-height // 40), -(-width // 40), 3))
    squares = few.repeat(40, axis=0).repeat(40, axis=1)[:height, :width]
    return (squares * 3 // 4 + random.integers(0, 64, (height, width, 3))).astype(np.uint8)
