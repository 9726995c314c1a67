# SPDX-License-Identifier: Apache-2.0
"""Reindex a bag that a kill -9 or a full disk cut off: index and summary in its files, and metadata.yaml."""

from __future__ import annotations

import os
import re
import sqlite3
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from reflex_core.errors import ReflexError
from reflex_ros.bag.files import MCAP, SQLITE3, SUFFIXES, PartWriter
from reflex_ros.bag.metadata import VERSION, Part, save, text

# of the MCAP format: a record is its kind and its length, both little-endian, and then as many bytes
_HEAD = struct.Struct("<BQ")
_MAGIC = b"\x89MCAP0\r\n"
_DATA = {1, 3, 4, 5, 6, 7}  # header, schema, channel, message, chunk, message index
_FOOTER = _HEAD.pack(2, 20) + bytes(20) + _MAGIC  # without a summary
_END_OF_DATA = _HEAD.pack(15, 4) + bytes(4)
_REINDEX = ".reindex"
MESSAGE_LENGTH = 300
_DIGITS = re.compile(r"(\d+)")


class BagError(ReflexError):
    """A bag that cannot be read or made whole: one sentence with the file and what is wrong with it."""

    slug = "bad-bag"


@dataclass(frozen=True, slots=True)
class Reindexed:
    """What a reindex found. repaired: files that had no summary; empty: files without a message, left out."""

    files: int
    messages: int
    repaired: tuple[str, ...]
    empty: tuple[str, ...]


def reindex(directory: Path) -> Reindexed:
    """Reindex a bag; of a complete one only metadata.yaml is written anew. Raises BagError."""
    if not directory.is_dir():
        raise BagError(f"{directory}: is no directory; name the directory of a bag")
    paths = sorted(filter(_is_part, directory.iterdir()), key=_number)
    storages = {storage for storage, suffix in SUFFIXES.items() for path in paths if path.suffix == suffix}
    if len(storages) != 1:
        found = "files of both" if storages else "neither"
        raise BagError(f"{directory}: a bag has .mcap files or .db3 files, this directory has {found}")
    storage = storages.pop()
    repair = _repair_mcap if storage == MCAP else _repair_sqlite3
    try:
        repaired = tuple(path.name for path in paths if repair(path))
        parts = [
            part for part in (_part(path, storage) for path in paths if path.stat().st_size) if part.messages
        ]
        if not parts:
            raise BagError(f"{directory}: its files hold no message")
        save(directory, parts, storage)
    except BagError:
        raise
    except Exception as error:  # rosbags meets damage with whatever its parsers happen to raise
        message = error if isinstance(error, OSError | sqlite3.Error) else f"{type(error).__name__}: {error}"
        raise BagError(f"{directory}: {_one_line(message)}") from error
    names = {part.name for part in parts}
    empty = tuple(path.name for path in paths if path.name not in names)
    return Reindexed(len(parts), sum(part.messages for part in parts), repaired, empty)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:MESSAGE_LENGTH]


def _is_part(path: Path) -> bool:
    return path.suffix in SUFFIXES.values() and not path.stem.endswith(_REINDEX)


def _number(path: Path) -> list[str | int]:
    """Return a sort key that puts `_10` after `_9`."""
    return [int(piece) if piece.isdigit() else piece for piece in _DIGITS.split(path.name)]


def _part(path: Path, storage: str) -> Part:
    reader = (McapReader if storage == MCAP else Sqlite3Reader)(path)
    try:
        reader.open()
    except (ReaderError, ValueError, KeyError) as error:
        raise BagError(f"{path}: {_one_line(error)}") from error
    try:
        connections = [connection._replace(digest=_digest(connection)) for connection in reader.connections]
        found = reader.metadata
        end_ns = found.end_time - 1 if found.message_count else 0  # rosbags counts to the nanosecond after
        return Part(path.name, connections, found.start_time if found.message_count else 0, end_ns)
    finally:
        reader.close()


def _digest(connection: Connection) -> str:
    """Return the RIHS01 hash of a type from its definition: an MCAP file stores no hash."""
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
    return store.hash_rihs01(connection.msgtype)


def _repair_sqlite3(path: Path) -> bool:
    """Write the row that a closed file has. Opening it has already undone the transaction that was cut off."""
    connection = sqlite3.connect(path)
    try:
        (rows,) = connection.execute("SELECT count(*) FROM metadata").fetchone()
        connection.execute("SELECT count(*) FROM messages").fetchone()
        if rows:
            return False
        connection.execute(
            "INSERT INTO metadata(metadata_version, metadata) VALUES(?, ?)",
            (VERSION, text([_part(path, SQLITE3)], SQLITE3).strip()),
        )
        connection.commit()
        return True
    finally:
        connection.close()


def _repair_mcap(path: Path) -> bool:
    """Replace a file without chunk indexes and summary by one with them; return False where it has them."""
    with path.open("r+b") as stream:
        if _has_summary(stream):
            return False
        if not _close_data(stream):
            return False
    name = f"{path.stem}{_REINDEX}"
    written = path.with_name(f"{name}{path.suffix}")
    written.unlink(missing_ok=True)
    writer = PartWriter(path.parent, name, MCAP)
    try:
        _copy(path, writer)
        writer.close(path.name)
        written.replace(path)
    except BaseException:
        writer.abort()
        written.unlink(missing_ok=True)
        raise
    return True


def _has_summary(stream: BinaryIO) -> bool:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - len(_FOOTER)))
    tail = stream.read()
    return len(tail) == len(_FOOTER) and tail.endswith(_MAGIC) and tail[_HEAD.size :][:8] != bytes(8)


def _close_data(stream: BinaryIO) -> bool:
    """Cut a torn last record off and end the file as the format requires; return False where the header is incomplete."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if stream.read(len(_MAGIC)) != _MAGIC:
        return False
    end = 0
    while len(head := stream.read(_HEAD.size)) == _HEAD.size:
        kind, length = _HEAD.unpack(head)
        if kind not in _DATA or stream.tell() + length > size:
            break
        end = stream.seek(length, os.SEEK_CUR)
    if end == 0:
        return False
    stream.seek(end)
    stream.truncate()
    stream.write(_END_OF_DATA + _FOOTER)
    return True


def _copy(path: Path, writer: PartWriter) -> None:
    reader = McapReader(path)
    reader.open()
    try:
        for connection in reader.connections:
            assert isinstance(connection.ext, ConnectionExtRosbag2)
            writer.add(
                connection.topic,
                connection.msgtype,
                connection.msgdef.data,
                _digest(connection),
                connection.ext.offered_qos_profiles,
            )
        # in the order of the file: `messages` refuses a file without index whose times go back
        for connection, time_ns, data in reader.messages_scan(reader.connections):
            writer.write(connection.topic, time_ns, data)
    finally:
        reader.close()
