# SPDX-License-Identifier: Apache-2.0
"""The panel in a window of its own, for a machine without rqt.

    python -m reflex_ros.rqt.window --node /reflex

`--picture FILE` draws it once, after `--after` seconds, and ends; with QT_QPA_PLATFORM=offscreen no screen is needed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIZE = (1280, 800)


class Alone:
    """A replacement for rqt's plugin context where there is no rqt."""

    def __init__(self) -> None:
        self.widget: Any = None

    def serial_number(self) -> int:
        """Return 1, the first and only plugin."""
        return 1

    def add_widget(self, widget: Any) -> None:
        """Store the panel."""
        self.widget = widget


def main(argv: Sequence[str] | None = None) -> int:
    """Show the panel until it is closed. Returns the exit status: 1 without Qt, or where no picture can be written."""
    parser = argparse.ArgumentParser(
        prog="python -m reflex_ros.rqt.window", description="The reflex panel.", allow_abbrev=False
    )
    parser.add_argument("--node", default="/reflex", help="the policy node [/reflex]")
    parser.add_argument("--picture", type=Path, help="write a PNG and end")
    parser.add_argument("--after", type=float, default=5.0, help="seconds until then [5]")
    arguments = parser.parse_args(argv)
    try:
        from reflex_ros.rqt.plugin import ReflexPlugin
        from reflex_ros.rqt.qt import QtCore, QtWidgets
    except ImportError as error:
        print(f"reflex panel: {error}", file=sys.stderr)
        return 1
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(sys.argv[:1])
    font = application.font()
    font.setPointSize(9)  # as a desktop has it; without a screen Qt takes a larger one
    application.setFont(font)
    alone = Alone()
    plugin = ReflexPlugin(alone)
    plugin.watch(arguments.node)
    alone.widget.resize(*SIZE)
    alone.widget.show()
    signal.signal(signal.SIGINT, lambda *_: application.quit())  # the panel's timer lets Python see it
    written = [True]

    def photograph() -> None:
        written[0] = alone.widget.grab().save(str(arguments.picture))
        application.quit()

    if arguments.picture is not None:
        QtCore.QTimer.singleShot(int(arguments.after * 1e3), photograph)
    application.exec_()
    plugin.shutdown_plugin()
    if not written[0]:
        print(f"reflex panel: cannot write {arguments.picture}", file=sys.stderr)
    return 0 if written[0] else 1


if __name__ == "__main__":
    sys.exit(main())
