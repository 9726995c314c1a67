# SPDX-License-Identifier: Apache-2.0
"""Format one log record as exactly one line that no argument can forge, as text or as JSON."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import datetime, timezone

from reflex_core.text.untrusted import escaped

MESSAGE_CHARACTERS = 4000
TRACEBACK_MARK = "  | "
OWN = ("reflex_core", "reflex_ros", "reflex_export")  # others' records name their logger
PROGRAM = "reflex"
TIME = "%Y-%m-%d %H:%M:%S"  # local; ROS prints the same with `{date_time_with_ms}`

# the request that this thread works on; a worker of the pool has its caller's
request_id: ContextVar[str] = ContextVar("request_id", default="")


class OneLine(logging.Formatter):
    """Escapes what a message cannot print, line breaks included, and marks the lines of a traceback as such."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line of a record without its traceback."""
        record.message = message_of(record)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802
        """Return a traceback, of which no line can be taken for a record of its own."""
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join(TRACEBACK_MARK + escaped(line, MESSAGE_CHARACTERS) for line in lines)


class TextLine(OneLine):
    """`2026-11-30 20:04:04.123 WARN reflex: message`, in local time: the line that ROS prints, too."""

    def __init__(self) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03d %(severity)s {PROGRAM}: %(message)s", TIME)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line, with the severity as ROS names it."""
        record.severity = {"WARNING": "WARN", "CRITICAL": "FATAL"}.get(record.levelname, record.levelname)
        return super().formatMessage(record)


class JsonLine(logging.Formatter):
    """One JSON object: time (ISO 8601, with its offset), level, logger, message; request_id and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        when = datetime.fromtimestamp(record.created, timezone.utc).astimezone()
        found = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:MESSAGE_CHARACTERS],
        }
        if name := request_id.get():
            found["request_id"] = name
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found)


def message_of(record: logging.LogRecord) -> str:
    """Return the message of a record on one line; that of another package behind the name of its logger."""
    text = escaped(record.getMessage(), MESSAGE_CHARACTERS)
    return text if record.name.partition(".")[0] in OWN else f"{escaped(record.name)}: {text}"
