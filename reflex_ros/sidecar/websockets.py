# SPDX-License-Identifier: Apache-2.0
"""Websocket connections: messages in their order to the same worker threads as /act, one of a connection at a time.

One task of a connection always waits for its next message, because aiohttp answers pings only while it does: an inference
of a minute must not look like a dead server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import socket as sockets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from aiohttp import WSCloseCode, WSMsgType, web

from reflex_core.engine.engine import DEGRADED, FAILED, READY, Engine
from reflex_core.errors import NotReadyError
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.text.untrusted import escaped
from reflex_ros.sidecar.about import about
from reflex_ros.sidecar.access import Access
from reflex_ros.sidecar.act import Call, answer, cameras_of, refused
from reflex_ros.sidecar.addresses import HOP_HEADER
from reflex_ros.sidecar.admission import (
    ENGINE,
    MEMORY,
    RESERVED,
    WAITING,
    WORKERS,
    access_of,
    in_turn,
    line_of,
    refusal_of,
    too_many,
)
from reflex_ros.sidecar.bodies import Body
from reflex_ros.sidecar.connections import Connection, StalledError
from reflex_ros.sidecar.key_file import ACT
from reflex_ros.sidecar.problems import Problem, fresh_id, problem_of
from reflex_ros.sidecar.replies import Reply, problem, response
from reflex_ros.sidecar.sessions import echo, session_of
from reflex_ros.sidecar.trace_context import trace_context
from reflex_ros.sidecar.wires.msgpack_codec import LACKING, MissingPackageError, require_msgpack
from reflex_ros.sidecar.wires.table import SOCKETS
from reflex_ros.sidecar.wires.wire import SocketWire

WAITING_MESSAGES = 2  # of one connection, beside the one that is served
LEAST_BYTES = 64 << 20  # a message may have so many in any case, as with vLLM-Omni
LOOKED_EVERY_S = 0.1  # while a client waits for a policy that is loading
CLOSE_S = 5.0
REVOKED = "the key of this connection is not accepted any more: connect with another"
# a peer that has gone without a word is found by the kernel, also where its program answers no pings for minutes
PROBE_AFTER_S, PROBE_EVERY_S, PROBES = 30, 10, 3


@dataclass(eq=False, slots=True)
class _Live:
    """One connection. pending: bytes that arrived and are not answered; stopping: the server ends."""

    request: web.Request
    socket: web.WebSocketResponse
    wire: SocketWire
    session: str
    limit: int
    pending: Body
    messages: asyncio.Queue[bytes | str | None] = field(
        default_factory=lambda: asyncio.Queue(WAITING_MESSAGES)
    )
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def engine(self) -> Engine:
        """The engine that answers."""
        return self.request.app[ENGINE]


log = logging.getLogger(__name__)
_failures = RateLimitedLog(log)

LIVE: web.AppKey[set[_Live]] = web.AppKey("live_sockets")


def is_upgrade(request: web.BaseRequest) -> bool:
    """Return whether a request begins a websocket at a path that has one."""
    upgrade = request.headers.get("Upgrade", "").strip().lower()
    return request.method == "GET" and upgrade == "websocket" and request.path in SOCKETS


def add_sockets(app: web.Application) -> None:
    """Add the paths that serve nothing but websockets, and their end."""
    app[LIVE] = set()
    for path in SOCKETS:
        if path != "/":  # the page's
            app.router.add_get(path, _upgrade_required)
    app.on_shutdown.append(_stop)


async def _upgrade_required(request: web.Request) -> web.Response:
    refusal = refusal_of(
        request.app,
        426,
        "upgrade-required",
        f"{request.path} is for websockets: ws://HOST:PORT{request.path}",
    )
    reply = problem(refusal.status, refusal.slug, refusal.message, refusal.request_id)
    return response(Reply(reply.status, reply.body, {**reply.headers, "Upgrade": "websocket"}))


async def _stop(app: web.Application) -> None:
    for live in app[LIVE]:
        live.stopping.set()


async def serve_socket(request: web.Request) -> web.StreamResponse:
    """Answer the messages of one connection until it ends."""
    engine = request.app[ENGINE]
    try:
        require_msgpack()
    except MissingPackageError as error:
        return _not_begun(request, 501, error.slug, LACKING)
    if engine.state == FAILED:  # a client that is let in waits for a greeting that never comes
        return _not_begun(request, 503, NotReadyError.slug, "the policy is not serving: state is 'failed'")
    limit = _largest_message(engine)
    socket = web.WebSocketResponse(max_msg_size=limit + 1, compress=False, timeout=CLOSE_S)
    named = session_of(request.headers)
    socket.headers.update(echo(named))
    session = named or f"ws-{secrets.token_hex(8)}"
    wire = SOCKETS[request.path](session, lambda: about(engine))
    await socket.prepare(request)
    with request.app[MEMORY].body(_Giving(request)) as pending:
        live = _Live(request, socket, wire, session, limit, pending)
        request.app[LIVE].add(live)
        reading = asyncio.ensure_future(_read(live))
        try:
            with _watched(request, pending):
                await _serve(live)
        finally:
            request.app[LIVE].discard(live)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
    return socket


def _not_begun(request: web.Request, status: int, slug: str, message: str) -> web.Response:
    refusal = refusal_of(request.app, status, slug, message)
    return response(problem(refusal.status, refusal.slug, refusal.message, refusal.request_id))


def _largest_message(engine: Engine) -> int:
    """Return the largest message: every camera of every observation as raw RGB, 1 MiB for the rest; as many bytes as vLLM's at least."""
    loaded = engine.loaded
    images = max(len(cameras_of(loaded)), 1) * loaded.observation_steps if loaded is not None else 1
    return max(images * engine.settings.max_pixels * 4 + (1 << 20), LEAST_BYTES)


@dataclass(frozen=True, slots=True)
class _Giving:
    """Ends a connection whose messages take the memory of others."""

    request: web.Request

    def set_exception(self, reason: BaseException) -> None:
        """Close it: the client must come again later."""
        connection = self.request.protocol
        if isinstance(connection, Connection) and isinstance(reason, StalledError):
            connection.give_up_socket(reason)


@contextlib.contextmanager
def _watched(request: web.Request, pending: Body) -> Iterator[None]:
    """Count what arrives on the connection, and let the kernel find out whether its peer is still there."""
    connection = request.protocol
    transport = request.transport
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is not None:
        found.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", PROBE_AFTER_S),
            ("TCP_KEEPINTVL", PROBE_EVERY_S),
            ("TCP_KEEPCNT", PROBES),
        ):
            if hasattr(sockets, option):
                found.setsockopt(sockets.IPPROTO_TCP, getattr(sockets, option), value)
    if isinstance(connection, Connection):
        connection.opened(lambda size: pending.memory.reserve(pending, size))
    yield


async def _read(live: _Live) -> None:
    """Put every message into the queue, None at the end. Cancelled once none is taken any more: a full queue stays full then."""
    try:
        async for message in live.socket:
            if message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
                await live.messages.put(message.data)
    except Exception as error:
        _failures(logging.ERROR, type(error).__name__, "a websocket could not be read", error=error)
    await live.messages.put(None)


async def _serve(live: _Live) -> None:
    if not await _greeted(live):
        return
    while (message := await _next(live)) is not None:
        _waits(live, waits=False)
        reply = await _answered(live, message)
        _waits(live, waits=True)
        if reply.status != 200 and isinstance(message, bytes) and not live.wire.awaits_reply(message):
            text = "a message of wire %s that awaits no reply was refused: %.300s"
            _failures(logging.WARNING, live.wire.name, text, live.wire.name, escaped(repr(reply.body), 300))
            continue
        await _send(live, reply)
    if live.stopping.is_set():
        await live.socket.close(code=WSCloseCode.GOING_AWAY, message=b"this server ends")


def _waits(live: _Live, *, waits: bool) -> None:
    """Note whether the connection may be closed for others."""
    connection = live.request.protocol
    if isinstance(connection, Connection):
        connection.waits(waits)


async def _greeted(live: _Live) -> bool:
    """Send the greeting as soon as a policy serves; return False where the connection ended before, or none ever will."""
    engine = live.engine
    while engine.state not in (READY, DEGRADED) or engine.loaded is None:
        if live.socket.closed or live.stopping.is_set() or engine.state == FAILED:
            await live.socket.close(code=WSCloseCode.INTERNAL_ERROR, message=b"no policy is serving")
            return False
        await asyncio.sleep(LOOKED_EVERY_S)
    greeting = await live.request.app[WORKERS].run(live.wire.greeting)
    if greeting:
        await _send(live, Reply(200, greeting, {}, live.wire.content_type))
    return True


async def _next(live: _Live) -> bytes | str | None:
    """Return the next message; None at the end of the connection, or of the server."""
    if live.stopping.is_set():
        return None
    getting = asyncio.ensure_future(live.messages.get())
    stopping = asyncio.ensure_future(live.stopping.wait())
    try:
        await asyncio.wait((getting, stopping), return_when=asyncio.FIRST_COMPLETED)
        return getting.result() if getting.done() else None
    finally:
        getting.cancel()
        stopping.cancel()


async def _answered(live: _Live, message: bytes | str) -> Reply:
    """Return the reply to one message, with the same limits as on /act."""
    received_ns = time.monotonic_ns()
    app = live.request.app
    if isinstance(message, str):
        _take(live, len(message.encode("utf-8", "surrogatepass")))
        sentence = "a message must be binary: msgpack"
        return refused(live.wire, refusal_of(app, 400, "bad-message", sentence))
    access = access_of(live.request)
    if not access.may((ACT,)):  # since it connected the key was revoked, or has expired
        _take(live, len(message))
        return refused(live.wire, refusal_of(app, 401, "unauthorized", REVOKED))
    if live.engine.loaded is None:
        _take(live, len(message))
        return refused(live.wire, problem_of(NotReadyError(live.engine.state), fresh_id()))
    if (busy := too_many(app)) is not None:
        _take(live, len(message))
        return refused(live.wire, busy)
    try:
        with app[WAITING].whole(), app[MEMORY].body(None) as room:
            _take(live, len(message))
            room.memory.reserve(room, len(message))
            line = line_of(live.request, access)
            made = await in_turn(app, room, line, math.inf, _answer, live, room, message, received_ns, access)
            return refused(live.wire, made) if isinstance(made, Problem) else made
    except StalledError as error:
        return refused(live.wire, Problem(error.status, error.slug, str(error), fresh_id()))


def _take(live: _Live, size: int) -> None:
    """Count a message as taken; where none waits behind it, with all that came around it: frame headers, pings."""
    memory = live.pending.memory
    memory.free(live.pending, live.pending.size if live.messages.empty() else min(size, live.pending.size))


def _answer(live: _Live, room: Body, message: bytes, received_ns: int, access: Access) -> Reply:
    """Return the reply to a message; in a worker thread."""
    room.data = bytearray(message)
    request = live.request
    call = Call(
        received_ns,
        request.remote,
        live.session,
        reserved=request.app[RESERVED],
        most_bytes=live.limit,
        forwarded=HOP_HEADER in request.headers,
        parent=trace_context(request.headers),
        options=dict(request.query),
        robot_id=access.robot_id,
    )
    return answer(live.engine, live.wire, room, call)


async def _send(live: _Live, reply: Reply) -> None:
    """Send a reply; nothing where its client waits for none, or has gone."""
    is_text = reply.content_type.startswith("text/") if reply.status == 200 else live.wire.errors_are_text
    with contextlib.suppress(ConnectionError, RuntimeError):
        if is_text:
            await live.socket.send_str(reply.body.decode())
        elif reply.body:
            await live.socket.send_bytes(reply.body)
