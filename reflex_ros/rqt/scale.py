# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of the plots: axis ranges, ticks, and limits that are near. No Qt."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite, log10

import numpy as np

from reflex_core.values import Floats
from reflex_ros.rqt.panel_view import View

MARGIN = 0.12  # of the range, drawn beyond the motion
HEADROOM = 1.3  # above the highest: there is room for the label of a line
FAR = 3.0  # a line more than this many times higher than every latency would flatten them
LEAST_RANGE = 0.02  # rad or m: less is shown no larger, or noise would look like motion
NEAR_RANGES = 0.6  # a limit within this share of the shown range is drawn


def lines_of(view: View) -> list[tuple[str, float]]:
    """Return name and milliseconds of the lines across the latency plot."""
    found = []
    if view.deadline_ms is not None:
        found.append(("deadline", view.deadline_ms))
    if view.slo_ms is not None:
        found.append((f"objective {view.slo.partition('=')[0]}", view.slo_ms))
    return found


def latency_top_ms(view: View, since_s: float) -> float:
    """Return the top of the latency axis in ms, over every second since then and each line that would not flatten them."""
    highest = max((second.most_ms for second in view.seconds if second.at_s >= since_s), default=0.0)
    near = [value for _, value in lines_of(view) if highest == 0.0 or value <= FAR * highest]
    return max([highest, *near, 1.0]) * HEADROOM


def ticks(top: float) -> list[float]:
    """Return three to six round numbers from 0 up."""
    step = 10.0 ** np.floor(log10(top / 3.0))
    step = float(next(step * factor for factor in (1, 2, 5, 10) if top / (step * factor) < 6))
    return [step * number for number in range(int(top / step) + 1)]


def shown_range(values: Floats, low: float, high: float, wanted: Iterable[float] = ()) -> tuple[float, float]:
    """Return bottom and top of a joint's plot: its motion, what was wanted of it, and a limit that is near."""
    finite = values[np.isfinite(values)]
    known = [*finite.tolist(), *(value for value in wanted if isfinite(value))] or [0.0]
    least, most = min(known), max(known)
    missing = max(LEAST_RANGE - (most - least), 0.0)
    least, most = least - missing / 2, most + missing / 2
    near = NEAR_RANGES * (most - least)
    bottom = min(least, low) if isfinite(low) and least - low <= near else least
    top = max(most, high) if isfinite(high) and high - most <= near else most
    margin = MARGIN * (top - bottom)
    return bottom - margin, top + margin


def digits_of(bottom: float, top: float) -> int:
    """Return how many digits behind the point tell the ends of an axis apart."""
    return min(max(1 - int(np.floor(log10(max(top - bottom, 1e-9)))), 2), 6)
