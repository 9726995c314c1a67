# SPDX-License-Identifier: Apache-2.0
"""Between which velocities a motion through rows lies, without the motion: what the guard judges before it is made."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from reflex_core.chunks.interpolation import FASTER, Bounds, Doubles, continuous, leaving, monotone, peaks


def envelope(positions: Doubles, h: Doubles, velocity: Doubles, bounds: Bounds) -> tuple[Doubles, Doubles]:
    """Return (n, d) least and greatest velocities at the points between which those of `through` lie; equal where it is C2.

    A joint whose C2 spline keeps its limits has the velocities of that one. Any other has some between those, the monotone
    ones, and the slopes beside the point; the last period may be half as long again then.

    Args:
        positions: (n, d), rad or m.
        h: (n - 1,) seconds between two points.
        velocity: (d,), of the first point.
        bounds: As in `through`.
    """
    secants = np.diff(positions, axis=0) / h[:, None]
    most = bounds.velocity_max
    begin = np.minimum(np.maximum(velocity, -most), most)
    safe = np.minimum(np.maximum(monotone(secants, begin), -most), most)
    continuous_ones = _evenly(secants, begin) if np.ptp(h) == 0.0 else continuous(h, secants, begin)
    given = np.where(bounds.smooth, continuous_ones, safe)
    given = np.minimum(np.maximum(given, -most), most)
    broken = (peaks(secants, given) > most * FASTER) | leaving(h, positions, secants, given, bounds)
    changed = broken.any(axis=0)
    if not changed.any():
        return given, given
    longer = h.copy()
    longer[-1] *= 1.5
    stretched = np.diff(positions, axis=0) / longer[:, None]
    later = np.minimum(np.maximum(monotone(stretched, begin), -most), most)
    hurried = np.where(bounds.smooth, continuous(longer, stretched, begin), later)
    hurried = np.minimum(np.maximum(hurried, -most), most)
    low, high = np.minimum(given, hurried), np.maximum(given, hurried)
    every = np.zeros((6, *given.shape))
    every[0], every[1] = safe, later
    for at, slopes in ((2, secants), (4, stretched)):
        every[at, 1:-1], every[at + 1, 1:-1] = slopes[:-1], slopes[1:]
    low = np.where(changed, np.minimum(low, every.min(axis=0)), low)
    high = np.where(changed, np.maximum(high, every.max(axis=0)), high)
    return low, high


def _evenly(secants: Doubles, first: Doubles) -> Doubles:
    """Return (n, d) what `continuous` does for points that are equally far apart in time."""
    velocities = np.zeros((len(secants) + 1, secants.shape[1]))
    velocities[0] = first
    right = 3.0 * (secants[:-1] + secants[1:])
    right[:1] -= first
    velocities[1:-1] = _inverse(len(right)) @ right
    return velocities


@lru_cache(maxsize=32)
def _inverse(count: int) -> Doubles:
    matrix = 4.0 * np.eye(count) + np.eye(count, k=1) + np.eye(count, k=-1)
    return np.linalg.inv(matrix).astype(np.float64)
