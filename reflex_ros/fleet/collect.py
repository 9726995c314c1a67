# SPDX-License-Identifier: Apache-2.0
"""Copy the traces of a server: what is new since the last copy, and nothing twice."""

from __future__ import annotations

import fcntl
import http.client
import os
import re
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from urllib.parse import quote

from reflex_core.text.untrusted import shown
from reflex_ros.fleet.exchange import Access, FleetError, document, exchange
from reflex_ros.fleet.servers import Server

TRACE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}\.jsonl(\.gz)?")
MOST_FILES = 100_000
LARGEST_LIST = MOST_FILES * 256 + 1024  # a name of 210 characters and its size
PART_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Collected:
    """What a server has, and what of it was copied now. files: its traces; new: those of them that grew or are new."""

    files: int
    new: int
    copied_bytes: int

    def document(self) -> dict[str, int]:
        """Return it for --json."""
        return {"files": self.files, "new": self.new, "copied_bytes": self.copied_bytes}


def collect(server: Server, access: Access, folder: Path) -> Collected:
    """Copy what a server has recorded into `folder/NAME/`. Raises FleetError; what was copied until then stays and is not copied again.

    A trace only grows, so that a copy is always the beginning of it: the rest is appended.
    """
    own = folder / server.name
    listed = _traces(document(server, access, "GET", "/traces", most_bytes=LARGEST_LIST))
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FleetError(f"{own}: {error.strerror}") from error
    new = copied = 0
    for name, size in listed.items():
        more = _complete(server, access, own / name, size)
        new += more > 0
        copied += more
    return Collected(len(listed), new, copied)


def _traces(found: object) -> dict[str, int]:
    """Return the size of each trace of a list, checked: a name becomes a file here."""
    entries = found.get("traces") if isinstance(found, dict) else None
    if not isinstance(entries, list) or len(entries) > MOST_FILES:
        raise FleetError(f"/traces must hold a list of at most {MOST_FILES} traces")
    sizes: dict[str, int] = {}
    for entry in entries:
        name, size = (entry.get("name"), entry.get("bytes")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not TRACE_NAME.fullmatch(name):
            raise FleetError(f"/traces names {shown(name)}, which is no trace")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise FleetError(f"/traces gives {shown(size)} as the size of {name}")
        sizes[name] = size
    return sizes


def _complete(server: Server, access: Access, path: Path, size: int) -> int:
    """Append what a copy lacks of a trace of `size` bytes; return how many bytes."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o640), "ab", buffering=0) as file:
            _alone(file, path)
            has = os.fstat(file.fileno()).st_size
            if has > size:
                raise FleetError(
                    f"{path} has {has} bytes and the trace of the server {size}: it is another one"
                )
            if has == size:
                return 0
            more = {"Range": f"bytes={has}-{size - 1}"}
            with exchange(server, access, "GET", f"/traces/{quote(path.name)}", None, more) as response:
                if response.status != http.client.PARTIAL_CONTENT:
                    raise FleetError(
                        f"/traces/{path.name} was answered {response.status}, expected a part (206)"
                    )
                part_of = response.headers.get("Content-Range", "")
                if not part_of.startswith(f"bytes {has}-"):
                    raise FleetError(
                        f"/traces/{path.name} was answered with the part {shown(part_of)}, expected one from byte {has} on"
                    )
                left = size - has
                while left and (part := response.read(min(PART_BYTES, left))):
                    _write(file, part, path)
                    left -= len(part)
            if left:
                raise FleetError(
                    f"/traces/{path.name} ended {left} bytes too early; the next run goes on there"
                )
            return size - has
    except OSError as error:
        raise FleetError(f"{path}: {error.strerror or error}") from error


def _alone(file: RawIOBase, path: Path) -> None:
    """Keep out another run, which would append the same bytes. Raises FleetError where one is there."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FleetError(f"{path}: another run is copying it just now") from error


def _write(file: RawIOBase, part: bytes, path: Path) -> None:
    """Write a part unbuffered: what is copied when something fails stays. Raises FleetError where the disk is the cause."""
    try:
        rest = memoryview(part)
        while rest:
            rest = rest[file.write(rest) or 0 :]
    except OSError as error:
        raise FleetError(f"{path}: {error.strerror or error}") from error
