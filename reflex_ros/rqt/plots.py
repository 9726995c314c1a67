# SPDX-License-Identifier: Apache-2.0
"""Two plots, painted with Qt alone: latencies against deadline and objective, a chunk against its limits."""

from __future__ import annotations

from math import ceil, isfinite
from typing import Any

import numpy as np

from reflex_ros.rqt.board import Chunk, View
from reflex_ros.rqt.qt import QtCore, QtGui, QtWidgets
from reflex_ros.rqt.scale import latency_top_ms, lines_of, near_limit, shown_range, ticks

WINDOW_S = 60.0
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 22, 22  # room for the axes, pixels
PANEL_HEIGHT = 74
GREEN, BLUE, ORANGE, RED, GREY = "#16a34a", "#2563eb", "#d97706", "#dc2626", "#8a8f98"
SOURCE_COLOURS = {"policy": BLUE, "last known good": ORANGE, "cloud": "#7c3aed", "hold": RED}


class LatencyPlot(QtWidgets.QWidget):
    """The latencies of the last minute."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumSize(320, 170)
        self._view, self._now_s = View(""), 0.0

    def show_view(self, view: View, now_s: float) -> None:
        """Draw another moment."""
        self._view, self._now_s = view, now_s
        self.update()

    def paintEvent(self, _: Any) -> None:  # noqa: N802  (Qt calls it so)
        """Qt asks for the picture."""
        painter = _painter(self)
        view = self._view
        top_ms = latency_top_ms(view, self._now_s - WINDOW_S)
        area = self.rect().adjusted(LEFT, TOP, -RIGHT, -BOTTOM)
        painter.fillRect(area, self.palette().base())
        self._axes(painter, area, top_ms)
        for name, value_ms, colour in lines_of(view):
            self._line(painter, area, top_ms, name, value_ms, colour)
        self._dots(painter, area, top_ms)
        title = _text(painter, self, LEFT, 15, "latency per chunk, ms", bold=True)
        figures = f"p50 {view.p50_ms:.1f}   p99 {view.p99_ms:.1f}"
        _text(painter, self, self.width() - RIGHT, 15, figures, right=True)
        self._legend(painter, LEFT + title + 18)
        painter.end()

    def _legend(self, painter: Any, x: int) -> None:
        """Draw the legend only where not every chunk came from the policy."""
        sources = [source for source in SOURCE_COLOURS if any(p.source == source for p in self._view.points)]
        for source in sources if len(sources) > 1 else []:
            x += 14 + _text(painter, self, x, 15, f"● {source}", colour=SOURCE_COLOURS[source])

    def _axes(self, painter: Any, area: Any, top_ms: float) -> None:
        faint = QtGui.QColor(self.palette().color(QtGui.QPalette.Mid))
        for value in ticks(top_ms):
            y = _y(area, value / top_ms)
            painter.setPen(QtGui.QPen(faint, 1, QtCore.Qt.DotLine))
            painter.drawLine(area.left(), y, area.right(), y)
            _text(painter, self, LEFT - 6, y + 4, f"{value:g}", right=True)
        for seconds in (60, 45, 30, 15, 0):
            x = int(area.right() - area.width() * seconds / WINDOW_S)
            message = "now" if seconds == 0 else f"-{seconds} s"
            _text(painter, self, x, self.height() - 6, message, right=seconds == 0)

    def _line(self, painter: Any, area: Any, top_ms: float, name: str, value_ms: float, colour: str) -> None:
        beyond = value_ms > top_ms
        y = area.top() + 1 if beyond else _y(area, value_ms / top_ms)
        painter.setPen(QtGui.QPen(QtGui.QColor(colour), 2, QtCore.Qt.DashLine))
        if not beyond:
            painter.setRenderHint(QtGui.QPainter.Antialiasing, False)  # or a level line is a pale blur
            painter.drawLine(area.left(), y, area.right(), y)
            painter.setRenderHint(QtGui.QPainter.Antialiasing, True)
        label = f"{name} {value_ms:g} ms" + (" ↑" if beyond else "")
        offset = 90 if name == "deadline" else 260
        _text(painter, self, area.left() + offset, y + 13 if beyond else y - 3, label, colour=colour)

    def _dots(self, painter: Any, area: Any, top_ms: float) -> None:
        painter.setPen(QtCore.Qt.NoPen)
        for point in self._view.points:
            age_s = self._now_s - point.at_s
            if age_s > WINDOW_S:
                continue
            x = area.right() - area.width() * age_s / WINDOW_S
            y = _y(area, min(point.latency_ms / top_ms, 1.0))
            painter.setBrush(QtGui.QColor(SOURCE_COLOURS.get(point.source, GREY)))
            painter.drawEllipse(QtCore.QPointF(x, y), 2.6, 2.6)


class ChunkPlot(QtWidgets.QWidget):
    """A small plot per joint: the newest chunk between the limits that the guard checks, and the row due now."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumWidth(340)
        self._view, self._now_s = View(""), 0.0

    def show_view(self, view: View, now_s: float) -> None:
        """Draw another moment."""
        self._view, self._now_s = view, now_s
        dims = len(view.chunk.names) if view.chunk else 1
        self.setMinimumHeight(26 + ceil(dims / self.columns) * PANEL_HEIGHT)
        self.update()

    @property
    def columns(self) -> int:
        """Return the number of plots in a row."""
        dims = len(self._view.chunk.names) if self._view.chunk else 1
        return 1 if dims < 4 else 2

    def paintEvent(self, _: Any) -> None:  # noqa: N802  (Qt calls it so)
        """Qt asks for the picture."""
        painter = _painter(self)
        chunk = self._view.chunk
        if chunk is None:
            _text(painter, self, 8, 15, "no chunk yet", bold=True)
            painter.end()
            return
        length_s = len(chunk.rows) * chunk.dt_s
        title = f"chunk: {len(chunk.rows)} x {chunk.dt_s * 1e3:.0f} ms, {length_s:.2g} s, from {chunk.source}"
        _text(painter, self, 8, 15, title, bold=True)
        rows_of_panels = ceil(len(chunk.names) / self.columns)
        width = self.width() / self.columns
        height = min((self.height() - 24) / rows_of_panels, 150.0)
        for column in range(len(chunk.names)):
            down, across = divmod(column, self.columns)
            x, y = across * width, 24 + down * height
            area = QtCore.QRectF(x + 8, y + 16, width - 16, height - 24)
            self._panel(painter, area, chunk, column)
        painter.end()

    def _panel(self, painter: Any, area: Any, chunk: Chunk, column: int) -> None:
        name, values = chunk.names[column], chunk.rows[:, column]
        low, high = (self._view.ranges or {}).get(name, (float("-inf"), float("inf")))
        bottom, top = shown_range(values, low, high)
        row = chunk.row_at(self._now_s)
        value = float(np.interp(row, np.arange(len(values)), values))
        tight = near_limit(values[int(row) :], low, high)
        painter.fillRect(area, self.palette().base())
        self._limits(painter, area, (low, high), (bottom, top))
        self._curve(painter, area, values, (bottom, top), row)
        left, right, y = int(area.left()), int(area.right()), int(area.top()) - 4
        taken = _text(painter, self, left, y, name, bold=True) + 8
        limits = f"   {low:+.2f} .. {high:+.2f}" if isfinite(low) and isfinite(high) else ""
        for label in (f"{value:+.3f}{limits}", f"{value:+.3f}"):
            if taken + _width(self, label) <= right - left:
                _text(painter, self, right, y, label, right=True, colour=RED if tight else "")
                break

    def _limits(
        self, painter: Any, area: Any, limits: tuple[float, float], shown: tuple[float, float]
    ) -> None:
        bottom, top = shown
        for limit, outwards in ((limits[0], area.bottom()), (limits[1], area.top())):
            if not isfinite(limit):
                continue
            share = (limit - bottom) / (top - bottom)
            y = int(area.bottom() - share * area.height()) + 0.5  # on a pixel, else the line is blurred
            beyond = QtGui.QColor(RED)
            beyond.setAlpha(36)
            painter.fillRect(
                QtCore.QRectF(area.left(), min(y, outwards), area.width(), abs(outwards - y)), beyond
            )
            painter.setPen(QtGui.QPen(QtGui.QColor(RED), 1, QtCore.Qt.DashLine))
            painter.drawLine(QtCore.QPointF(area.left(), y), QtCore.QPointF(area.right(), y))

    def _curve(self, painter: Any, area: Any, values: Any, shown: tuple[float, float], row: float) -> None:
        if len(values) == 1:  # a hold: wherever one looks, the same
            values = np.repeat(values, 2)
        bottom, top = shown
        across = area.width() / (len(values) - 1)

        def place(index: float, value: float) -> Any:
            share = (value - bottom) / (top - bottom)
            return QtCore.QPointF(area.left() + index * across, area.bottom() - share * area.height())

        points = [place(index, float(value)) for index, value in enumerate(values)]
        here = place(row, float(np.interp(row, np.arange(len(values)), values)))
        split = int(row) + 1
        painter.setPen(QtGui.QPen(QtGui.QColor(GREY), 1.6))
        painter.drawPolyline(QtGui.QPolygonF([*points[:split], here]))
        colour = SOURCE_COLOURS.get(self._view.chunk.source if self._view.chunk else "", GREY)
        painter.setPen(QtGui.QPen(QtGui.QColor(colour), 2.0))
        painter.drawPolyline(QtGui.QPolygonF([here, *points[split:]]))
        painter.setBrush(QtGui.QColor(colour))
        painter.setPen(QtCore.Qt.NoPen)
        painter.drawEllipse(here, 3.2, 3.2)
        painter.setBrush(QtCore.Qt.NoBrush)


def _painter(widget: Any) -> Any:
    painter = QtGui.QPainter(widget)
    painter.setRenderHint(QtGui.QPainter.Antialiasing)
    return painter


def _y(area: Any, share: float) -> int:
    return int(area.bottom() - share * area.height())


def _font(widget: Any, *, bold: bool = False) -> Any:
    font = QtGui.QFont(widget.font())
    font.setPointSizeF(max(font.pointSizeF() - 1.0, 7.0))
    font.setBold(bold)
    return font


def _width(widget: Any, text: str, *, bold: bool = False) -> int:
    return int(QtGui.QFontMetrics(_font(widget, bold=bold)).boundingRect(text).width())


def _text(
    painter: Any, widget: Any, x: int, y: int, text: str, *, right: bool = False, bold: bool = False, colour: str = ""
) -> int:  # fmt: skip
    """Write it and return its width in pixels."""
    painter.setFont(_font(widget, bold=bold))
    painter.setPen(QtGui.QColor(colour) if colour else widget.palette().color(QtGui.QPalette.WindowText))
    width = _width(widget, text, bold=bold)
    painter.drawText(x - (width if right else 0), y, text)
    return width
