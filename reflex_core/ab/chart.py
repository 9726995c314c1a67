# SPDX-License-Identifier: Apache-2.0
"""Draw the report as an SVG file: success rate of each slot with its interval, and how the evidence grew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 300
TOP, BOTTOM = 40, 250
COLOURS = ("#1f6fb4", "#d1661c", "#4d8c3b", "#7a5aa6")


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: its place in the image (pixels), and the values at its edges."""

    left: float
    right: float
    most_x: float
    least_y: float
    most_y: float

    def x(self, value: float) -> float:
        """Return the horizontal position of a value, in pixels from the left."""
        return self.left + (self.right - self.left) * value / self.most_x

    def y(self, value: float) -> float:
        """Return the vertical position of a value, in pixels from the top."""
        return BOTTOM - (BOTTOM - TOP) * (value - self.least_y) / (self.most_y - self.least_y)


def picture(document: dict[str, Any], path: Sequence[tuple[int, float]]) -> str:
    """Return the report as the text of an SVG file.

    Args:
        document: What `report_document` returned.
        path: (episodes, log evidence) after each episode of the sequential test.
    """
    shapes = [*_success(document["slots"]), *_evidence(document["comparison"], path)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            ' font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            *shapes,
            "</svg>\n",
        ]
    )


def _success(slots: dict[str, dict[str, Any]]) -> Iterator[str]:
    known = {name: slot for name, slot in slots.items() if slot["success_rate"] is not None}
    panel = Panel(60, 300, len(known) + 1.0, 0.0, 1.0)
    yield _text(panel.left, 20, "success and 95 % interval")
    for percent in (0, 25, 50, 75, 100):
        yield from _level(panel, percent / 100, f"{percent} %")
    for number, (name, slot) in enumerate(known.items()):
        x, colour = panel.x(number + 1), COLOURS[number % len(COLOURS)]
        low, high = (panel.y(value) for value in slot["success_interval"])
        yield _line(x, low, x, high, colour, 3)
        yield f'<circle cx="{x:.1f}" cy="{panel.y(slot["success_rate"]):.1f}" r="6" fill="{colour}"/>'
        yield _text(x, BOTTOM + 18, f"{name}: {slot['successes']}/{slot['outcomes']}", "middle")


def _evidence(comparison: dict[str, Any] | None, path: Sequence[tuple[int, float]]) -> Iterator[str]:
    if comparison is None or not path:
        return
    threshold = math.log10(1 / comparison["alpha"])
    points = [(episodes, evidence / math.log(10)) for episodes, evidence in path]
    values = [value for _, value in points]
    most, least = max(*values, threshold, 0.0), min(*values, 0.0)
    panel = Panel(400, 730, max(episodes for episodes, _ in points), least - 0.3, most + 0.3)
    yield _text(panel.left, 20, "evidence for a difference, log10")
    yield from _level(panel, 0.0, "0")
    yield from _level(panel, threshold, f"decided {threshold:.2g}", "#b02a2a")
    drawn = " ".join(f"{panel.x(episodes):.1f},{panel.y(value):.1f}" for episodes, value in points)
    yield f'<polyline points="{drawn}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>'
    yield _text(panel.right, BOTTOM + 18, f"{comparison['episodes']} episodes", "end")


def _level(panel: Panel, value: float, name: str, colour: str = "#cccccc") -> Iterator[str]:
    y = panel.y(value)
    yield _line(panel.left, y, panel.right, y, colour, 1)
    yield _text(panel.left - 6, y + 4, name, "end")


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
