# SPDX-License-Identifier: Apache-2.0
"""Appending to a file of records: whole, or not at all."""

from __future__ import annotations

import os
from contextlib import suppress


def append_whole(descriptor: int, data: bytes, size_bytes: int) -> None:
    """Append `data` to an open file; what could not be written whole is cut off again.

    Args:
        descriptor: Of the file, open for writing at its end.
        data: What the operating system shall have when this returns.
        size_bytes: Of the file before.

    Raises:
        OSError: The data could not be written; the file ends where it did before, if it can be cut.
    """
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size_bytes)
        raise
