# SPDX-License-Identifier: Apache-2.0
"""One joint of one chunk as SVG: raw against served, limits, and the rows that the guard changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from reflex_core.review.moments import Mask, spans
from reflex_core.values import Floats

WIDTH, HEIGHT = 230, 108
LEFT, RIGHT, TOP, BOTTOM = 44, 6, 6, 16
LEAST_SPAN = 0.02  # of the axis, rad or m: a joint that stands still must not look as if it moved
NEAR = (
    0.25  # a limit is drawn where it is nearer to the motion than this share of the motion's span, or crossed
)


def joint_chart(
    raw: Floats, served: Floats, changed: Mask, low: float | None, high: float | None, dt_s: float,
    measured: float | None = None,
) -> str:  # fmt: skip
    """Return an SVG element of WIDTH x HEIGHT. raw, served, changed: (rows,) of one joint; raw may have another length.

    low, high: limits, None where there is none. measured: drawn at the start. Numbers only: nothing of the recording's text is in it.
    """
    values = [*_finite(raw), *_finite(served), *([measured] if measured is not None else [])]
    bottom, top = _range(values, low, high)
    rows = max(len(raw), len(served), 1)

    def x_of(row: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * row / rows

    def y_of(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (top - value) / (top - bottom)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">']
    for first, last in spans(changed):
        begin, end = x_of(first + 0.5), x_of(last + 1.5)
        parts.append(
            f'<rect class="changed" x="{begin:.1f}" y="{TOP}" width="{end - begin:.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
        )
    for limit in (low, high):
        if limit is not None and bottom <= limit <= top:
            parts.append(
                f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_of(limit):.1f}" y2="{y_of(limit):.1f}"/>'
            )
    parts += _line("raw", raw, x_of, y_of) if changed.any() else []
    parts += _line("served", served, x_of, y_of)
    if measured is not None:
        parts.append(f'<circle class="measured" cx="{x_of(0):.1f}" cy="{y_of(measured):.1f}" r="2.5"/>')
    end_s = f"{rows * dt_s:.3g} s" if dt_s > 0 else f"{rows} rows"
    parts += [
        _label(LEFT - 3, y_of(top) + 7, f"{top:.3f}", "end"), _label(LEFT - 3, y_of(bottom), f"{bottom:.3f}", "end"),
        _label(LEFT, HEIGHT - 4, "0", "start"), _label(WIDTH - RIGHT, HEIGHT - 4, end_s, "end"),
        f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/></svg>',
    ]  # fmt: skip
    return "".join(parts)


def _line(kind: str, values: Floats, x_of: object, y_of: object) -> list[str]:
    """Return a polyline per run of finite values; row i is due at (i + 1)."""
    assert callable(x_of)
    assert callable(y_of)
    found, run = [], list[str]()
    for row, value in enumerate([*values.tolist(), math.nan]):
        if math.isfinite(value):
            run.append(f"{x_of(row + 1):.1f},{y_of(value):.1f}")
            continue
        if run:
            found.append(f'<polyline class="{kind}" points="{" ".join(run)}"/>')
        run = []
    return found


def _range(values: Sequence[float], low: float | None, high: float | None) -> tuple[float, float]:
    """Return the ends of the axis: around the motion, and to a limit that is near."""
    bottom, top = (min(values), max(values)) if values else (0.0, 0.0)
    if top - bottom < LEAST_SPAN:
        middle = (top + bottom) / 2
        bottom, top = middle - LEAST_SPAN / 2, middle + LEAST_SPAN / 2
    near = NEAR * (top - bottom)
    if low is not None and bottom - near <= low <= bottom:
        bottom = low
    if high is not None and top <= high <= top + near:
        top = high
    margin = 0.05 * (top - bottom)
    return bottom - margin, top + margin


def _finite(values: Floats) -> list[float]:
    found: list[float] = values[np.isfinite(values)].astype(np.float64).tolist()
    return found


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
