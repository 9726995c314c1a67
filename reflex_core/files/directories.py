# SPDX-License-Identifier: Apache-2.0
"""Whether files can be made in a directory, found out without leaving one there."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from reflex_core.files.regular_file import LINK_LOOP, unreadable

FULL = (errno.ENOSPC, errno.EDQUOT)  # passes, and is for the recorders to say while it lasts


def existing(directory: Path) -> Path:
    """Return the directory, or the nearest parent that exists."""
    return next(path for path in (directory, *directory.absolute().parents) if os.path.lexists(path))


def _no_directory(path: Path) -> str:
    return f"{path} is {LINK_LOOP}" if unreadable(path) == LINK_LOOP else f"{path} is not a directory"


def unwritable(directory: Path) -> str:
    """Return why no file could be created in a directory, or in the one where it would be created; '' where it could."""
    try:
        there = existing(directory)
        os.lstat(directory)
    except FileNotFoundError:
        pass
    except ValueError as error:  # "\0" in YAML
        return str(error)
    except OSError as error:
        return f"{error.strerror or error}" if there.is_dir() else _no_directory(there)
    if not there.is_dir():
        return _no_directory(there)
    try:
        with tempfile.TemporaryFile(dir=there):
            return ""
    except OSError as error:
        return "" if error.errno in FULL else f"nothing can be written: {error.strerror or error}"
