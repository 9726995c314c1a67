# SPDX-License-Identifier: Apache-2.0
"""GET /events: server-sent events. Each is made once for all clients, and only while there are clients."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from reflex_core.text.rate_limit import RateLimitedLog

PERIOD_S = 0.2
PICTURES_EVERY = 2  # turns
MOST_CLIENTS = 8
SLOW_S = 5.0  # a client that has not taken an event by then is let go
SEND_BUFFER = 128 << 10  # bytes that may lie in the kernel: more would show a slow client the past

log = logging.getLogger(__name__)

State = Callable[[], bytes]
Pictures = Callable[[], bytes | None]


class Hub:
    """Belongs to the event loop; only `state` and `pictures` run elsewhere, in a thread of their own."""

    def __init__(
        self,
        state: State,
        pictures: Pictures,
        *,
        most: int = MOST_CLIENTS,
        period_s: float = PERIOD_S,
        slow_s: float = SLOW_S,
    ) -> None:
        """state, pictures: JSON on one line; pictures gives None when there are no new ones."""
        self._state, self._pictures = state, pictures
        self._most, self._period_s, self.slow_s = most, period_s, slow_s
        self.clients = self.made = 0
        self._turn = self._pictures_turn = 0
        self._state_event = self._pictures_event = b""
        self._failures = RateLimitedLog(log)
        self._changed = asyncio.Event()
        self._closed = False
        self._maker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "reflex-page")

    @property
    def full(self) -> bool:
        """Return True while no further client is accepted."""
        return self.clients >= self._most

    async def events(self) -> AsyncIterator[bytes]:
        """Yield one client's events from now on, skipping those it is too slow for. Ends when the server does."""
        self.clients += 1
        if self._maker is None:
            self._maker = asyncio.create_task(self._make())
        turn, pictures_turn = self._turn, 0
        try:
            while not self._closed:
                if self._turn == turn:
                    await self._changed.wait()
                    continue
                turn = self._turn
                event = self._state_event
                if self._pictures_turn > pictures_turn:
                    pictures_turn = self._pictures_turn
                    event += self._pictures_event
                yield event
        finally:
            self.clients -= 1

    async def close(self) -> None:
        """Disconnect all clients."""
        self._closed = True
        self._publish()
        if self._maker is not None:
            self._maker.cancel()
            await asyncio.gather(self._maker, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _make(self) -> None:
        loop = asyncio.get_running_loop()
        for number in itertools.count():
            if not self.clients or self._closed:
                break
            began_s = loop.time()
            try:
                self._state_event = event("state", await loop.run_in_executor(self._thread, self._state))
                if number % PICTURES_EVERY == 0:
                    await self._make_pictures(loop)
            except Exception as error:
                # the stream falls silent and the page says so; the next turn, five a second, tries again
                self._failures(logging.ERROR, type(error).__name__, "the page snapshot failed", error=error)
            else:
                self.made += 1
                self._publish()
            await asyncio.sleep(max(self._period_s - (loop.time() - began_s), self._period_s / 4))
        self._maker = None

    async def _make_pictures(self, loop: asyncio.AbstractEventLoop) -> None:
        pictures = await loop.run_in_executor(self._thread, self._pictures)
        if pictures is not None:
            self._pictures_event, self._pictures_turn = event("pictures", pictures), self._turn + 1

    def _publish(self) -> None:
        self._turn += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def event(name: str, document: bytes) -> bytes:
    """Return the bytes of one server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + document + b"\n\n"


async def stream(request: web.Request, hub: Hub, allowed: Callable[[], bool]) -> web.StreamResponse:
    """Send a client its events until it goes, is too slow, its key is revoked (allowed: not yet), or the server stops."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
    _keep_little(request)
    events = hub.events()
    try:
        async for part in events:
            if not allowed():
                break
            if not response.prepared:
                await response.prepare(request)
            await asyncio.wait_for(response.write(part), hub.slow_s)
    except asyncio.TimeoutError:
        log.warning(
            "a page at %s was disconnected: it read no event within %.0f s", request.remote, hub.slow_s
        )
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        pass  # it went away
    finally:
        await events.aclose()  # type: ignore[attr-defined]
    return response


def _keep_little(request: web.Request) -> None:
    found = request.transport.get_extra_info("socket") if request.transport is not None else None
    if found is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
