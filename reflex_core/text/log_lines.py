# SPDX-License-Identifier: Apache-2.0
"""Format one log record as exactly one line that no argument can forge."""

from __future__ import annotations

import logging

from reflex_core.text.untrusted import escaped

MESSAGE_CHARACTERS = 4000
TRACEBACK_MARK = "  | "


class OneLine(logging.Formatter):
    """Escapes what a message cannot print, line breaks included, and marks the lines of a traceback as such."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line of a record without its traceback."""
        record.message = escaped(record.message, MESSAGE_CHARACTERS)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802
        """Return a traceback, of which no line can be taken for a record of its own."""
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join(TRACEBACK_MARK + escaped(line, MESSAGE_CHARACTERS) for line in lines)
