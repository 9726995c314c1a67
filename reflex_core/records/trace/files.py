# SPDX-License-Identifier: Apache-2.0
"""One trace file while it is written: plain or gzip, whole up to the last write at every moment."""

from __future__ import annotations

import fcntl
import os
import zlib
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from reflex_core.files.append import append_whole
from reflex_core.records.trace.schema import UNKNOWN_HASH

# Of what zlib offers this packs action chunks tightest for its time: Z_FILTERED does not trade short matches, which in
# random digits cost more than they save (8 per cent less than the default); level 9 takes 1.5 times as long for 1 per cent
_LEVEL = 6
_GZIP = 31  # zlib's number for a 32 KiB window and a gzip envelope
_MEMORY = 9


def trace_name(time_s: int, model_hash: str, session_id: str, *, gzip: bool) -> str:
    """Return `<YYYYMMDD>-<HHMMSS>-<model_hash>-<session_id>.jsonl[.gz]`, UTC."""
    moment = datetime.fromtimestamp(time_s, timezone.utc)
    return f"{moment:%Y%m%d-%H%M%S}-{model_hash or UNKNOWN_HASH}-{session_id}.jsonl{'.gz' if gzip else ''}"


def _packer() -> Any:
    return zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP, _MEMORY, zlib.Z_FILTERED)


def is_written(stream: BinaryIO) -> bool:
    """Return whether a process of this machine is writing the file just now.

    The kernel takes a writer's lock away when the process ends, however it ends: unlike a pid in a file, it cannot
    be another's, nor outlive a reboot.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.flock(stream, fcntl.LOCK_UN)
    return False


class TraceFile:
    """Creates the file. Raises OSError (FileExistsError where there is one already). Used by one thread."""

    def __init__(self, path: Path, *, gzip: bool) -> None:
        self.path = path
        self.size = 0
        self._compress = _packer() if gzip else None
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: bytes) -> None:
        """Hand the data to the operating system, so that a kill -9 after this loses none of it. Raises OSError."""
        if self._compress is not None:
            data = self._compress.compress(data) + self._compress.flush(zlib.Z_SYNC_FLUSH)
        self._put(data)

    def finish(self, data: bytes) -> None:
        """Write the last data and close. Raises OSError."""
        if self._compress is not None:
            data = self._compress.compress(data) + self._compress.flush(zlib.Z_FINISH)
        self._put(data)
        self._close()

    def abandon(self) -> None:
        """Close without an end; a file that holds nothing is removed."""
        self._close()
        if self.size == 0:
            with suppress(OSError):
                self.path.unlink()

    def _put(self, data: bytes) -> None:
        append_whole(self._file, data, self.size)
        self.size += len(data)

    def _close(self) -> None:
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1
