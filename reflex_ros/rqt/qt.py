# SPDX-License-Identifier: Apache-2.0
"""Qt as rqt has it (python_qt_binding), else PyQt5 alone, else an error that names the missing package."""

from __future__ import annotations

import importlib
from typing import Any

BINDINGS = ("python_qt_binding", "PyQt5")


def _module(name: str) -> Any:
    for binding in BINDINGS:
        try:
            return importlib.import_module(f"{binding}.{name}")
        except ImportError:
            continue
    raise ImportError(
        "the reflex panel needs Qt: apt install python3-python-qt-binding (rqt brings it), or pip install PyQt5"
    )


QtCore: Any = _module("QtCore")
QtGui: Any = _module("QtGui")
QtWidgets: Any = _module("QtWidgets")
