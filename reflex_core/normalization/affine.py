# SPDX-License-Identifier: Apache-2.0
"""The formulas of normalisation, one mode at a time, as LeRobot computes them (as openpi where an export requests it).

LeRobot: mean_std forward (x - mean) / (std + eps), back x * std + mean; the ranges 2 (x - low) / d - 1 with d = high - low,
or eps where that is zero. openpi adds its eps everywhere, in both directions. Nothing is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ExportError
from reflex_core.values import Floats

Doubles = NDArray[np.float64]

IDENTITY, MEAN_STD = "identity", "mean_std"
MODES = {
    MEAN_STD: ("mean", "std"),
    "min_max": ("min", "max"),
    "quantiles": ("q01", "q99"),
    "quantile10": ("q10", "q90"),
}
LEROBOT, OPENPI = "lerobot", "openpi"
EPS = {LEROBOT: 1e-8, OPENPI: 1e-6}
LEAST_EPS = 1e-12  # what is divided by less has no digits left in float32
# below this spread (of 1, or of the value where that is larger) a number did not move: float32 has no more digits
STILL = 1e-6


@dataclass(frozen=True, slots=True)
class Affine:
    """normalised = (physical - shift) / scale, physical = normalised * gain + shift, per dimension, float64.

    gain: what to multiply with on the way back where that is not `scale`. constant: True where the dimension never moved in
    training; its one value is in `shift`.
    """

    shift: Doubles
    scale: Doubles
    gain: Doubles | None = None
    constant: NDArray[np.bool_] | None = None

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.shift)

    @property
    def back(self) -> Doubles:
        """(dim,) physical units per unit of the policy; 0 where the dimension never moved and has no spread."""
        return self.scale if self.gain is None else self.gain

    def normalise(self, physical: NDArray[Any]) -> Floats:
        """Convert (..., dim) physical units to the policy's units, float32."""
        return ((physical - self.shift) / self.scale).astype(np.float32)

    def denormalise(self, normalised: NDArray[Any]) -> Floats:
        """Convert (..., dim) the policy's units to physical units, float32."""
        return (normalised * self.back + self.shift).astype(np.float32)

    def difference(self, physical: NDArray[Any]) -> Floats:
        """Convert (..., dim) differences of physical values to the policy's units, float32; 0 where nothing can differ."""
        back = self.back
        safe = np.where(back == 0, 1.0, back)
        return np.where(back == 0, 0.0, physical / safe).astype(np.float32)

    def recovered(self, physical: NDArray[Any]) -> Floats:
        """Return (..., dim) float32 that `denormalise` maps to these values."""
        return self.difference(physical - self.shift)

    def chosen(self, columns: NDArray[np.intp]) -> Affine:
        """Return the same for some dimensions, in the order of `columns`."""
        return Affine(
            self.shift[columns], self.scale[columns],
            None if self.gain is None else self.gain[columns],
            None if self.constant is None else self.constant[columns],
        )  # fmt: skip

    def of_converted(self, factor: Doubles, offset: Doubles) -> Affine:
        """Return the same for values before a conversion: what takes x and gives this one's normalise(x * factor + offset).

        factor, offset: (dim,) float64; a negative factor counts the other way round.
        """
        gain = None if self.gain is None else self.gain / factor
        return Affine((self.shift - offset) / factor, self.scale / factor, gain, self.constant)

    def moved(self, physical: NDArray[Any]) -> int | None:
        """Return the first dimension that never moved in training and is elsewhere now; None where all are at their constants.

        physical: (dim,). A distance of STILL, of 1 or of the value where that is larger, is no distance.
        """
        if self.constant is None or not self.constant.any():
            return None
        room = STILL * np.maximum(1.0, np.abs(self.shift)) + np.abs(self.back)
        off = self.constant & ~(np.abs(physical - self.shift) <= room)
        return int(np.flatnonzero(off)[0]) if off.any() else None


def affine(
    mode: str, first: Any, second: Any, where: str, *, eps: float | None = None, source: str = LEROBOT
) -> Affine:
    """Make statistics of one mode. Raises ExportError when they are not finite numbers that pair up.

    mode: a key of MODES; first, second: its two numbers per dimension. eps: None takes the one of `source`, whose formula
    counts.
    """
    names = MODES[mode]
    try:
        low, high = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ExportError(f"{where}: '{names[0]}' and '{names[1]}' must be lists of numbers") from error
    if low.ndim != 1 or low.shape != high.shape or low.size == 0:
        raise ExportError(
            f"{where}: '{names[0]}' and '{names[1]}' must be lists of the same length, got {low.shape} and {high.shape}"
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ExportError(f"{where}: the statistics hold NaN or Inf", "bad-statistics")
    if max(np.abs(low).max(), np.abs(high).max()) > np.finfo(np.float32).max:
        raise ExportError(f"{where}: the statistics hold numbers that a float32 cannot", "bad-statistics")
    spread = high if mode == MEAN_STD else high - low
    if (spread < 0).any():
        raise ExportError(
            f"{where}: '{names[1]}' must not be {'negative' if mode == MEAN_STD else 'below the other'}"
        )
    added = EPS[source] if eps is None else eps
    return _mean_std(low, high, added, source) if mode == MEAN_STD else _range(low, high, added, source)


def _mean_std(mean: Doubles, std: Doubles, eps: float, source: str) -> Affine:
    still = std <= STILL * np.maximum(1.0, np.abs(mean))
    # a constant is the float32 that training saw: next to it, a rounding error over eps is a large number
    mean = np.where(still, mean.astype(np.float32), mean)
    std = np.where(std < np.finfo(np.float32).tiny, 0.0, std)
    return Affine(mean, std + eps, std + eps if source == OPENPI else std, still)


def _range(low: Doubles, high: Doubles, eps: float, source: str) -> Affine:
    spread = high - low
    still = spread <= STILL * np.maximum(1.0, np.abs(low))
    same = low.astype(np.float32) == high.astype(np.float32)
    low = np.where(same, low.astype(np.float32), low)
    spread = np.where(same, 0.0, spread)
    width = spread + eps if source == OPENPI else np.where(same, eps, spread)
    return Affine(low + width / 2, width / 2, None, still)
