# SPDX-License-Identifier: Apache-2.0
"""Write the files of a bag: of bounded size, each complete up to its last flush.

rosbags writes the formats. Its own `Writer` neither flushes on a clock nor splits, so this holds its storage classes
directly: an MCAP chunk is closed and a sqlite3 transaction committed whenever `flush` is called.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

import yaml
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
    Qos,
)
from rosbags.rosbag2.enums import CompressionMode
from rosbags.rosbag2.metadata import dump_qos_v9
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

from reflex_ros.bag.metadata import VERSION, Part, save, text

MCAP, SQLITE3 = "mcap", "sqlite3"
SUFFIXES = {MCAP: ".mcap", SQLITE3: ".db3"}


class _FileName(NamedTuple):
    """A file name for rosbags, which names a file after its directory; a bag of several files needs one for each."""

    directory: Path
    name: str

    def __truediv__(self, file: str) -> Path:
        return self.directory / file


def open_storage(directory: Path, name: str, storage: str) -> McapWriter | Sqlite3Writer:
    """Create a file `<name>.mcap` or `<name>.db3`. Raises OSError or sqlite3.Error."""
    place = cast(Path, _FileName(directory, name))
    if storage == MCAP:
        return McapWriter(place, CompressionMode.NONE)
    writer = Sqlite3Writer(place, CompressionMode.NONE)
    # the thread that closes a bag need not be the one that wrote it
    writer.conn.close()
    writer.conn = sqlite3.connect(writer.path, check_same_thread=False)
    writer.cursor = writer.conn.cursor()
    return writer


def flush(writer: McapWriter | Sqlite3Writer) -> int:
    """Hand everything to the operating system, so that a kill -9 loses none of it. Returns the size in bytes."""
    if isinstance(writer, Sqlite3Writer):
        writer.conn.commit()
        return writer.path.stat().st_size
    if writer.chunk.msgs:
        writer.close_chunk()
    writer.bio.flush()
    return writer.bio.tell()


class PartWriter:
    """One file. Used by one thread at a time. Raises OSError or sqlite3.Error from everything."""

    def __init__(self, directory: Path, name: str, storage: str) -> None:
        self._storage = storage
        self._writer = open_storage(directory, name, storage)
        self.path: Path = self._writer.path
        self._connections: dict[str, Connection] = {}
        self._kinds: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._start_ns, self._end_ns = 2**63 - 1, 0
        self.size_bytes = 0

    def add(self, topic: str, kind: str, definition: str, digest: str, profiles: Sequence[Qos]) -> None:
        """Register a topic before its first message. digest: the type's RIHS01 hash."""
        connection = Connection(
            id=len(self._connections) + 1,
            topic=topic,
            msgtype=kind,
            msgdef=MessageDefinition(MessageDefinitionFormat.MSG, definition),
            digest=digest,
            msgcount=0,
            ext=ConnectionExtRosbag2("cdr", list(profiles)),
            owner=self,
        )
        if kind not in self._kinds:
            self._writer.add_msgtype(connection)
            self._kinds.add(kind)
        self._writer.add_connection(
            connection, str(yaml.safe_dump([*map(dict, dump_qos_v9(list(profiles)))]))
        )
        self._connections[topic] = connection

    def knows(self, topic: str) -> bool:
        """Return whether `add` was called for a topic."""
        return topic in self._connections

    def write(self, topic: str, time_ns: int, data: bytes | memoryview) -> None:
        """Write one message of a known topic."""
        self._writer.write(self._connections[topic], time_ns, data)
        self._counts[topic] += 1
        self._start_ns, self._end_ns = min(self._start_ns, time_ns), max(self._end_ns, time_ns)

    def flush(self) -> None:
        """Make everything written so far survive a kill -9."""
        self.size_bytes = flush(self._writer)

    def close(self, name: str = "") -> Part:
        """Write index and summary. name: the file's later name, where it will be renamed."""
        connections = [
            connection._replace(msgcount=self._counts[topic])
            for topic, connection in self._connections.items()
        ]
        start_ns = self._start_ns if self._counts else 0
        part = Part(name or self.path.name, connections, start_ns, self._end_ns)
        self._writer.close(VERSION, text([part], self._storage).strip())
        return part

    def abort(self) -> None:
        """Close the file without index and summary."""
        with suppress(OSError, sqlite3.Error):
            self._writer.abort()


class BagFiles:
    """A directory of parts, followed by a new one at `split_bytes`. Raises OSError or sqlite3.Error."""

    def __init__(self, directory: Path, storage: str, split_bytes: int) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self._storage, self._split_bytes = storage, split_bytes
        self._parts: list[Part] = []
        self.part: PartWriter | None = None
        self.flushed = False

    def writable(self) -> PartWriter:
        """Return the part that the next message belongs to."""
        if self.part is None:
            self.part = PartWriter(self.directory, f"{self.directory.name}_{len(self._parts)}", self._storage)
        return self.part

    def flush(self) -> None:
        """Make everything written so far survive a kill -9, and end a part that is full."""
        if self.part is None:
            return
        self.part.flush()
        self.flushed = True
        if self.part.size_bytes >= self._split_bytes:
            self._end_part()

    def close(self) -> None:
        """End the last part and write metadata.yaml."""
        self._end_part()
        save(self.directory, self._parts, self._storage)

    def abort(self) -> None:
        """Close the files without index and metadata; a reindex makes them a bag."""
        if self.part is not None:
            self.part.abort()

    def _end_part(self) -> None:
        if self.part is None:
            return
        self._parts.append(self.part.close())
        self.part = None
