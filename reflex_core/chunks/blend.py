# SPDX-License-Identifier: Apache-2.0
"""How much of the policy's motion is commanded, from 0 (the robot stays where it is commanded to be) to 1 (all of it). Pure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reflex_core.chunks.takeover import SPEED_SHARE
from reflex_core.values import ActionChunk, Floats

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Blend:
    """A ratio that goes to where it is wanted at a limited rate. Times are monotonic ns. Not thread-safe."""

    def __init__(self, wanted: float, velocity_max: Doubles | None = None) -> None:
        """Begin at `wanted`, 0 to 1.

        velocity_max: (action_dim,) rad or m per second, infinite where there is no limit; None: there is none. A share of the motion may
        turn at any moment, and is led at SPEED_SHARE of it: the motion between two rows is faster than they are.
        """
        self._velocity_max = velocity_max
        self._from = self._wanted = wanted
        self._since_ns, self._whole_s = 0, 0.0

    def aim(self, wanted: float, whole_s: float, now_ns: int) -> bool:
        """Go to `wanted` from where it is now; True where that is new. whole_s: how long it takes from 0 to 1; 0: at once."""
        new = wanted != self._wanted
        if new or whole_s != self._whole_s:
            self._from, self._since_ns = self.at(now_ns), now_ns
            self._wanted, self._whole_s = wanted, whole_s
        return new

    def restart(self, now_ns: int) -> None:
        """Begin at 0 again, and go from there to what is wanted."""
        self._from, self._since_ns = 0.0, now_ns

    def at(self, now_ns: int) -> float:
        """Return the ratio at a moment."""
        return float(self._at(np.array([now_ns]))[0])

    def whole(self, now_ns: int) -> bool:
        """Return True where all of the policy's motion is let through, now and later."""
        return self._wanted >= 1.0 and self.at(now_ns) >= 1.0

    def _at(self, times_ns: NDArray[np.int64]) -> Doubles:
        if not self._whole_s > 0.0:
            return np.full(len(times_ns), self._wanted)
        gone = np.maximum(times_ns - self._since_ns, 0) * 1e-9 / self._whole_s
        way = self._wanted - self._from
        ratios: Doubles = self._from + np.sign(way) * np.minimum(gone, abs(way))
        return ratios

    def blended(
        self, chunk: ActionChunk, start: int, place: Doubles | None, rates: Mask, now_ns: int, first_in_s: float
    ) -> ActionChunk:  # fmt: skip
        """Return the chunk with the ratio's share of its motion away from `place`; itself where that is all of it.

        Args:
            chunk: (n, action_dim) rows, inside the limits; so is what lies between them and `place`.
            start: The first row that will be executed.
            place: (action_dim,) where the robot is commanded to be now; None: unknown, its motion then counts from row `start`.
            rates: (action_dim,) the columns that command a velocity, of which the share is taken.
            now_ns: This moment.
            first_in_s: How long from now until row `start` is due.
        """
        rows = chunk.actions[start:]
        dues_s = np.maximum(first_in_s + np.arange(len(rows)) * chunk.dt_s, 0.0)
        ratios = self._at(now_ns + (dues_s * 1e9).astype(np.int64))
        if (ratios >= 1.0).all():
            return chunk
        base = np.where(rates, 0.0, rows[0] if place is None else place)
        shares = ratios[:, None] * (rows - base) + base
        # between two numbers of float32, or one of them: never outside a limit that both keep
        led = np.where((ratios >= 1.0)[:, None], rows, shares.astype(np.float32))
        if self._velocity_max is not None and place is not None:
            most = np.where(rates, np.inf, self._velocity_max)
            led = _within_reach(led, place, most, dues_s, np.where(ratios >= 1.0, 1.0, SPEED_SHARE))
        return replace(chunk, actions=np.concatenate([chunk.actions[:start], led]))


def _within_reach(
    rows: Floats, place: Doubles, velocity_max: Doubles, dues_s: Doubles, shares: Doubles
) -> Floats:
    """Return the rows, each as near to the given one as the shares (n,) of the limits allow on the way from `place`."""
    seconds = np.diff(dues_s, prepend=0.0) * shares
    with np.errstate(invalid="ignore"):  # infinitely fast, in no time
        reach = np.nan_to_num(velocity_max * seconds[:, None], nan=0.0, posinf=np.inf)
    led, at = rows.copy(), place
    for row, within in enumerate(reach):
        at = np.minimum(np.maximum(rows[row], at - within), at + within)
        led[row] = at
    return led
