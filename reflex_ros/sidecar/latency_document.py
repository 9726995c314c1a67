# SPDX-License-Identifier: Apache-2.0
"""The latency of the newest answers as the page draws it: a histogram, the last minutes, deadline and objective."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from reflex_core.engine.serving_state import ServingState
from reflex_core.metrics.latency_window import percentile_of
from reflex_core.settings.table import Settings
from reflex_ros.sidecar.history import SECONDS, HistorySnapshot

BARS = 40


def latency_document(
    seen: HistorySnapshot, settings: Settings, loaded: ServingState | None
) -> dict[str, Any]:
    """Return a histogram from 0 to `top_ms` whose last bar also holds everything beyond, and the last minutes by second.

    seconds: [age in s, mean in ms, maximum in ms, holds] of each second with an answer, oldest first; the age has a step of 1 s.
    """
    ordered = sorted(seen.latencies_ms)
    window = loaded.admission.window if loaded is not None else None
    slo = None
    if window is not None:
        slo = {
            "name": window.slo.name,
            "threshold_ms": window.slo.threshold_ms,
            "measured_ms": window.measured_ms,
            "violated": loaded is not None and loaded.admission.violated,
            "mode": loaded.admission.mode if loaded is not None else settings.slo_mode,
        }
    p99 = percentile_of(ordered, 99)
    deadline_ms = settings.deadline_ms or None
    objective_ms = window.slo.threshold_ms if window is not None else 0.0
    top_ms = nice_top(max(1.3 * p99, 1.1 * (deadline_ms or 0.0), 1.1 * objective_ms))
    bars, _ = np.histogram(np.minimum(ordered, top_ms), BARS, (0.0, top_ms))
    return {
        "bars": bars,
        "top_ms": top_ms,
        "count": len(ordered),
        "seconds": _seconds(seen),
        "window_s": SECONDS,
        "last_ms": seen.latencies_ms[-1] if ordered else None,
        "p50_ms": percentile_of(ordered, 50),
        "p95_ms": percentile_of(ordered, 95),
        "p99_ms": p99,
        "max_ms": ordered[-1] if ordered else 0.0,
        "deadline_ms": deadline_ms,
        "deadline_misses": loaded.deadline.misses if loaded is not None else 0,
        "slo": slo,
    }


def nice_top(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, ... at or above a value, so that the scale is stable."""
    if value <= 1.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= value)


def _seconds(seen: HistorySnapshot) -> list[list[float]]:
    now_s = time.monotonic_ns() // 1_000_000_000
    return [
        [now_s - second.at_s, round(second.sum_ms / second.count, 2), round(second.max_ms, 2), second.holds]
        for second in seen.seconds
        if now_s - second.at_s < SECONDS
    ]
