# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of the pictures: what is in view, and what lies at a limit. No Qt."""

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
    """Name, milliseconds and colour of the lines across the latency plot."""
    found = []
    if view.deadline_ms is not None:
        found.append(("deadline", view.deadline_ms, "#dc2626"))
    if view.slo_ms is not None:
        found.append((view.slo.partition("=")[0], view.slo_ms, "#d97706"))
    return found


def latency_top_ms(view: View, since_s: float) -> float:
    """The top of the latency axis: every point since then, and each line that would not flatten them."""
    highest = max((point.latency_ms for point in view.points if point.at_s >= since_s), default=0.0)
    near = [value for _, value, _ in lines_of(view) if highest == 0.0 or value <= FAR * highest]
    return max([highest, *near, 1.0]) * 1.2


def ticks(top: float) -> list[float]:
    """Round numbers from 0 up, three to six of them."""
    step = 10.0 ** np.floor(log10(top / 3.0))
    step = float(next(step * factor for factor in (1, 2, 5, 10) if top / (step * factor) < 6))
    return [step * number for number in range(int(top / step) + 1)]


def shown_range(values: Floats, low: float, high: float) -> tuple[float, float]:
    """Bottom and top of a joint's picture: its limits and a margin; where it has none, what the values take."""
    finite = values[np.isfinite(values)]
    least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    bottom = min(low, least) if isfinite(low) else least
    top = max(high, most) if isfinite(high) else most
    margin = max((top - bottom) * MARGIN, NARROWEST)
    return bottom - margin, top + margin


def near_limit(values: Floats, low: float, high: float) -> bool:
    """True when a row that is still to come is at a limit or beyond it."""
    if not values.size:
        return False
    edge = NEAR * (high - low) if isfinite(high - low) else 0.0
    return bool(values.min() <= low + edge or values.max() >= high - edge)
