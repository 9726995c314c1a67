# SPDX-License-Identifier: Apache-2.0
"""Buttons and sliders that do not act by accident."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reflex_ros.rqt.qt import QtCore, QtWidgets

EARLY_MS = 700  # a double-click is over by then
SURE_MS = 4000
WAIT_STYLE = "border: 2px dashed #d97706; padding: 4px 10px"
ARMED_STYLE = "background: #d97706; color: white; font-weight: bold; padding: 6px 12px; border-radius: 4px"


class Twice:
    """Has a button act on its second press; an early one, as of a double-click, starts the wait anew."""

    def __init__(self, button: Any, action: Callable[[], None]) -> None:
        self._button, self._action = button, action
        self._label = button.text()
        self._armed = False
        self._timer = QtCore.QTimer(button)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._late)
        button.clicked.connect(lambda _: self._pressed())

    def allow(self, allowed: bool) -> None:
        """Switch the button on or off; off, it forgets its first press."""
        self._button.setEnabled(allowed)
        if not allowed:
            self._calm()

    def _pressed(self) -> None:
        if self._armed:
            self._calm()
            self._action()
            return
        self._show(f"{self._label} …", WAIT_STYLE)
        self._timer.start(EARLY_MS)

    def _late(self) -> None:
        if self._armed:
            self._calm()
            return
        self._armed = True
        self._show(f"{self._label}: press again", ARMED_STYLE)
        self._timer.start(SURE_MS)

    def _calm(self) -> None:
        self._armed = False
        self._timer.stop()
        self._show(self._label, "")

    def _show(self, text: str, style: str) -> None:
        if self._button.text() != text:
            self._button.setText(text)
            self._button.setStyleSheet(style)


class Slider(QtWidgets.QSlider):
    """A slider that a wheel which only passes over it does not move."""

    def __init__(self) -> None:
        super().__init__(QtCore.Qt.Horizontal)
        self.setFocusPolicy(QtCore.Qt.StrongFocus)

    def wheelEvent(self, event: Any) -> None:  # noqa: N802  (Qt's name)
        """Handle the wheel as Qt does, only while the slider has the focus."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class PercentSlider(Slider):
    """A slider from 0 to 100 that reports what a person chose, not what it is set to follow."""

    def __init__(self, chosen: Callable[[int], None]) -> None:
        """Create it, switched off. chosen: called when the mouse lets go, and for each move by keyboard and wheel."""
        super().__init__()
        self._chosen = chosen
        self.setRange(0, 100)
        self.setEnabled(False)
        self.setTracking(True)
        self.valueChanged.connect(self._moved)
        self.sliderReleased.connect(lambda: self._chosen(self.value()))

    def follow(self, percent: int) -> None:
        """Show a value, unless it is just being moved."""
        if not self.isSliderDown() and self.value() != percent:
            self.blockSignals(True)
            self.setValue(percent)
            self.blockSignals(False)

    def _moved(self, percent: int) -> None:
        if not self.isSliderDown():  # keyboard and wheel have no release
            self._chosen(percent)
