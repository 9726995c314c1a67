# SPDX-License-Identifier: Apache-2.0
"""Bodies of requests: read within one bound for all of them together, and unpacked within the bound of one.

Bytes are counted as they arrive. When they are too many, the largest body that is still on its way is given up, so that
forty clients that never finish cannot keep out one that does.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import StreamReader, web

from reflex_core.untrusted import escaped
from reflex_ros.sidecar.connections import Connection, StalledError
from reflex_ros.sidecar.reading import BodyError

MOST_BYTES = 512 << 20
# what a byte of a body may become while it is worked on: the text that JSON holds, and what base64 makes of it
EXPANSION = 3
BODY_TIMEOUT_S = 30.0
PACKED = {"gzip": 31, "x-gzip": 31, "deflate": 47}  # zlib's numbers: gzip's envelope; zlib's or gzip's
PIECE_BYTES = 1 << 20


class TooLargeError(BodyError):
    """The body, or what it unpacks to, is longer than any that makes sense."""

    slug = "body-too-large"
    status = 413


class EncodingError(BodyError):
    """The body is packed in a way that is not known here."""

    slug = "unsupported-encoding"
    status = 415


@dataclass(slots=True, eq=False)
class Body:
    """The bytes of one request. stream: while it is still on its way."""

    stream: StreamReader | None
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


class BodyMemory:
    """All bodies that are in memory. Belongs to the event loop."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bodies: dict[Body, None] = {}
        self.bytes = 0

    @contextmanager
    def body(self, stream: StreamReader) -> Iterator[Body]:
        """Room for one body, for as long as it is needed."""
        body = Body(stream)
        self._bodies[body] = None
        try:
            yield body
        finally:
            del self._bodies[body]
            self.bytes -= body.size

    def add(self, body: Body, part: bytes) -> None:
        """Keep a part of a body. Raises StalledError where there is no room for it: it is to be sent again later."""
        body.parts.append(part)
        body.size += len(part)
        self.bytes += len(part)
        while (
            self.bytes * EXPANSION > self._most_bytes and self.bytes > body.size
        ):  # alone it may be as large as it must
            largest = max(self._bodies, key=lambda one: one.size if one.stream is not None else -1)
            if largest is body or largest.stream is None:
                raise _no_room()
            largest.stream.set_exception(_no_room())
            largest.stream = None
            self.bytes -= largest.size
            largest.size = 0
            largest.parts.clear()


def _no_room() -> StalledError:
    return StalledError(
        503, "queue_full", "the requests under way take all memory that is meant for them; try again"
    )


async def read_body(request: web.Request, memory: BodyMemory, body: Body, limit: int) -> bytes:
    """The whole body as it was sent. Raises TooLargeError, StalledError, or BodyError for chunks that are none."""
    if (request.content_length or 0) > limit:
        raise TooLargeError(f"the body must have at most {limit} bytes")
    stream, connection = request.content, request.protocol
    if stream.is_eof():  # it came with the head, as usual: no timer is needed
        part = stream.read_nowait()
        if len(part) > limit:
            raise TooLargeError(f"the body must have at most {limit} bytes")
        memory.add(body, part)
        body.stream = None
        return part
    guarded = connection if isinstance(connection, Connection) else None
    if guarded is not None:
        guarded.reading(stream)
    try:
        await asyncio.wait_for(_read(stream, memory, body, limit), BODY_TIMEOUT_S)
    except asyncio.TimeoutError as error:
        raise StalledError(
            408, "request-timeout", f"the body did not come within {BODY_TIMEOUT_S:g} s"
        ) from error
    except web.RequestPayloadError as error:
        raise BodyError(f"the body cannot be read: {escaped(str(error))}") from error
    finally:
        body.stream = None
        if guarded is not None:
            guarded.reading(None)
    whole = b"".join(body.parts)
    body.parts.clear()
    return whole


async def _read(stream: StreamReader, memory: BodyMemory, body: Body, limit: int) -> None:
    while part := await stream.readany():
        memory.add(body, part)
        if body.size > limit:
            raise TooLargeError(f"the body must have at most {limit} bytes")


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """What a body with this Content-Encoding holds; not for the event loop.

    Raises EncodingError for an encoding that is not known, BodyError for bytes that are not in it, and TooLargeError.
    """
    names = [name.strip().lower() for name in encoding.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if not names:
        return body
    if len(names) > 1 or names[0] not in PACKED:
        raise EncodingError(
            f"Content-Encoding '{escaped(encoding, 40)}' is not known: send the body as it is, or as gzip or deflate"
        )
    unpacker = zlib.decompressobj(PACKED[names[0]])
    parts, size, rest = [], 0, body
    try:
        while rest and not unpacker.eof:
            part = unpacker.decompress(rest, PIECE_BYTES)
            rest = unpacker.unconsumed_tail
            parts.append(part)
            size += len(part)
            if size > limit:
                raise TooLargeError(f"the body must unpack to at most {limit} bytes")
            if not part and not rest:
                break
    except zlib.error as error:
        raise BodyError(f"the body is not {names[0]}, as its Content-Encoding says") from error
    if not unpacker.eof or unpacker.unused_data:
        raise BodyError(f"the body is not whole {names[0]}, as its Content-Encoding says")
    return b"".join(parts)
