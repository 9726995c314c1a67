# SPDX-License-Identifier: Apache-2.0
"""Files that people hand over are looked at before they are opened: a FIFO or a device would be read for ever.

A clone without Git LFS has small texts in place of large files, which every reader would call damaged.
"""

from __future__ import annotations

import errno
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


LFS_POINTER = "a Git LFS pointer, the file itself was not fetched (run `git lfs pull` where it was cloned)"
_LFS_BEGINS, _LFS_BYTES = b"version https://git-lfs", 1024  # a pointer is smaller (git-lfs, docs/spec.md)


LINK_LOOP = "a loop of symbolic links"


def is_lfs_pointer(data: bytes) -> bool:
    """Return whether these are the bytes that Git LFS leaves in place of a file."""
    return len(data) < _LFS_BYTES and data.startswith(_LFS_BEGINS)


def real_path(path: Path) -> Path:
    """Return the path with its links followed as far as they lead; for a loop Path.resolve raises RuntimeError."""
    return Path(os.path.realpath(path))


def unreadable(path: Path) -> str:
    """Return why this is no readable file ("a FIFO", "not there", ...), '' for a regular file or a link to one.

    Opens only small regular files, to detect pointers of Git LFS.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, ValueError):  # "\0" in a name that stands in a document
        return "not there"
    except OSError as error:
        return LINK_LOOP if error.errno == errno.ELOOP else f"unreadable: {error.strerror or error}"
    mode = found.st_mode
    if stat.S_ISREG(mode):
        return LFS_POINTER if found.st_size < _LFS_BYTES and is_lfs_pointer(_begin(path)) else ""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "no regular file")


def _begin(path: Path) -> bytes:
    """Return the content of a small file; nothing where it cannot be read, which its reader will report."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
            return stream.read(_LFS_BYTES)
    except OSError:
        return b""
