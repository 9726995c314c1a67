# SPDX-License-Identifier: Apache-2.0
"""The daily files of the audit log and the end of their chain: appending, recovering, rotating, retiring."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from reflex_core.errors import ConfigurationError
from reflex_core.files.append import append_whole
from reflex_core.files.json_lines import json_line, utc_text
from reflex_core.records.audit.chain import (
    CHECKPOINT,
    RECOVERED,
    START,
    audit_files,
    day_of,
    file_name,
    read_tail,
    with_hash,
)

AUDIT_VERSION = 1

log = logging.getLogger(__name__)

Fields = Mapping[str, Any]


class AuditStore:
    """The daily files of one directory and the end of their chain. Used by one thread, but for `sync`."""

    def __init__(self, directory: Path, robot_id: str, retention_days: int) -> None:
        self._directory = directory
        self._robot_id = robot_id
        self._retention_days = retention_days
        self._files = threading.Lock()  # which file is open
        self._file = -1
        self._unsynced = False
        self._day = date.min
        self._size = 0
        self._seq = 0
        self._prev = START
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory, os.O_RDONLY)
        except OSError as error:
            raise ConfigurationError(
                f"{directory}: the audit log cannot be kept here: {error.strerror}"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ConfigurationError(
                f"{directory}: another process writes this audit log; give each robot a directory of its own"
            ) from error

    def open(self) -> None:
        """Find the end of the chain where it is not known; an incomplete end is recorded, never removed. Raises OSError."""
        if self._file >= 0:
            return
        self._seq, self._prev = 0, START
        files = audit_files(self._directory)
        torn, ends_line = b"", True
        for path in reversed(files):
            tail = read_tail(path)
            if path == files[-1]:
                torn, ends_line = tail.torn, tail.ends_line
            if tail.record is not None:
                self._seq, self._prev = tail.record["seq"] + 1, tail.record["hash"]
                break
        if not files:
            return
        self._continue(files[-1])
        if not ends_line:
            self._put(b"\n")
        if torn:
            log.error(
                "%s: the last %d bytes are an incomplete record; the log continues after them",
                files[-1],
                len(torn),
            )
            digest = hashlib.sha256(torn).hexdigest()
            found = {
                "kind": RECOVERED,
                "robot_id": self._robot_id,
                "torn_bytes": len(torn),
                "torn_sha256": digest,
            }
            self.append([{"timestamp": utc_text(), **found}])

    def enter(self, day: date, time_ns: int) -> date:
        """Open the file of that day, or stay in a later one where the clock went back. Raises OSError."""
        if self._file >= 0 and day <= self._day and self._size > 0:
            return self._day
        day = max(day, self._day)
        previous = audit_files(self._directory)
        path = self._directory / file_name(day)
        oldest = day - timedelta(days=self._retention_days) if self._retention_days else date.min
        expired = [old for old in previous if (day_of(old) or day) < oldest]
        self._shut()
        self._continue(path)
        checkpoint = {
            "timestamp": utc_text(time_ns),
            "kind": CHECKPOINT,
            "audit_version": AUDIT_VERSION,
            "robot_id": self._robot_id,
            "previous_file": next((old.name for old in reversed(previous) if old != path), None),
            "retention_days": self._retention_days,
            "removed_by_retention": [old.name for old in expired],
        }
        self.append([checkpoint])
        for old in expired:
            log.info("audit log: %s is older than %d days and is removed", old, self._retention_days)
            with suppress(FileNotFoundError):
                old.unlink()
        os.fsync(self._lock)
        return day

    def append(self, records: Sequence[Fields]) -> None:
        """Hash the records and hand them to the operating system; all of them or none. Raises OSError.

        A kill -9 after this loses none of them. A power loss may, until `sync` has returned.
        """
        seq, prev = self._seq, self._prev
        lines = []
        for record in records:
            line, prev = with_hash(json_line({"seq": seq, "prev": prev, **record}))
            lines.append(line)
            seq += 1
        self._put(b"\n".join([*lines, b""]))
        self._seq, self._prev = seq, prev

    def sync(self) -> None:
        """Wait until what was appended is on the disk; for any thread, and appending goes on meanwhile. Raises OSError."""
        with self._files:
            if self._file < 0 or not self._unsynced:
                return
            copy, self._unsynced = os.dup(self._file), False
        try:
            os.fsync(copy)
        finally:
            os.close(copy)

    def close(self) -> None:
        """Let another process write."""
        self._shut()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _continue(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._day, self._size = day_of(path) or date.max, os.fstat(self._file).st_size

    def _put(self, data: bytes) -> None:
        try:
            append_whole(self._file, data, self._size)
        except OSError:
            self._shut()
            raise
        self._size += len(data)
        self._unsynced = True

    def _shut(self) -> None:
        with suppress(OSError):  # an error that closes it was reported already
            self.sync()
        with self._files:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
