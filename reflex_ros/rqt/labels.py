# SPDX-License-Identifier: Apache-2.0
"""Labels, buttons and lists of the panel, and text from topics made harmless in them."""

from __future__ import annotations

from typing import Any

from reflex_core.text.untrusted import escaped
from reflex_ros.rqt.qt import QtCore, QtWidgets

MOST_CHARACTERS = 400


def label(text: str = "", *, word_wrap: bool = False) -> Any:
    """Return a label."""
    found = QtWidgets.QLabel(text)
    found.setWordWrap(word_wrap)
    return found


def set_text(widget: Any, text: str) -> None:
    """Set a text only where it changed: setting one lays the whole panel out anew."""
    if widget.text() != text:
        widget.setText(text)


def button(text: str, explanation: str) -> Any:
    """Return a button with a tooltip that a screen reader reads too."""
    found = QtWidgets.QPushButton(text)
    found.setToolTip(explanation)
    found.setAccessibleDescription(explanation)
    return found


def text_list(name: str, explanation: str) -> Any:
    """Return a list that the keyboard walks through and a screen reader reads."""
    found = QtWidgets.QListWidget()
    found.setAccessibleName(name)
    found.setAccessibleDescription(explanation)
    found.setToolTip(explanation)
    found.setWordWrap(True)
    found.setSpacing(2)
    found.setAlternatingRowColors(True)
    found.setTextElideMode(QtCore.Qt.ElideNone)
    found.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarAlwaysOff)
    return found


def plain(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return text from a topic on one line, bounded, with HTML escaped."""
    return escaped(text, most).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
