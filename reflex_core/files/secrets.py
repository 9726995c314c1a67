# SPDX-License-Identifier: Apache-2.0
"""Files that hold a key: short, one line, and read without waiting for ever."""

from __future__ import annotations

import os
import select
import stat
import time
from pathlib import Path

MOST_BYTES = 4096
WAIT_S = 5.0  # for the writer of a pipe, such as the shell for `--api-key-file <(pass show key)`


def read_secret(path: Path) -> bytes:
    """Return the key in a file or pipe, without surrounding white space; b"" where there is none.

    Raises OSError, or ValueError for what is no key: too long, of several lines, or from a device.
    """
    stream = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(stream).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(21, "Is a directory", str(path))
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise ValueError("must be a file, got a device or a socket")
        data = _from_pipe(stream) if stat.S_ISFIFO(mode) else os.read(stream, MOST_BYTES + 1)
    finally:
        os.close(stream)
    if len(data) > MOST_BYTES:
        raise ValueError(f"must have at most {MOST_BYTES} bytes")
    key = data.strip()
    if any(byte < 0x20 or byte == 0x7F for byte in key):
        raise ValueError("must be one line without control characters")
    return key


def _from_pipe(stream: int) -> bytes:
    data, until_s = b"", time.monotonic() + WAIT_S
    while len(data) <= MOST_BYTES:
        left_s = until_s - time.monotonic()
        if left_s <= 0 or not select.select([stream], [], [], left_s)[0]:
            raise ValueError(f"no key was written into the pipe within {WAIT_S:g} s")
        part = os.read(stream, MOST_BYTES)
        if part:
            data += part
        elif data:
            return data
        else:  # no writer has opened it yet
            time.sleep(0.01)
    return data
