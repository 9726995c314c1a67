# SPDX-License-Identifier: Apache-2.0
"""Reads traces as a stream, in constant memory, however they were cut off."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import orjson

from reflex_core.files.json_fields import is_whole
from reflex_core.records.trace.files import is_written
from reflex_core.records.trace.parse import (
    Recorded,
    RecordedImage,
    TraceError,
    check_version,
    recorded,
)
from reflex_core.records.trace.recent_images import READ_KEPT, RecentImages
from reflex_core.records.trace.schema import FOOTER, HEADER, REQUEST

PIECE_BYTES = 1 << 20
LINE_BYTES = (
    256 << 20
)  # several raw 4K cameras in base64 stay below; without a bound a damaged file fills the memory
KINDS_NAMED = 10
NOTES = ("shadow", "outcome", "executed")  # next to the requests, for readers of `documents`

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP = 31

log = logging.getLogger(__name__)

Document = dict[str, Any]


class TraceReader:
    """One trace file, plain or gzip by its content. Iterate once: it yields a Recorded per request.

    header: the first record. footer: the last one, once the iteration has reached it; None after a hard stop.
    live: whether its writer was still at it when the end was reached: what there is then is whole, and more is to come.
    warnings: what was wrong but could be skipped; damage: those of them that mean that something is incomplete or
    not understood. Raises TraceError, in the constructor and while iterating.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.footer: Document | None = None
        self.warnings: list[str] = []
        self.damage: list[str] = []
        self.live = False
        self._kinds: set[str] = set()
        try:
            self._stream = path.open("rb")
            self._size = path.stat().st_size
        except OSError as error:
            raise TraceError(f"{path}: cannot be read: {error.strerror}") from error
        self._documents = self._parsed()
        try:
            self.header = self._header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> TraceReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    @property
    def fraction(self) -> float:
        """How much of the file has been read, 0 to 1; may be read while iterating."""
        if self._stream.closed or self._size == 0:
            return 1.0
        return min(1.0, self._stream.tell() / self._size)

    def __iter__(self) -> Iterator[Recorded]:
        count, first, last, recent = 0, -1, -1, RecentImages(READ_KEPT)
        looks_back = is_whole(self.header.get("observation_steps"), 2)
        for where, document in self._documents:
            kind = document.get("kind")
            if kind in NOTES:
                continue
            if kind not in (REQUEST, FOOTER):
                self._skip(where, kind)
                continue
            check_version(document, where)
            if kind == FOOTER:
                self.footer = document
                continue
            record = recorded(document, where)
            record = _with_images(record, recent) if looks_back else record
            first = record.seq if count == 0 else min(first, record.seq)
            last = max(last, record.seq)
            count += 1
            yield record
        missing = last - first + 1 - count if count else 0
        if missing > 0:
            self._warn(f"{self.path}: {missing} requests between {first} and {last} were not recorded")

    def documents(self) -> Iterator[Document]:
        """Yield every record after the header as it was written, of whatever kind; instead of iterating. Raises TraceError."""
        for where, document in self._documents:
            check_version(document, where)
            yield document

    def notes(self, *kinds: str) -> Iterator[tuple[str, Document]]:
        """Yield (where, record) of every record of these kinds, in order; instead of iterating. Raises TraceError."""
        for where, document in self._documents:
            if document.get("kind") in kinds:
                check_version(document, where)
                yield where, document

    def _header(self) -> Document:
        where, document = next(self._documents, (str(self.path), None))
        if document is None:
            raise TraceError(f"{self.path}: the file is empty, expected a trace that begins with a header")
        if document.get("kind") != HEADER:
            kind = str(document.get("kind"))[:40]
            raise TraceError(f"{where}: a trace begins with a record of kind '{HEADER}', got '{kind}'")
        check_version(document, where)
        return document

    def _skip(self, where: str, kind: object) -> None:
        name = str(kind)[:40]
        if name in self._kinds or len(self._kinds) >= KINDS_NAMED:
            return
        self._kinds.add(name)
        self._damaged(f"{where}: records of kind '{name}' are not known and are left out")

    def _damaged(self, message: str) -> None:
        self.damage.append(message)
        self._warn(message)

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        log.warning("%s", message)

    def _parsed(self) -> Iterator[tuple[str, Document]]:
        """Yield every line as an object. An incomplete last line is a warning, a damaged one before it an error."""
        broken = ""
        for number, line in self._lines():
            if not line.strip():
                continue
            if broken:
                raise TraceError(broken)
            where = f"{self.path}:{number}"
            try:
                document = _loads(line)
            except (ValueError, RecursionError) as error:
                broken = f"{where}: the line is not JSON: {str(error)[:100]}"
                if number == 1:
                    raise TraceError(broken) from error
                continue
            if not isinstance(document, dict):
                raise TraceError(f"{where}: must be a JSON object, got {type(document).__name__}")
            yield where, document
        if broken and not self._is_live():
            self._damaged(f"{broken}; it is the last one, cut off by a hard stop, and is left out")

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        number = 1
        rest: list[bytes] = []
        length = 0
        for piece in self._pieces():
            *ended, tail = piece.split(b"\n")
            for line in ended:
                yield number, b"".join([*rest, line])
                rest, length = [], 0
                number += 1
            rest.append(tail)
            length += len(tail)
            if length > LINE_BYTES:
                raise TraceError(f"{self.path}:{number}: the line is longer than {LINE_BYTES >> 20} MiB")
        yield number, b"".join(rest)

    def _pieces(self) -> Iterator[bytes]:
        try:
            magic = self._stream.read(len(_GZIP_MAGIC))
            self._stream.seek(0)
            if magic == _GZIP_MAGIC:
                yield from self._unpacked(self._stream)
                return
            while piece := self._stream.read(PIECE_BYTES):
                yield piece
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be read: {error.strerror}") from error

    def _unpacked(self, stream: BinaryIO) -> Iterator[bytes]:
        member = zlib.decompressobj(_GZIP)
        data = b""
        try:
            while data or (data := stream.read(PIECE_BYTES)):
                if member.eof:
                    data = data.lstrip(b"\0")  # padding after the end is allowed
                    if data and not _GZIP_MAGIC.startswith(data[:2]):
                        self._damaged(f"{self.path}: what follows the end of the gzip stream is left out")
                        return
                    if data:
                        member = zlib.decompressobj(_GZIP)
                    continue
                yield member.decompress(data, PIECE_BYTES)
                data = member.unused_data if member.eof else member.unconsumed_tail
            yield member.flush()
        except zlib.error as error:
            raise TraceError(
                f"{self.path}: damaged before byte {stream.tell()} of the gzip file: {error}"
            ) from error
        if not member.eof and not self._is_live():
            self._damaged(
                f"{self.path}: the gzip stream has no end, its writer was stopped hard; read up to there"
            )

    def _is_live(self) -> bool:
        if not self.live and is_written(self._stream):
            self.live = True
            self._warn(f"{self.path}: is being written just now; read up to its last flush")
        return self.live


def _with_images(record: Recorded, recent: RecentImages) -> Recorded:
    """Return a record whose earlier observations have the images that records before it hold. `recent` has those."""

    def found(image: RecordedImage) -> RecordedImage:
        if image.text is None:
            return RecordedImage(image.sha256, recent.text(image.sha256))
        recent.put(image.sha256, image.text)
        return image

    for image in record.images.values():
        found(image)
    history = [
        replace(one, images={camera: found(image) for camera, image in one.images.items()})
        for one in record.history
    ]
    return replace(record, history=tuple(history))


def _loads(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)  # other writers leave a bare NaN, which only this parser takes
