# SPDX-License-Identifier: Apache-2.0
"""What the comparison with LeRobot found, and what an export came to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LEAST_SENSITIVITY = 100.0  # times the tolerance: what blackened pictures must change, or they hardly matter


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two computations of the same numbers are apart, over all observations.

    name: of a stage, or of a joint. max_abs, mean_abs: of the differences, in `unit`. cosine: between both as vectors.
    """

    name: str
    max_abs: float
    mean_abs: float
    cosine: float
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """LeRobot's own pipeline against what is served from the written folder.

    Attributes:
        observations: What each one was: `random, camera pictures of 640x480`, `episode 3, frame 120 of DATASET`.
        stages: In the order of the computation; the last is the chunk in the robot's units.
        joints: Of that chunk, column by column.
        tolerance: Largest difference of `joints` that counts as verified, in the robot's units.
        batch_sizes: Batches whose rows equal their single runs; (1,) where the graphs are fixed at 1.
        picture_effect: Smallest change of an answer, in the robot's units, when its pictures are blackened; None for a
            policy without pictures.
        versions: Of lerobot, torch, transformers and onnxruntime.
        notes: One sentence each.
    """

    observations: tuple[str, ...]
    stages: tuple[Difference, ...]
    joints: tuple[Difference, ...]
    tolerance: float
    batch_sizes: tuple[int, ...] = (1,)
    picture_effect: float | None = None
    versions: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def max_abs(self) -> float:
        """Return the largest difference in the robot's units; NaN, which is within no tolerance, where there is none."""
        found = [joint.max_abs for joint in self.joints]
        return max(found) if found and all(map(math.isfinite, found)) else math.nan

    @property
    def verified(self) -> bool:
        """Return whether every joint agrees within the tolerance."""
        return bool(self.observations) and self.max_abs <= self.tolerance

    @property
    def pictures_matter(self) -> bool:
        """Return whether the answers would have shown a fault in the pictures."""
        effect = self.picture_effect
        return effect is None or effect > LEAST_SENSITIVITY * self.tolerance


@dataclass(frozen=True, slots=True)
class Result:
    """An export that was written. folder: where it is. seconds: how long it took. peak_bytes: of this process's memory."""

    folder: Path
    verification: Verification
    seconds: float
    peak_bytes: int
