# SPDX-License-Identifier: Apache-2.0
"""Print log records of this process on standard error, and announcements on standard output, in one format."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

from reflex_core.text.log_lines import JsonLine, TextLine

JSON = "json"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
OURS = ("reflex_core", "reflex_ros")
# rcl prints the records of a node itself; its default has seconds since 1970
ROS_FORMAT = {"RCUTILS_CONSOLE_OUTPUT_FORMAT": "{date_time_with_ms} {severity} {name}: {message}"}


class Console(logging.Handler):
    """Prints on what standard error is at that moment. `muted` while rcl prints the same records."""

    muted = False

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; a closed output is no error of the program."""
        if not self.muted:
            try:
                _print(self.format(record), sys.stderr)
            except Exception:
                self.handleError(record)


def configure(level: str = "info", form: str = "text") -> None:
    """Print this package's records from a level on, warnings of others, and Python's warnings. Replaces an earlier call."""
    root = logging.getLogger()
    for before in consoles():
        root.removeHandler(before)
    console = Console()
    console.setFormatter(JsonLine() if form == JSON else TextLine())
    root.addHandler(console)
    set_level(LEVELS[level])
    logging.captureWarnings(True)


def set_level(level: int) -> None:
    """Set the least severe records of this package that are made."""
    for name in OURS:
        logging.getLogger(name).setLevel(level)


def consoles() -> list[Console]:
    """Return the handlers that print, none before `configure`."""
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, Console)]


def announce(line: str) -> None:
    """Print a line that a person or a script waits for on standard output, unless -q was given.

    A closed output is no error (`reflex serve | head -1`).
    """
    log = logging.getLogger("reflex_ros")
    if not log.isEnabledFor(logging.INFO):
        return
    form = next((console.formatter for console in consoles()), None) or TextLine()
    record = log.makeRecord(log.name, logging.INFO, "", 0, "%s", (line,), None)
    _print(form.format(record), sys.stdout)


def _print(line: str, stream: TextIO) -> None:
    try:
        print(line, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # else closing it complains again
