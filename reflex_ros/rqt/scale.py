# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of the plots: axis ranges, ticks, and rows at a limit. No Qt."""

from __future__ import annotations

from math import isfinite, log10

import numpy as np

from reflex_core.values import Floats
from reflex_ros.rqt.board import View

MARGIN = 0.08  # of the range, drawn beyond each limit
FAR = 3.0  # a line more than this many times higher than every latency would flatten them
NEAR = 0.02  # of the range: nearer to a limit than this is at the limit
NARROWEST = 1e-3


def lines_of(view: View) -> list[tuple[str, float, str]]:
    """Return name, milliseconds and colour of the lines across the latency plot."""
    found = []
    if view.deadline_ms is not None:
        found.append(("deadline", view.deadline_ms, "#dc2626"))
    if view.slo_ms is not None:
        found.append((view.slo.partition("=")[0], view.slo_ms, "#d97706"))
    return found


def latency_top_ms(view: View, since_s: float) -> float:
    """Return the top of the latency axis in ms, over every point since then and each line that would not flatten them."""
    highest = max((point.latency_ms for point in view.points if point.at_s >= since_s), default=0.0)
    near = [value for _, value, _ in lines_of(view) if highest == 0.0 or value <= FAR * highest]
    return max([highest, *near, 1.0]) * 1.2


def ticks(top: float) -> list[float]:
    """Return three to six round numbers from 0 up."""
    step = 10.0 ** np.floor(log10(top / 3.0))
    step = float(next(step * factor for factor in (1, 2, 5, 10) if top / (step * factor) < 6))
    return [step * number for number in range(int(top / step) + 1)]


def shown_range(values: Floats, low: float, high: float) -> tuple[float, float]:
    """Return bottom and top of a joint's plot: its limits and a margin; where it has none, the range of the values."""
    finite = values[np.isfinite(values)]
    least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    bottom = min(low, least) if isfinite(low) else least
    top = max(high, most) if isfinite(high) else most
    margin = max((top - bottom) * MARGIN, NARROWEST)
    return bottom - margin, top + margin


def near_limit(values: Floats, low: float, high: float) -> bool:
    """Return True when a coming row is at a limit or beyond it."""
    if not values.size:
        return False
    edge = NEAR * (high - low) if isfinite(high - low) else 0.0
    return bool(values.min() <= low + edge or values.max() >= high - edge)
