# SPDX-License-Identifier: Apache-2.0
"""Helpers of the painted plots: a painter, text with its width, straight lines on pixels."""

from __future__ import annotations

from typing import Any

from reflex_ros.rqt.panel_theme import widget_theme
from reflex_ros.rqt.qt import QtCore, QtGui


def painter_of(widget: Any) -> Any:
    """Return a painter for a paint event."""
    painter = QtGui.QPainter(widget)
    painter.setRenderHint(QtGui.QPainter.Antialiasing)
    return painter


def font_of(widget: Any, *, bold: bool = False) -> Any:
    """Return the plot's font, a little smaller than the widget's."""
    font = QtGui.QFont(widget.font())
    font.setPointSizeF(max(font.pointSizeF() - 1.0, 7.0))
    font.setBold(bold)
    return font


def text_width(widget: Any, text: str, *, bold: bool = False) -> int:
    """Return the width in pixels."""
    metrics = QtGui.QFontMetrics(font_of(widget, bold=bold))
    return int(max(metrics.boundingRect(text).width(), metrics.horizontalAdvance(text)))


def write(
    painter: Any, widget: Any, x: float, y: float, text: str, *, right: bool = False, bold: bool = False, colour: str = ""
) -> int:  # fmt: skip
    """Write a text whose base line begins at x, y, or ends there, and return its width in pixels."""
    painter.setFont(font_of(widget, bold=bold))
    painter.setPen(QtGui.QColor(colour or widget_theme(widget).text))
    width = text_width(widget, text, bold=bold)
    painter.drawText(int(x) - (width if right else 0), int(y), text)
    return width


def level_line(painter: Any, left: float, right: float, y: float, pen: Any) -> None:
    """Draw a level line; antialiased it would be a pale blur."""
    painter.setRenderHint(QtGui.QPainter.Antialiasing, False)
    painter.setPen(pen)
    painter.drawLine(int(left), int(y), int(right), int(y))
    painter.setRenderHint(QtGui.QPainter.Antialiasing, True)


def pen_of(colour: str, width: float, *, dashed: bool = False, dotted: bool = False) -> Any:
    """Return a pen."""
    style = QtCore.Qt.DashLine if dashed else QtCore.Qt.DotLine if dotted else QtCore.Qt.SolidLine
    return QtGui.QPen(QtGui.QColor(colour), width, style)
