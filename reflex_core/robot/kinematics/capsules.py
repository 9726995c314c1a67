# SPDX-License-Identifier: Apache-2.0
"""Distances between the bodies of a robot, each a capsule on one link, for all rows of a chunk at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

TINY = 1e-12  # squared metres: a segment below it is a point


@dataclass(frozen=True, slots=True)
class Capsule:
    """All points within `radius_m` of the segment from `start_m` to `end_m`, each (3,) in the frame of `link`; m."""

    link: str
    start_m: Doubles
    end_m: Doubles
    radius_m: float


def ends_of(capsules: Sequence[Capsule], links: Sequence[str], poses: Doubles) -> tuple[Doubles, Doubles]:
    """Return the two ends of every capsule, each (capsules, rows, 3), in the frame of `poses`.

    links: names of the first axis of poses, (links, rows, 4, 4).
    """
    frames = poses[[links.index(capsule.link) for capsule in capsules]]
    turns, origins = frames[..., :3, :3], frames[..., :3, 3]
    starts, stops = (
        np.einsum("crij,cj->cri", turns, np.array(points)) + origins
        for points in ([one.start_m for one in capsules], [one.end_m for one in capsules])
    )
    return starts, stops


def distances(
    starts: Doubles, stops: Doubles, radii_m: Doubles, pairs: Sequence[tuple[int, int]]
) -> Doubles:  # fmt: skip
    """Return (pairs, rows) distance in m between the surfaces of two capsules; negative where they overlap.

    starts, stops: (capsules, rows, 3), as `ends_of` gives them. radii_m: (capsules,). pairs: indices of two capsules.
    Source: the closest points of two segments, Ericson, Real-Time Collision Detection (2005), 5.1.9.
    """
    one, other = (np.array([pair[side] for pair in pairs], np.intp) for side in (0, 1))
    along, across = stops[one] - starts[one], stops[other] - starts[other]
    between = starts[one] - starts[other]
    a, e = _dot(along, along), _dot(across, across)
    b, c, f = _dot(along, across), _dot(along, between), _dot(across, between)
    slope = a * e - b * b
    # parallel segments have many closest pairs: any of them will do, so the first one begins at its start
    s = np.where(
        slope > TINY * a * e, np.clip((b * f - c * e) / np.where(slope > 0.0, slope, 1.0), 0.0, 1.0), 0.0
    )
    t = np.where(e > TINY, (b * s + f) / np.where(e > TINY, e, 1.0), 0.0)
    beyond = np.clip(t, 0.0, 1.0)
    again = np.where(a > TINY, np.clip((b * beyond - c) / np.where(a > TINY, a, 1.0), 0.0, 1.0), 0.0)
    s = np.where((t != beyond) | (e <= TINY), again, s)
    s = np.where(a > TINY, s, 0.0)
    gap = between + along * s[..., None] - across * beyond[..., None]
    found: Doubles = np.sqrt(_dot(gap, gap)) - (radii_m[one] + radii_m[other])[:, None]
    return found


def _dot(one: Doubles, other: Doubles) -> Doubles:
    found: Doubles = np.einsum("...i,...i->...", one, other)
    return found
