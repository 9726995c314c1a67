# SPDX-License-Identifier: Apache-2.0
"""Limit the connections of the HTTP server: their number, their idle time, and the reply to what is not HTTP.

The limits hold before any key is checked. When the table is full, connections without a request are closed for new ones,
those of the peer with most connections first: so /health is answered however many silent connections there are.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import logging
import resource
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import HttpVersion11, StreamReader, web

from reflex_core.text.rate_limit import RateLimit
from reflex_core.text.untrusted import escaped
from reflex_ros.sidecar.problems import fresh_id
from reflex_ros.sidecar.replies import problem, response

MOST_CONNECTIONS = 512
LEAST_CONNECTIONS = 8
LET_GO_AT_ONCE = 16  # choosing costs a look at all of them
SWEEP_S = 0.5
LINGER_S = 2.0  # how long a refused body is read, so that its sender sees the answer
SETTLE_S, SETTLE_ROUNDS = (
    0.05,
    6,
)  # after the client's end of the connection: by then what it sent has been looked at
PROBE_S = 0.25  # without an answer: does the client still listen?
PROBED_EVERY_S = 0.1
TRY_AGAIN_LATER = 1013  # of a websocket that is closed
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# what a connection is doing, those that may best be missed first
NEW, IDLE, OPEN, READING, BUSY = range(5)  # OPEN: a websocket that waits for its next message

log = logging.getLogger(__name__)


class StalledError(Exception):
    """A body was given up: it stalled, or its memory is needed. It has the status and slug of the reply."""

    def __init__(self, status: int, slug: str, message: str) -> None:
        super().__init__(message)
        self.status, self.slug = status, slug


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """most: connections at a time. head_s: from a request's first byte to its last header. idle_s: between requests.

    body_idle_s: longest pause within a body. peer_share: of the table, beyond which a peer's connections go first.
    """

    most: int = MOST_CONNECTIONS
    head_s: float = 10.0
    idle_s: float = 75.0
    body_idle_s: float = 10.0
    peer_share: float = 0.5


def connections_that_fit(ports: int = 1) -> int:
    """Return how many connections to each of these ports leave half of the file descriptors to the rest of the process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(LEAST_CONNECTIONS, min(MOST_CONNECTIONS, soft // (2 * ports)))


class Connections:
    """The table of connections. Belongs to the event loop. count: called with the slug of every refusal."""

    def __init__(self, server: web.Server, limits: ConnectionLimits, count: Callable[[str], None]) -> None:
        self.limits = limits
        self._server = server
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._open: dict[Connection, None] = {}
        self._peers: Counter[str] = Counter()
        self._lines: dict[str, RateLimit] = {}
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)
        self._loop.set_exception_handler(self._trouble)

    def __len__(self) -> int:
        return len(self._open)

    def make(self) -> Connection:
        """Return the protocol of a new connection; the factory for `loop.create_server`."""
        return Connection(self, self._server)

    def close(self) -> None:
        """Stop checking the connections."""
        self._sweeping.cancel()

    def admit(self, connection: Connection) -> bool:
        """Admit a connection, closing an idle one where the table is full. False where all of them are being served."""
        if len(self._open) >= self.limits.most and not self._make_room(LET_GO_AT_ONCE):
            self.refused("too-many-connections", connection.peer, "refused: all connections are being served")
            return False
        self._open[connection] = None
        self._peers[connection.peer] += 1
        return True

    def forget(self, connection: Connection) -> None:
        """Remove a closed connection."""
        if connection in self._open:
            del self._open[connection]
            self._peers[connection.peer] -= 1
            if not self._peers[connection.peer]:
                del self._peers[connection.peer]

    def refused(self, slug: str, peer: str, what: str) -> None:
        """Count a refusal and log it at a limited rate."""
        self._count(slug)
        times = self._lines.setdefault(slug, RateLimit()).times()
        if times:
            log.warning(
                "slug=%s %d connections, the last from %s: %s", slug, times, escaped(peer), escaped(what, 200)
            )

    def _make_room(self, number: int) -> bool:
        candidates = [connection for connection in self._open if connection.state != BUSY]
        idle = [connection for connection in candidates if connection.state != READING]
        share = self.limits.peer_share * self.limits.most

        def worth(connection: Connection) -> tuple[bool, int, float]:
            return (self._peers[connection.peer] <= share, connection.state, connection.since_s)

        for connection in heapq.nsmallest(min(number, max(len(idle), 1)), idle or candidates, key=worth):
            self.refused("too-many-connections", connection.peer, "closed: other clients are waiting")
            connection.let_go(
                StalledError(503, "too-many-connections", "this server has too many connections")
            )
        return bool(candidates)

    def _sweep(self) -> None:
        now_s = self._loop.time()
        for connection in list(self._open):
            connection.check(now_s)
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)

    def _trouble(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log at a limited rate that no file descriptor is left, instead of asyncio's traceback for each connection."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES:
            self.refused("out-of-descriptors", "the network", error.strerror or str(error))
            self._make_room(LET_GO_AT_ONCE)
            return
        loop.default_exception_handler(context)


class Connection(web.RequestHandler):
    """aiohttp's protocol of one connection, with limits. The application calls it when a request begins and ends."""

    __slots__ = (
        "_arrived",
        "_body",
        "_received",
        "_request",
        "_table",
        "_time",
        "half_closed",
        "last_data_s",
        "peer",
        "since_s",
        "state",
    )

    def __init__(self, table: Connections, server: web.Server) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            lingering_time=LINGER_S,
            access_log=None,  # type: ignore[arg-type]
            auto_decompress=False,  # that would be done by the event loop, and without a bound
            logger=log,
        )
        self._table, self._time = table, loop.time
        self.peer = ""
        self.state = NEW
        self.since_s = self.last_data_s = loop.time()
        self._received = False  # something came since the last request ended
        self.half_closed = False
        self._body: StreamReader | None = None
        self._request: web.BaseRequest | None = None
        self._arrived: Callable[[int], None] | None = None  # of a websocket: counts its bytes

    def begin(self, request: web.BaseRequest) -> None:
        """Begin a request: all its headers have arrived."""
        self._request = request
        self._be(BUSY)

    def reading(self, body: StreamReader | None) -> None:
        """Wait for the request's body; None when it has arrived."""
        self._body = body
        self.last_data_s = self._time()
        self._be(BUSY if body is None else READING)

    def opened(self, arrived: Callable[[int], None]) -> None:
        """Go on as a websocket. arrived: called with how many bytes came; raises StalledError where they are too many."""
        self._arrived = arrived
        self._be(OPEN)

    def waits(self, waits: bool) -> None:
        """Note whether the websocket waits for its client, so that it may be closed for others."""
        self._be(OPEN if waits else BUSY)

    def close_socket(self, code: int) -> None:
        """Close a websocket, saying why, without waiting for its client."""
        transport = self.transport
        if transport is None:
            return
        transport.write(b"\x88\x02" + code.to_bytes(2, "big"))
        self.force_close()
        if transport.get_write_buffer_size():
            transport.abort()

    def give_up_socket(self, reason: StalledError) -> None:
        """Close a websocket whose messages take too much memory, and count that."""
        if self.transport is not None:
            self._table.refused(reason.slug, self.peer, "closed: its messages take too much memory")
            self.close_socket(TRY_AGAIN_LATER)

    def end(self) -> None:
        """End a request: its answer is ready to be written."""
        self._arrived = None
        self._request = self._body = None
        self._received = False
        self._be(IDLE)

    def check(self, now_s: float) -> None:
        """Close the connection if it has been silent for too long."""
        limits = self._table.limits
        if self.state == READING and now_s - self.last_data_s > limits.body_idle_s:
            self._late("the body did not go on")
        elif self.state in (NEW, IDLE):
            begun = self._received or self.state == NEW
            if now_s - self.since_s > (limits.head_s if begun else limits.idle_s):
                self._late("no whole request came" if begun else "")

    def _late(self, what: str) -> None:
        if what:
            self._table.refused("request-timeout", self.peer, what)
        self.let_go(StalledError(408, "request-timeout", what or "no request came"))

    def let_go(self, reason: StalledError) -> None:
        """Close the connection, with a reply where a request has begun."""
        if self._body is not None:
            self._body.set_exception(reason)  # its handler answers and closes
            self._body = None
            self._be(BUSY)
            return
        transport = self.transport
        self._table.forget(self)
        if transport is None:
            return
        if self._arrived is not None:
            self.close_socket(TRY_AGAIN_LATER)
            return
        if self._received:
            transport.write(plain_answer(reason.status, reason.slug, str(reason)))
        self.force_close()
        if transport.get_write_buffer_size():  # it does not read what it is sent
            transport.abort()

    def _be(self, state: int) -> None:
        self.state, self.since_s = state, self._time()

    # what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if address else ""
        if self._table.admit(self):
            super().connection_made(transport)
            return
        self.force_close()
        assert isinstance(transport, asyncio.Transport)
        transport.write(plain_answer(503, "too-many-connections", "this server has too many connections"))
        transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._table.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if data:
            self.last_data_s = self._time()
            if self._arrived is not None and not self._counted(len(data)):
                return
            if not self._received and self.state in (NEW, IDLE):
                self._received = True
                self.since_s = self.last_data_s
        super().data_received(data)

    def _counted(self, size: int) -> bool:
        """Count bytes of a websocket; close it and return False where there is no memory for them."""
        assert self._arrived is not None
        try:
            self._arrived(size)
        except StalledError as error:
            self.give_up_socket(error)
            return False
        return True

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Handle the client's EOF. It may have gone, or wait for its answer (`nc -N` does): EOF does not distinguish them."""
        started = self._request is not None and self._request.writer.output_size > 0
        half = self.transport and not self.transport.get_extra_info("sslcontext")  # TLS ends both ways
        if started or not half or (self.state in (NEW, IDLE) and not self._received):
            return None
        self.half_closed = True
        self._loop.call_later(SETTLE_S, self._settled)
        return True

    def _settled(self, rounds: int = SETTLE_ROUNDS) -> None:
        if self.transport is None:
            return
        if self.state == READING and rounds:  # a large body may still be on its way through the parser
            self._loop.call_later(SETTLE_S, self._settled, rounds - 1)
            return
        if self.state != BUSY:  # half a request will never be whole
            self.transport.close()
            return
        self._loop.call_later(PROBE_S, self._probe)

    def _probe(self) -> None:
        """Send an interim response, which every client must accept (RFC 9110, 15.2): a client that has gone resets it."""
        request = self._request
        if self.transport is None or request is None or request.writer.output_size > 0:
            return
        if request.version >= HttpVersion11:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._loop.call_later(PROBED_EVERY_S, self._probed)

    def _probed(self) -> None:
        if self.transport is None or self._request is None:
            return
        found = self.transport.get_extra_info("socket")
        if found is not None and found.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        self._loop.call_later(PROBED_EVERY_S, self._probed)

    # what aiohttp has no JSON for

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a malformed request briefly, and close."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        why = (message or (str(exc) if exc is not None else "")).split("\n", 1)[0]
        self._table.refused("not-http", self.peer, why)
        text = "the request cannot be read as HTTP" if status < 500 else "the server failed on this request"
        answer = response(problem(status, "not-http" if status < 500 else "internal-error", text, fresh_id()))
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, replacing aiohttp's own to malformed requests, which would echo them."""
        if isinstance(resp, web.HTTPException):
            message = "the request asks for what this server does not do"
            resp = response(problem(resp.status, "http-error", message, fresh_id()))
            resp.force_close()
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log one line at a limited rate, without what the client sent."""
        error = kw.get("exc_info")
        if isinstance(error, StalledError):  # it was answered when its body was given up
            return
        self._table.refused(
            "not-http", self.peer, f"{type(error).__name__}" if error is not None else str(args[0])
        )


def plain_answer(status: int, slug: str, message: str) -> bytes:
    """Return a whole reply, for connections without a parsed request."""
    reply = problem(status, slug, message, fresh_id())
    names = {408: "Request Timeout", 503: "Service Unavailable"}
    head = [f"HTTP/1.1 {status} {names.get(status, '')}", "Content-Type: application/json"]
    head += [f"{name}: {text}" for name, text in reply.headers.items()]
    head += [f"Content-Length: {len(reply.body)}", "Connection: close", "", ""]
    return "\r\n".join(head).encode("latin-1") + reply.body
