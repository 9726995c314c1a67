# SPDX-License-Identifier: Apache-2.0
"""How far two computations of the same numbers are apart, over many arrays that are not kept."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_export.result import Difference


class Tally:
    """Adds up pairs of arrays of equal shape. NaN and infinity on either side are an infinite difference."""

    def __init__(self, name: str, unit: str = "") -> None:
        self._name, self._unit = name, unit
        self._most = self._sum = 0.0
        self._count = 0
        self._products = np.zeros(3)  # theirs . ours, theirs . theirs, ours . ours

    def add(self, theirs: NDArray[Any], ours: NDArray[Any]) -> None:
        """Count one pair."""
        one, other = (np.asarray(values, dtype=np.float64).ravel() for values in (theirs, ours))
        if not (np.isfinite(one).all() and np.isfinite(other).all()):
            self._most = math.inf
            return
        apart = np.abs(one - other)
        self._most = max(self._most, float(apart.max(initial=0.0)))
        self._sum += float(apart.sum())
        self._count += apart.size
        self._products += one @ other, one @ one, other @ other

    def difference(self) -> Difference:
        """Return what was counted."""
        mean = self._sum / self._count if self._count else 0.0
        return Difference(self._name, self._most, mean, self._cosine(), self._unit)

    def _cosine(self) -> float:
        """Return the cosine between both as vectors; 1 for two of zeros, 0 for one."""
        both, theirs, ours = map(float, self._products)
        if theirs == 0 or ours == 0:
            return 1.0 if theirs == ours else 0.0
        return both / math.sqrt(theirs * ours)
