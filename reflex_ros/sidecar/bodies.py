# SPDX-License-Identifier: Apache-2.0
"""Bodies of requests: read, unpacked and parsed within one bound for all of them together.

Bytes are counted as they arrive and as they are unpacked. When they are too many, the largest body that is still on its
way or being unpacked is given up, so that forty clients that never finish cannot keep out one that does, nor can twenty
whose few bytes become many.
"""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from aiohttp import StreamReader, web

from reflex_core.text.untrusted import escaped
from reflex_ros.sidecar.connections import Connection, StalledError
from reflex_ros.sidecar.problems import BodyError, TooLargeError
from reflex_ros.sidecar.worker_threads import Job, WorkerThreads

MOST_BYTES = 512 << 20
# what a byte of a body may become while it is worked on: the text that JSON holds, and its decoded base64
EXPANSION = 3
BODY_TIMEOUT_S = 30.0
PACKED = {"gzip": 31, "x-gzip": 31, "deflate": 47}  # zlib's numbers: gzip's envelope; zlib's or gzip's
PIECE_BYTES = 64 << 10
MOST_TO_ONE = 1032  # of deflate

T = TypeVar("T")


class EncodingError(BodyError):
    """The Content-Encoding of the body is not supported."""

    slug = "unsupported-encoding"
    status = 415


class Stream(Protocol):
    """Where a body comes from."""

    def set_exception(self, exc: BaseException) -> None:
        """End it: its memory is needed."""
        ...


@dataclass(slots=True, eq=False)
class Body:
    """The bytes of one request. stream: while it is still on its way. size: what of the bound it takes.

    growing: it is not yet all that it will be, and may be given up. work: what uses it outside the event loop.
    """

    memory: BodyMemory
    stream: Stream | None = None
    data: bytearray = field(default_factory=bytearray)
    size: int = 0
    growing: bool = True
    given_up: bool = False
    work: Job | None = None


class BodyMemory:
    """All bodies that are in memory. Used by the event loop and by its workers."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._bodies: dict[Body, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.bytes = 0

    @contextmanager
    def body(self, stream: Stream | None) -> Iterator[Body]:
        """Reserve memory for one body as long as it is needed: its client may leave before the worker is done."""
        self._loop = asyncio.get_running_loop()
        body = Body(self, stream)
        with self._lock:
            self._bodies[body] = None
        try:
            yield body
        finally:
            if body.work is None:
                self._release(body)
            else:
                body.work.when_over(partial(self._release, body))

    def reserve_beyond(self, body: Body, size: int) -> None:
        """Reserve `size` bytes that processing a body takes beyond it. Raises StalledError."""
        self.reserve(body, size // EXPANSION)

    def whole(self, data: bytes) -> Body:
        """Return a body that is in memory already, without a stream."""
        return Body(self, None, bytearray(data))

    def _release(self, body: Body) -> None:
        with self._lock:
            del self._bodies[body]
            self.bytes -= body.size
            body.size = 0
            body.data = bytearray()

    def reserve(self, body: Body, size: int) -> None:
        """Reserve memory for more of a body. Raises StalledError where there is none: the client must send it again later."""
        with self._lock:
            if body.given_up:
                raise _no_room()
            while (self.bytes + size) * EXPANSION > self._most_bytes and self.bytes > body.size:
                # alone it may be as large as it must
                largest = max(self._bodies, key=lambda one: one.size if one.growing else -1)
                if not largest.growing or largest.size <= body.size + size:
                    raise _no_room()
                self._give_up(largest)
            body.size += size
            self.bytes += size

    def take(self, body: Body) -> bytearray:
        """Return the bytes of a body and drop its own reference. Raises StalledError where it was given up."""
        with self._lock:
            if body.given_up:
                raise _no_room()
            data, body.data = body.data, bytearray()
            return data

    def free(self, body: Body, size: int) -> None:
        """Release memory that a body does not need any more."""
        with self._lock:
            if not body.given_up:
                body.size -= size
                self.bytes -= size

    def grown(self, body: Body) -> None:
        """Mark a body as complete. Raises StalledError where it was given up."""
        with self._lock:
            if body.given_up:
                raise _no_room()
            body.growing = False

    def _give_up(self, body: Body) -> None:
        body.given_up, body.growing = True, False
        self.bytes -= body.size
        body.size = 0
        body.data = bytearray()
        stream, body.stream = body.stream, None
        if stream is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(stream.set_exception, _no_room())


def _no_room() -> StalledError:
    return StalledError(
        503, "queue_full", "the requests under way take all memory that is meant for them; try again"
    )


async def worked(workers: WorkerThreads, body: Body, work: Callable[..., T], *arguments: object) -> T:
    """Run `work` on a body in a worker and return its result; the body's memory stays reserved until it is done."""
    body.work = job = workers.submit(partial(work, *arguments))
    found: T = await workers.wait(job)
    return found


async def read_body(request: web.Request, body: Body, limit: int) -> None:
    """Read the whole body as it was sent. Raises TooLargeError, StalledError, or BodyError for chunks that are none."""
    if (request.content_length or 0) > limit:
        raise TooLargeError(f"the body must have at most {limit} bytes")
    stream, connection = request.content, request.protocol
    packed = "Content-Encoding" in request.headers  # then it grows once more
    if stream.is_eof():  # it came with the head, as usual: no timer is needed
        part = stream.read_nowait()
        if len(part) > limit:
            raise TooLargeError(f"the body must have at most {limit} bytes")
        body.stream = None
        body.memory.reserve(body, len(part))
        body.data += part
        body.growing = packed
        return
    guarded = connection if isinstance(connection, Connection) else None
    if guarded is not None:
        guarded.reading(stream)
    try:
        await asyncio.wait_for(_read(stream, body, limit), BODY_TIMEOUT_S)
    except asyncio.TimeoutError as error:
        raise StalledError(
            408, "request-timeout", f"the body did not come within {BODY_TIMEOUT_S:g} s"
        ) from error
    except web.RequestPayloadError as error:
        raise BodyError(f"the body cannot be read: {escaped(str(error))}") from error
    finally:
        body.stream, body.growing = None, body.growing and packed
        if guarded is not None:
            guarded.reading(None)


async def _read(stream: StreamReader, body: Body, limit: int) -> None:
    while part := await stream.readany():
        body.memory.reserve(body, len(part))
        body.data += part
        if len(body.data) > limit:
            raise TooLargeError(f"the body must have at most {limit} bytes")


def unpacked(body: Body, encoding: str, limit: int) -> bytearray:
    """Return the unpacked bytes of a body with this Content-Encoding; the body is empty then. Not for the event loop.

    Raises EncodingError for an encoding that is not known, BodyError for bytes that are not in it, TooLargeError, and
    StalledError where the bodies of all requests leave no room for it.
    """
    names = [name.strip().lower() for name in encoding.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > 1 or (names and names[0] not in PACKED):
        raise EncodingError(
            f"Content-Encoding '{escaped(encoding, 40)}' is not known: send the body as it is, or as gzip or deflate"
        )
    data = body.memory.take(body)
    if names:
        packed_bytes = len(data)
        data = _unpack(body, data, names[0], limit)
        body.memory.free(body, packed_bytes)
    body.memory.grown(body)
    return data


def _unpack(body: Body, packed: bytearray, name: str, limit: int) -> bytearray:
    """Unpack in pieces, reserving memory for each before."""
    unpacker = zlib.decompressobj(PACKED[name])
    whole = bytearray()
    room = _promised(packed, limit)
    body.memory.reserve(body, room)
    try:
        for start in range(0, len(packed), PIECE_BYTES):
            if unpacker.eof:
                raise BodyError(f"the body is not whole {name}, as its Content-Encoding says")
            rest: bytes | bytearray = packed[start : start + PIECE_BYTES]
            full = True  # a full piece: zlib may hold back more
            while (rest or full) and not unpacker.eof:
                if len(whole) + PIECE_BYTES > room:
                    body.memory.reserve(body, PIECE_BYTES)
                    room += PIECE_BYTES
                part = unpacker.decompress(rest, PIECE_BYTES)
                rest, full = unpacker.unconsumed_tail, len(part) == PIECE_BYTES
                whole += part
                if len(whole) > limit:
                    raise TooLargeError(f"the body must unpack to at most {limit} bytes")
    except zlib.error as error:
        raise BodyError(f"the body is not {name}, as its Content-Encoding says") from error
    if not unpacker.eof or unpacker.unused_data:
        raise BodyError(f"the body is not whole {name}, as its Content-Encoding says")
    body.memory.free(body, room - len(whole))
    return whole


def _promised(packed: bytearray, limit: int) -> int:
    """Return the unpacked size from gzip's last four bytes, so that a body without memory is refused before the work."""
    if packed[:2] != b"\x1f\x8b":
        return 0
    return min(int.from_bytes(packed[-4:], "little"), len(packed) * MOST_TO_ONE, limit)
