# SPDX-License-Identifier: Apache-2.0
"""Qt without a screen, for the tests of the panel. Import it before anything that imports Qt."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())

PATIENCE_S = 60.0  # a bound for machines under load, never a measure
_application: Any = None


def application() -> Any:
    """The one QApplication of this process."""
    global _application  # noqa: PLW0603  (Qt allows one, and it must outlive every widget)
    from reflex_ros.rqt.qt import QtWidgets

    _application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["tests"])
    return _application


def until(condition: Callable[[], Any], what: str) -> Any:
    """Let Qt work until the condition holds; fails with `what` when it never does."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        application().processEvents()
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError(f"never happened: {what}")
