# SPDX-License-Identifier: Apache-2.0
"""The parts of an observation on LeRobot's gRPC port, put together within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from reflex_ros.sidecar.bodies import BODY_TIMEOUT_S, Body
from reflex_ros.sidecar.connections import StalledError
from reflex_ros.sidecar.problems import BodyError, TooLargeError
from reflex_ros.sidecar.wires.protobuf import fields_of

PART_S = 10.0  # from one part to the next
FIRST_PART, LAST_PART = 1, 3  # TRANSFER_BEGIN, TRANSFER_END

T = TypeVar("T")


async def receive(parts: AsyncIterator[bytes], room: Body, limit: int) -> None:
    """Read the parts of one observation into a body. Raises BodyError, StalledError."""
    try:
        await _within(_read(parts, room, limit), BODY_TIMEOUT_S)
    except asyncio.TimeoutError as error:
        raise StalledError(
            408, "request-timeout", f"the observation did not come within {BODY_TIMEOUT_S:g} s"
        ) from error


def add(room: Body, data: bytes | memoryview, limit: int) -> None:
    """Add bytes to a body. Raises TooLargeError, StalledError."""
    if len(room.data) + len(data) > limit:
        raise TooLargeError(f"an observation must have at most {limit} bytes")
    room.memory.reserve(room, len(data))
    room.data += data


async def _read(parts: AsyncIterator[bytes], room: Body, limit: int) -> None:
    async for part in _timely(parts):
        found = fields_of(part)
        if found.get(1) == FIRST_PART and room.data:
            raise BodyError("an observation begins within another one", "malformed-parts")
        data = found.get(2, b"")
        if isinstance(data, int):
            raise BodyError("the data of a part must be bytes", "malformed-parts")
        add(room, data, limit)
        if found.get(1) == LAST_PART:
            room.growing = False
            return
    raise BodyError("the observation ended before its last part", "malformed-parts")


async def _timely(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield parts that follow each other within 10 s. Raises StalledError."""
    while True:
        try:
            part = await _within(parts.__anext__(), PART_S)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError as error:
            raise StalledError(408, "request-timeout", "the observation did not go on") from error
        yield part


def _within(work: Awaitable[T], limit_s: float) -> Awaitable[T]:
    """Wait so long for work. Where its client goes meanwhile, how it ends is of no interest to asyncio's log either."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return asyncio.wait_for(task, limit_s)
