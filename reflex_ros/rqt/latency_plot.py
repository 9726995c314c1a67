# SPDX-License-Identifier: Apache-2.0
"""The latency per chunk over the last minutes, by the clock, against deadline and objective. Painted with Qt alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from reflex_ros.rqt.painting import level_line, painter_of, pen_of, text_width, write
from reflex_ros.rqt.panel_theme import Theme, widget_theme
from reflex_ros.rqt.panel_view import Second, View
from reflex_ros.rqt.qt import QtCore, QtGui, QtWidgets
from reflex_ros.rqt.scale import latency_top_ms, lines_of, ticks

WINDOW_S = 240.0
GRID_S = 60
GAP_S = 5.0  # a longer pause breaks the line
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 24, 20  # room for the axes, pixels
EXPLANATION = (
    "Time from the receipt of an observation to its finished chunk. Line: mean of each second; band: its fastest to its slowest."
    " Deadline: after it the last good chunk goes on. Objective: what the percentile of a minute must not exceed."
)


class LatencyPlot(QtWidgets.QWidget):
    """The latencies of the last minutes."""

    def __init__(self, wall_s: Callable[[], float]) -> None:
        """Create it. wall_s: seconds since 1970, for the axis."""
        super().__init__()
        self.setMinimumSize(300, 120)
        self.setAccessibleName("latency over the last minutes")
        self.setToolTip(EXPLANATION)
        self._view, self._now_s = View(""), 0.0
        self._wall_s = wall_s

    def show_view(self, view: View, now_s: float) -> None:
        """Draw another moment."""
        self._view, self._now_s = view, now_s
        figures = view.figures
        self.setAccessibleDescription(
            f"p50 {figures.p50_ms:.0f} ms, p99 {figures.p99_ms:.0f} ms. {EXPLANATION}"
        )
        self.update()

    def paintEvent(self, _: Any) -> None:  # noqa: N802  (Qt calls it so)
        """Qt asks for the picture."""
        painter, theme = painter_of(self), widget_theme(self)
        top_ms = latency_top_ms(self._view, self._now_s - WINDOW_S)
        area = self.rect().adjusted(LEFT, TOP, -RIGHT, -BOTTOM)
        painter.fillRect(area, QtGui.QColor(theme.ground))
        self._axes(painter, theme, area, top_ms)
        if not self._view.seconds:
            text = "no chunk received yet"
            x = area.center().x() - text_width(self, text) / 2
            write(painter, self, x, area.bottom() - 12, text, colour=theme.soft)
        painter.setClipRect(area)
        self._latencies(painter, theme, area, top_ms)
        painter.setClipping(False)
        self._lines(painter, theme, area, top_ms)
        self._title(painter, theme)
        painter.end()

    def _title(self, painter: Any, theme: Theme) -> None:
        figures = self._view.figures
        x = 2 + write(painter, self, 2, 15, "Latency", bold=True) + 8
        x += write(painter, self, x, 15, "ms per chunk", colour=theme.soft) + 14
        odd = sorted({second.odd for second in self._view.seconds if second.odd})
        right = self.width() - RIGHT
        if self._view.seconds:
            right -= write(
                painter,
                self,
                right,
                15,
                f"p50 {figures.p50_ms:.0f}   p99 {figures.p99_ms:.0f}",
                right=True,
                bold=True,
            )
        for source in odd:
            label = f"● {source}"
            if x + text_width(self, label) < right - 8:
                x += write(painter, self, x, 15, label, colour=theme.source(source)) + 12

    def _axes(self, painter: Any, theme: Theme, area: Any, top_ms: float) -> None:
        for value in ticks(top_ms) if self._view.seconds or lines_of(self._view) else (0.0,):
            y = _y(area, value / top_ms)
            level_line(painter, area.left(), area.right(), y, pen_of(theme.edge, 1))
            write(painter, self, LEFT - 6, y + 4, f"{value:g}", right=True, colour=theme.soft)
        wall_s = self._wall_s()
        minute = int(wall_s // GRID_S) * GRID_S
        while wall_s - minute < WINDOW_S:
            x = self._x(area, self._now_s - (wall_s - minute))
            painter.setPen(pen_of(theme.edge, 1))
            painter.drawLine(int(x), area.top(), int(x), area.bottom())
            label = datetime.fromtimestamp(minute).strftime(
                "%H:%M"
            )  # the local time, as on a clock beside it
            half = text_width(self, label) / 2
            if x + half <= area.right() and x - half >= area.left():
                write(painter, self, x - half, self.height() - 5, label, colour=theme.soft)
            minute -= GRID_S

    def _lines(self, painter: Any, theme: Theme, area: Any, top_ms: float) -> None:
        beyond = 0
        for name, value_ms in lines_of(self._view):
            deadline = name == "deadline"
            colour = theme.red if deadline else theme.amber
            label = f"{name} {value_ms:g} ms"
            x = area.right() - 6 if deadline else area.left() + 6
            if value_ms > top_ms:
                write(painter, self, x, area.top() + 13, f"{label} ↑", right=deadline, colour=colour)
                beyond += 1
                continue
            y = _y(area, value_ms / top_ms)
            level_line(painter, area.left(), area.right(), y, pen_of(colour, 2, dashed=not deadline))
            others = [value for other, value in lines_of(self._view) if other != name and value > value_ms]
            below = y - area.top() < 16 or any(0 < y - _y(area, value / top_ms) < 16 for value in others)
            write(
                painter, self, x, y + 14 if below else y - 4, label, right=deadline, bold=True, colour=colour
            )

    def _latencies(self, painter: Any, theme: Theme, area: Any, top_ms: float) -> None:
        for run in _runs(self._view.seconds, self._now_s - WINDOW_S):
            places = [self._x(area, second.at_s + 0.5) for second in run]
            most = [_y(area, second.most_ms / top_ms) for second in run]
            least = [_y(area, second.least_ms / top_ms) for second in run]
            mean = [_y(area, second.mean_ms / top_ms) for second in run]
            band = [QtCore.QPointF(x, y) for x, y in zip(places, most, strict=True)]
            band += [QtCore.QPointF(x, y) for x, y in reversed(list(zip(places, least, strict=True)))]
            line = theme.blue if self._view.heard else theme.soft
            colour = QtGui.QColor(line)
            colour.setAlpha(60)
            painter.setPen(QtCore.Qt.NoPen)
            painter.setBrush(colour)
            painter.drawPolygon(QtGui.QPolygonF(band))
            painter.setBrush(QtCore.Qt.NoBrush)
            painter.setPen(pen_of(line, 1.8))
            points = [QtCore.QPointF(x, y) for x, y in zip(places, mean, strict=True)]
            painter.drawPolyline(QtGui.QPolygonF(points))
            painter.setPen(QtCore.Qt.NoPen)
            for second, place, top in zip(run, places, most, strict=True):
                if second.odd or len(run) == 1:
                    painter.setBrush(QtGui.QColor(theme.source(second.odd)))
                    painter.drawEllipse(QtCore.QPointF(place, top), 3.0, 3.0)

    def _x(self, area: Any, at_s: float) -> float:
        return float(area.right() - area.width() * (self._now_s - at_s) / WINDOW_S)


def _runs(seconds: tuple[Second, ...], since_s: float) -> list[list[Second]]:
    """Return the seconds since then, cut where nothing came for a while."""
    runs: list[list[Second]] = []
    for second in seconds:
        if second.at_s < since_s:
            continue
        if not runs or second.at_s - runs[-1][-1].at_s > GAP_S:
            runs.append([])
        runs[-1].append(second)
    return runs


def _y(area: Any, share: float) -> int:
    return int(area.bottom() - min(share, 1.0) * area.height())
