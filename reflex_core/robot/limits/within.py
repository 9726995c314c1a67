# SPDX-License-Identifier: Apache-2.0
"""Compare all rows, steps and bends of a chunk with their bounds at once: what most chunks need, which break nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reflex_core.values import Floats

Doubles = NDArray[np.float64]

HORIZONS_KEPT = 8
_MOST = np.finfo(np.float32).max


class Within:
    """Bounds as one array for each horizon. Thread-safe: at worst an array is made twice.

    A float32 is above a float64 bound exactly where it is above the largest float32 that is not above the bound. So all
    comparisons are those of `Check`, but with numbers that are not finite: those are never within.
    """

    def __init__(self, low: Floats, high: Floats, step: Doubles, bend: Doubles) -> None:
        """Take (action_dim,) bounds of position, of a step, and of the change of a step; infinite: none."""
        self._bend = bend
        self._lows = np.stack([np.maximum(low, -_MOST), -_down(step), -_down(bend)])
        self._highs = np.stack([np.minimum(high, _MOST), _down(step), _down(bend)])
        self._made: dict[int, tuple[Floats, Floats]] = {}

    def __call__(self, rows: Floats, origin: Doubles, step: Doubles | None) -> bool:
        """Return whether a chunk breaks nothing.

        rows: (horizon, action_dim), two or more. origin: (action_dim,) where it starts one period before row 0. step: of the
        period before that; None: unknown, so that the way to row 0 is no bend.
        """
        count = len(rows)
        lows, highs = self._bounds(count)
        judged = np.empty_like(lows)
        moves, bends = judged[count : 2 * count], judged[2 * count :]
        judged[:count] = rows
        np.subtract(rows[0], origin.astype(np.float32), out=moves[0])
        np.subtract(rows[1:], rows[:-1], out=moves[1:])
        np.subtract(moves[1:], moves[:-1], out=bends)
        if step is None:
            bends[0] = 0.0
        elif np.count_nonzero(np.abs(moves[0] - step) > self._bend):
            return False
        # a NaN is neither; counting costs half of what `all` does
        return int(np.count_nonzero((judged >= lows) & (judged <= highs))) == judged.size

    def _bounds(self, count: int) -> tuple[Floats, Floats]:
        """Return the bounds of `count` rows, `count` steps and `count` - 1 bends, (3 * count - 1, action_dim)."""
        made = self._made.get(count)
        if made is None:
            times = (count, count, count - 1)
            made = np.repeat(self._lows, times, axis=0), np.repeat(self._highs, times, axis=0)
            if len(self._made) < HORIZONS_KEPT:
                self._made[count] = made
        return made


def _down(values: Doubles) -> Floats:
    """Return the largest finite float32 that is not above each value."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    near = np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)
    return np.asarray(np.minimum(near, _MOST), dtype=np.float32)
