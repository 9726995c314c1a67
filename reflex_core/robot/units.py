# SPDX-License-Identifier: Apache-2.0
"""Units: everything inside is rad and m. What a policy counts in is converted here; what looks like another unit is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

SI, DEGREES, PERCENT, NORM100 = "si", "degrees", "percent", "norm100"
_NAMES = {
    SI: (
        "si", "rad", "radian", "radians", "m", "meter", "meters", "metre", "metres", "rad/s", "m/s", "rad_m",
        "radians_and_meters", "dimensionless", "1",
    ),
    DEGREES: ("degrees", "degree", "deg"),
    PERCENT: ("percent", "%"),
    NORM100: ("norm100",),
}  # fmt: skip
UNIT_OF = {name: unit for unit, names in _NAMES.items() for name in names}
NO_UNIT = ("dimensionless", "1")  # said of a gripper, it leaves open what its numbers mean
PER_S = ("rad/s", "m/s")  # said of velocities alone
OF_TRAVEL = (PERCENT, NORM100)  # shares of a joint's travel: 0 to 100, and -100 to 100

MOST_RAD = 4.0 * math.pi  # two turns either way; cables allow no arm more, and 90 degrees are far beyond it
# where it is unknown whether a joint turns or slides, or whether it is a position at all
MOST_RAD_OR_M = 8.0 * math.pi
MOST_M = 25.0
MOST_SPEED = 100.0  # rad/s or m/s
# of a speed, an acceleration, a range or a rate: nothing that moves is so slow, and 1e-320 has no reciprocal
LEAST = 1e-6

NOT_RAD = "degrees, percent or millimetres: write rad and m (one degree is 0.0174533 rad)"
NOT_RAD_PER_S = "degrees or millimetres per second: write rad/s and m/s (one degree is 0.0174533 rad)"


def beyond(low: float, high: float, most: float) -> bool:
    """Return whether a range reaches so far that it must be in another unit. False for NaN."""
    return low < -most or high > most


@dataclass(frozen=True, slots=True)
class Conversion:
    """policy = si * factor + offset, per dimension, float64: rad and m to what a policy counts in, and back."""

    factor: Doubles
    offset: Doubles

    def to_policy(self, si: NDArray[np.floating]) -> Doubles:
        """Convert (..., dim) rad and m to the policy's units."""
        converted: Doubles = np.asarray(si, dtype=np.float64) * self.factor + self.offset
        return converted

    def to_si(self, policy: NDArray[np.floating]) -> Doubles:
        """Convert (..., dim) the policy's units to rad and m."""
        converted: Doubles = (np.asarray(policy, dtype=np.float64) - self.offset) / self.factor
        return converted

    def chosen(self, columns: NDArray[np.intp]) -> Conversion:
        """Return the same for some dimensions, in the order of `columns`."""
        return Conversion(self.factor[columns], self.offset[columns])


def conversion(
    units: Sequence[str], travel: Doubles, zero: Doubles | None = None, sign: Doubles | None = None
) -> Conversion:
    """Return the conversion of dimensions in these units.

    Args:
        units: SI, DEGREES, PERCENT or NORM100 of each.
        travel: (dim, 2) position in rad or m where the share of the travel is lowest, and where it is highest; read for
            PERCENT and NORM100 alone, where the two must differ.
        zero: (dim,) position in rad at 0 degrees; NaN, and None for all: 0.
        sign: (dim,) 1 or -1, how degrees count; NaN, and None for all: 1.
    """
    factor, offset = np.ones(len(units)), np.zeros(len(units))
    for index, unit in enumerate(units):
        low, high = travel[index]
        if unit == DEGREES:
            factor[index] = 180 / math.pi * _or(sign, index, 1.0)
            offset[index] = -_or(zero, index, 0.0) * factor[index]
        elif unit == PERCENT:
            factor[index], offset[index] = 100 / (high - low), -100 * low / (high - low)
        elif unit == NORM100:
            factor[index], offset[index] = 200 / (high - low), -200 * low / (high - low) - 100
    return Conversion(factor, offset)


def _or(values: Doubles | None, index: int, default: float) -> float:
    return default if values is None or np.isnan(values[index]) else float(values[index])
