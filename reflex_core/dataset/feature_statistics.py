# SPDX-License-Identifier: Apache-2.0
"""Statistics of an episode and of a dataset, as LeRobot keeps them: min, max, mean, std, count and five quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.values import Pixels

Doubles = NDArray[np.float64]
Statistics = dict[str, NDArray[Any]]

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
PIXEL_STEP = 4  # of each picture every fourth pixel of every fourth row is counted


def of_vectors(values: Sequence[Any]) -> Statistics:
    """Return the statistics of (N, dim) numbers per dimension; of N numbers, of shape (1,)."""
    array = np.asarray(values, np.float64).reshape(len(values), -1)
    quantiles = np.quantile(array, list(QUANTILES.values()), axis=0)
    return {
        "min": array.min(0),
        "max": array.max(0),
        "mean": array.mean(0),
        "std": array.std(0),
        "count": np.array([len(array)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


class Brightness:
    """The pixels of one camera as a histogram per colour: constant memory, and every statistic can be read from it."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), np.int64)
        self._pictures = 0

    def add(self, pixels: Pixels) -> None:
        """Count one (height, width, 3) RGB image."""
        self._pictures += 1
        for colour in range(3):
            seen = pixels[::PIXEL_STEP, ::PIXEL_STEP, colour].ravel()
            self._counts[colour] += np.bincount(seen, minlength=256)

    def statistics(self) -> Statistics:
        """Return each statistic as (3, 1, 1), of brightness 0 to 1; `count` is the number of images."""
        made = [_of_counts(counts) for counts in self._counts]
        shaped = {name: np.array([one[name] for one in made]).reshape(3, 1, 1) / 255.0 for name in made[0]}
        return {**shaped, "count": np.array([self._pictures])}


def _of_counts(counts: NDArray[np.int64]) -> dict[str, float]:
    levels, total = np.arange(256, dtype=np.float64), int(counts.sum())
    mean = float(levels @ counts / total)
    there, reached = np.flatnonzero(counts), np.cumsum(counts)
    return {
        "min": float(there[0]),
        "max": float(there[-1]),
        "mean": mean,
        "std": float(np.sqrt((levels - mean) ** 2 @ counts / total)),
        **{name: float(np.searchsorted(reached, share * total)) for name, share in QUANTILES.items()},
    }


def together(one: Statistics, other: Statistics) -> Statistics:
    """Merge the statistics of two parts of a dataset. Quantiles are weighted means of the parts' quantiles, as LeRobot's are."""
    first, second = one["count"].astype(np.float64), other["count"].astype(np.float64)
    share = (second / (first + second)).item()
    mean = one["mean"] + share * (other["mean"] - one["mean"])
    variance = (1 - share) * (one["std"] ** 2 + (one["mean"] - mean) ** 2)
    variance += share * (other["std"] ** 2 + (other["mean"] - mean) ** 2)
    return {
        "min": np.minimum(one["min"], other["min"]),
        "max": np.maximum(one["max"], other["max"]),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": one["count"] + other["count"],
        **{name: (1 - share) * one[name] + share * other[name] for name in QUANTILES},
    }
