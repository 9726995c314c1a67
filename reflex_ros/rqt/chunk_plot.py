# SPDX-License-Identifier: Apache-2.0
"""A small plot per joint: the newest chunk, zoomed to its motion, a limit where one is near, and the row due now."""

from __future__ import annotations

from math import ceil, isfinite
from typing import Any

import numpy as np

from reflex_core.text.untrusted import escaped
from reflex_ros.rqt.painting import level_line, painter_of, pen_of, text_width, write
from reflex_ros.rqt.panel_theme import Theme, widget_theme
from reflex_ros.rqt.panel_view import Chunk, View
from reflex_ros.rqt.qt import QtCore, QtGui, QtWidgets
from reflex_ros.rqt.scale import digits_of, shown_range

PLOT_HEIGHT, HIGHEST = 62, 130  # pixels per joint
TOP, GAP, TITLE, GUTTER = 42, 14, 17, 40
MOST_JOINTS = 64
NO_LIMIT = (float("-inf"), float("inf"))
EXPLANATION = (
    "The rows of the newest chunk, as the guard let them through, one plot per joint, zoomed to the motion. The dot is the row due"
    " now; rows before it have elapsed. A limit is drawn where it is near. Dashed: how far the model wanted to go where the guard"
    " changed the chunk."
)


class ChunkPlot(QtWidgets.QWidget):
    """The newest chunk, joint by joint."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumWidth(320)
        self.setAccessibleName("newest chunk, joint by joint")
        self.setToolTip(EXPLANATION)
        self._view, self._now_s = View(""), 0.0

    def show_view(self, view: View, now_s: float) -> None:
        """Draw another moment."""
        self._view, self._now_s = view, now_s
        self.setMinimumHeight(TOP + ceil(self._plots / self.columns) * PLOT_HEIGHT)
        self.update()

    @property
    def columns(self) -> int:
        """Return the number of plots in a row."""
        return 1 if self._plots < 4 else 2

    @property
    def _plots(self) -> int:
        return min(len(self._view.chunk.names), MOST_JOINTS) if self._view.chunk else 1

    def paintEvent(self, _: Any) -> None:  # noqa: N802  (Qt calls it so)
        """Qt asks for the picture."""
        painter, theme, chunk = painter_of(self), widget_theme(self), self._view.chunk
        if chunk is None:
            write(painter, self, 2, 15, "No chunk yet", bold=True)
            painter.end()
            return
        self._title(painter, theme, chunk)
        rows_of_plots = ceil(self._plots / self.columns)
        width = (self.width() + GAP) / self.columns
        height = min((self.height() - TOP) / rows_of_plots, HIGHEST)
        for column in range(self._plots):
            down, across = divmod(column, self.columns)
            x, y = across * width, TOP + down * height
            area = QtCore.QRectF(x + GUTTER, y + TITLE, width - GAP - GUTTER, height - TITLE - 6)
            self._plot(painter, theme, area, chunk, column)
        painter.end()

    def _title(self, painter: Any, theme: Theme, chunk: Chunk) -> None:
        x = 2 + write(painter, self, 2, 15, "Chunk", bold=True) + 8
        length_s = len(chunk.rows) * chunk.dt_s
        what = f"{len(chunk.rows)} rows of {chunk.dt_s * 1e3:.0f} ms, {length_s:.2g} s"
        if chunk.source == "hold":
            what = "the robot is held where it is"
        x += write(painter, self, x, 15, what, colour=theme.soft) + 12
        source = "from the policy" if chunk.source == "policy" else chunk.source
        colour = self._colour(theme)
        old = "" if self._view.heard else f", {self._now_s - chunk.at_s:.0f} s old"
        write(painter, self, self.width() - 2, 15, f"{source}{old}", right=True, bold=True, colour=colour)
        x, y = 2, 32
        for sign, ink, label in (
            ("━", colour, "still to come"), ("━", theme.soft, "elapsed"), ("●", colour, "now"),
            ("━", theme.red, "limit, where near"), *([("╍", theme.amber, "wanted, before the guard")] if chunk.wanted else []),
        ):  # fmt: skip
            if x + text_width(self, f"{sign}  {label}") > self.width() - 4:
                break
            x += write(painter, self, x, y, sign, bold=True, colour=ink) + 4
            x += write(painter, self, x, y, label, colour=theme.soft) + 12

    def _plot(self, painter: Any, theme: Theme, area: Any, chunk: Chunk, column: int) -> None:
        name, values = chunk.names[column], chunk.rows[:, column]
        low, high = self._view.ranges.get(name, NO_LIMIT)
        wanted = chunk.wanted.get(name)
        shown = shown_range(values, low, high, [] if wanted is None else [wanted])
        row = chunk.row_at(self._now_s)
        value = float(np.interp(row, np.arange(len(values)), values))
        painter.fillRect(area, QtGui.QColor(theme.ground))
        near = self._limits(painter, theme, area, (low, high), shown)
        if wanted is not None:
            y = _y(area, wanted, shown)
            level_line(painter, area.left(), area.right(), y, pen_of(theme.amber, 2, dashed=True))
        painter.setClipRect(area)
        self._curve(painter, theme, area, values, shown, row)
        painter.setClipping(False)
        self._labels(painter, theme, area, (name, value, wanted), shown, near)

    def _labels(
        self, painter: Any, theme: Theme, area: Any, joint: tuple[str, float, float | None], shown: tuple[float, float],
        near: str,
    ) -> None:  # fmt: skip
        name, value, wanted = joint
        unit, digits = self._view.units.get(name, ""), digits_of(*shown)
        left, right, y = area.left() - GUTTER, area.right(), area.top() - 4
        taken = write(painter, self, left, y, escaped(name, 40), bold=True) + 8
        current = f"{value:+.{digits}f} {unit}".rstrip()
        x = right - write(painter, self, right, y, current, right=True, bold=True) - 8
        label = near if wanted is None else f"wanted {wanted:+.{digits}f}"
        if label and x - left - taken > text_width(self, label):
            colour = theme.red if wanted is None else theme.amber
            write(painter, self, x, y, label, right=True, colour=colour)
        for text_y, end in ((area.bottom(), shown[0]), (area.top() + 10, shown[1])):
            write(painter, self, area.left() - 5, text_y, f"{end:.{digits}f}", right=True, colour=theme.soft)

    def _limits(
        self, painter: Any, theme: Theme, area: Any, limits: tuple[float, float], shown: tuple[float, float]
    ) -> str:
        """Draw the limits that are in the range, and return their words."""
        bottom, top = shown
        words = []
        for limit, outwards, end in ((limits[0], area.bottom(), "min"), (limits[1], area.top(), "max")):
            if not isfinite(limit) or not bottom < limit < top:
                continue
            y = _y(area, limit, shown)
            beyond = QtGui.QColor(theme.red)
            beyond.setAlpha(45)
            painter.fillRect(
                QtCore.QRectF(area.left(), min(y, outwards), area.width(), abs(outwards - y)), beyond
            )
            level_line(painter, area.left(), area.right(), y, pen_of(theme.red, 2))
            words.append(f"{end} {limit:.3g}")
        return ", ".join(words)

    def _curve(
        self, painter: Any, theme: Theme, area: Any, values: Any, shown: tuple[float, float], row: float
    ) -> None:
        if len(values) == 1:  # a hold: the same everywhere
            values = np.repeat(values, 2)
        across = area.width() / (len(values) - 1)

        def place(index: float, value: float) -> Any:
            return QtCore.QPointF(area.left() + index * across, _y(area, value, shown))

        points = [place(index, float(value)) for index, value in enumerate(values)]
        here = place(row, float(np.interp(row, np.arange(len(values)), values)))
        split = int(row) + 1
        colour = self._colour(theme)
        painter.setPen(pen_of(theme.soft, 1.6))
        painter.drawPolyline(QtGui.QPolygonF([*points[:split], here]))
        painter.setPen(pen_of(colour, 2.2))
        painter.drawPolyline(QtGui.QPolygonF([here, *points[split:]]))
        if self._view.heard:
            painter.setBrush(QtGui.QColor(colour))
            painter.setPen(QtCore.Qt.NoPen)
            painter.drawEllipse(here, 3.6, 3.6)
            painter.setBrush(QtCore.Qt.NoBrush)

    def _colour(self, theme: Theme) -> str:
        """Return the colour of where the chunk came from; what is old has none."""
        chunk = self._view.chunk
        return theme.soft if chunk is None or not self._view.heard else theme.source(chunk.source)


def _y(area: Any, value: float, shown: tuple[float, float]) -> float:
    bottom, top = shown
    return float(area.bottom() - (value - bottom) / (top - bottom) * area.height())
