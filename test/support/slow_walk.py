# SPDX-License-Identifier: Apache-2.0
"""The recursion of the limits without any formula or shortcut: bisection, trial, and one limit after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reflex_core.robot.limits.walk import Joint


def way_to_stop(step: float, bend: float) -> float:
    """How far a joint gets that makes a step and then brakes by `bend` a period."""
    way = 0.0
    while step > 0.0:
        way, step = way + step, step - bend
    return way


def largest_stoppable(room: float, bend: float) -> float:
    """By bisection: no formula."""
    if room <= 0.0 or math.isinf(room):
        return max(room, 0.0)
    least, most = 0.0, room
    for _ in range(50):
        middle = (least + most) / 2
        least, most = (middle, most) if way_to_stop(middle, bend) <= room else (least, middle)
    return least


def narrowed(band: tuple[float, float], wish: tuple[float, float]) -> tuple[float, float]:
    """What both allow; where nothing is, the place of `band` that is nearest to `wish`."""
    low, high = max(band[0], wish[0]), min(band[1], wish[1])
    if low <= high:
        return low, high
    return (band[1], band[1]) if wish[0] > band[1] else (band[0], band[0])


def slow_band(joint: Joint, at: float, last: float) -> tuple[float, float]:
    """The steps a joint may make, most important limit first: range, speed, acceleration, braking in time."""
    below, above = at - joint.low, joint.high - at
    band = narrowed((-below, above), (-joint.step, joint.step))
    if math.isinf(joint.bend):
        return band
    band = narrowed(band, (last - joint.bend, last + joint.bend))
    return narrowed(band, (-largest_stoppable(below, joint.bend), largest_stoppable(above, joint.bend)))


def slow_clip(column: Sequence[float], joint: Joint, at: float, last: float) -> list[float]:
    rows = []
    for wanted in column:
        least, most = slow_band(joint, at, last)
        last = min(max(wanted - at, least), most)
        at += last
        rows.append(at)
    return rows


def slow_factor(moves: Sequence[float], bands: Sequence[tuple[float, float]]) -> float | None:
    """The largest factor up to 1 that brings every move into its band, None where no factor does."""
    bounds = [1.0] + [bound / move for move, band in zip(moves, bands, strict=True) for bound in band if move]
    fitting = [
        factor
        for factor in bounds
        if 0.0 <= factor <= 1.0
        and all(
            low - 1e-12 <= move * factor <= high + 1e-12
            for move, (low, high) in zip(moves, bands, strict=True)
        )
    ]
    return max(fitting, default=None)


def slow_scale(
    rows: Sequence[Sequence[float]], joints: Sequence[Joint], at: Sequence[float], last: Sequence[float]
) -> list[list[float]]:
    walked = []
    for wanted in rows:
        moves = [goal - place for goal, place in zip(wanted, at, strict=True)]
        bands = [slow_band(*each) for each in zip(joints, at, last, strict=True)]
        factor = slow_factor(moves, bands)
        if factor is None:
            last = [min(max(move, low), high) for move, (low, high) in zip(moves, bands, strict=True)]
        else:
            last = [move * factor for move in moves]
        at = [place + move for place, move in zip(at, last, strict=True)]
        walked.append(list(at))
    return walked
