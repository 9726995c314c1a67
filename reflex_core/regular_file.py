# SPDX-License-Identifier: Apache-2.0
"""Files that people hand over are looked at before they are opened: a FIFO or a device would be read for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def unreadable(path: Path) -> str:
    """Why this is no file to read ("a FIFO", "not there", ...), '' for a regular file or a link to one. Opens nothing."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return "not there" if isinstance(error, FileNotFoundError) else str(error.strerror or error)
    if stat.S_ISREG(mode):
        return ""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "no regular file")
