# SPDX-License-Identifier: Apache-2.0
"""The ZeroMQ port of Isaac-GR00T's clients, opt-in: a ROUTER socket, so that each client has a name and all are served at a time.

A thread of its own moves messages between that socket and the event loop, whose workers answer them within the limits of
/act. Each is answered, if only with an error: NVIDIA's client waits without end.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import math
import secrets
import socket as sockets
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from aiohttp import web

from reflex_core.engine.engine import Engine
from reflex_core.errors import NotReadyError, ReflexError, SettingError
from reflex_core.settings.table import Settings
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.sidecar.act import REFUSED, Call, answer, largest_body, refused
from reflex_ros.sidecar.admission import (
    ENGINE,
    KEYRING,
    MEMORY,
    RESERVED,
    WAITING,
    in_turn,
    refusal_of,
    too_many,
)
from reflex_ros.sidecar.bodies import Body
from reflex_ros.sidecar.connections import StalledError
from reflex_ros.sidecar.fair_queue import Line
from reflex_ros.sidecar.groot_connections import MOST_MESSAGE_BYTES, OpenConnections
from reflex_ros.sidecar.problems import Problem
from reflex_ros.sidecar.replies import Reply
from reflex_ros.sidecar.wires.groot import GrootWire, ServerSide

if TYPE_CHECKING:
    import zmq

OFF = -1
PACKAGES = {"zmq": "pyzmq", "msgpack": "msgpack"}
MOST_QUEUED, MOST_REPLIES = 2, 64  # messages of one client, and replies to it, that ZeroMQ holds
MOST_ENVELOPE_FRAMES, MOST_ENVELOPE_BYTES = 4, 1024
MOST_CLIENTS = 256  # whose episodes are remembered
MOST_TAKEN = 64  # messages between two looks at the replies
HANDSHAKE_S = 5.0
# a client that is gone, or stops within a message, is found by what does not come back
HEARTBEAT_EVERY_S, HEARTBEAT_S = 10.0, 30.0
GRACE_S = 2.0
LINGER_S = 1.0

SENDER = "gr00t"  # a client names itself, ZeroMQ does not say where it is, and its key is in a message that is not read yet

log = logging.getLogger(__name__)
_failures = RateLimitedLog(log)


def require_groot(settings: Settings) -> None:
    """Raise SettingError where the port is asked for and a package is missing."""
    if settings.groot_port == OFF:
        return
    for module, package in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise SettingError(
                f"setting 'groot_port': needs the package {package}: pip install 'reflex_ros[gr00t]'"
            )


@dataclass(frozen=True, slots=True)
class Message:
    """One message. client: ZeroMQ's name for the connection; envelope: frames that go back before the reply.

    whole: it is one frame after those.
    """

    client: bytes
    envelope: tuple[bytes, ...]
    body: bytes
    received_ns: int
    whole: bool


class GrootPort:
    """The open port. `start` and `stop` are for the event loop, which also answers; the thread owns the socket."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._engine: Engine = app[ENGINE]
        self._wires: OrderedDict[bytes, GrootWire] = OrderedDict()
        self._busy: set[bytes] = set()
        self._tasks: dict[asyncio.Task[None], Message] = {}
        self._replies: SimpleQueue[tuple[Message, bytes]] = SimpleQueue()
        self._stopping = False
        self._ended = threading.Event()
        self._wake, self._woken = sockets.socketpair()
        self._thread: threading.Thread | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises ReflexError where the address cannot be had."""
        import zmq  # only here: it is an extra

        self._loop = asyncio.get_running_loop()
        settings = self._engine.settings
        for end in (self._wake, self._woken):
            end.setblocking(False)
        context = zmq.Context()
        router = context.socket(zmq.ROUTER)
        for option, value in _options(zmq).items():
            router.setsockopt(option, value)
        where = _where(settings.host, settings.groot_port)
        router.setsockopt(zmq.IPV6, int("[" in where))
        try:
            router.bind(where)
        except zmq.ZMQError as error:
            context.destroy(linger=0)
            self._close_wake()
            raise ReflexError(
                f"cannot listen on {where} for clients of Isaac-GR00T: {error.strerror or error}",
                "address-in-use",
            ) from error
        self.port = int(router.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        self._thread = threading.Thread(
            target=self._run, args=(zmq, context, router), name="reflex-groot", daemon=True
        )
        self._thread.start()
        log.info("clients of Isaac-GR00T are answered at %s:%d", where.rpartition(":")[0], self.port)

    async def stop(self) -> None:
        """Finish the requests under way within 2 s, and answer all others with an error."""
        self._stopping = True
        if self._thread is None:
            return
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_S)
        for task, message in list(self._tasks.items()):
            task.cancel()
            self._reply(message, self._ending().body)
        self._ended.set()
        self._notify()
        await self._loop.run_in_executor(None, self._thread.join, GRACE_S + LINGER_S)
        if self._thread.is_alive():
            log.error("the thread of the port for Isaac-GR00T did not end")
            return
        self._close_wake()

    # the thread that owns the socket

    def _run(self, zmq: Any, context: zmq.Context[Any], router: zmq.Socket[bytes]) -> None:
        poller, connections = zmq.Poller(), OpenConnections(zmq, router, self.port)
        for waited in (router, self._woken.fileno(), connections.monitor):
            poller.register(waited, zmq.POLLIN)
        try:
            while not self._ended.is_set():
                poller.poll(connections.wait_ms)
                self._drain()
                for slug in connections.look():
                    self._engine.metrics.errors.labels(slug).inc()
                    _failures(
                        logging.WARNING, slug, "a connection to the port for Isaac-GR00T was ended: %s", slug
                    )
                self._send(zmq, router)
                self._take(zmq, router, connections)
            self._send(zmq, router)
            for message in _received(zmq, router, connections):  # what came too late is answered, too
                _send(zmq, router, message, self._ending().body)
        except Exception:
            log.exception("the port for Isaac-GR00T failed")
        finally:
            connections.close()
            router.close(linger=int(LINGER_S * 1e3))
            context.term()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass

    def _send(self, zmq: Any, router: zmq.Socket[bytes]) -> None:
        """Send the replies that are ready."""
        with contextlib.suppress(Empty):
            while True:
                message, body = self._replies.get_nowait()
                self._busy.discard(message.client)
                _send(zmq, router, message, body)

    def _take(self, zmq: Any, router: zmq.Socket[bytes], connections: OpenConnections) -> None:
        """Hand messages to the event loop, one of each client at a time."""
        for message in _received(zmq, router, connections):
            if message.client in self._busy:
                sentence = "the message before this one is not answered yet; send one at a time"
                _send(zmq, router, message, self._refused(429, "too_many_requests", sentence).body)
            elif not message.whole:
                sentence = "a message must be one frame, as REQ sockets send it"
                _send(zmq, router, message, self._refused(400, "bad-message", sentence).body)
            else:
                self._busy.add(message.client)
                self._loop.call_soon_threadsafe(self._begin, message)

    # the event loop

    def _begin(self, message: Message) -> None:
        task = self._loop.create_task(self._serve(message))
        self._tasks[task] = message
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _serve(self, message: Message) -> None:
        try:
            reply = await self._answered(message)
        except Exception as error:
            _failures(logging.ERROR, type(error).__name__, "a message to the port failed", error=error)
            reply = self._refused(
                500, "internal-error", "the server failed on this request; its log says why"
            )
        self._reply(message, reply.body)

    async def _answered(self, message: Message) -> Reply:
        """Return the reply to one message, with the same limits as on /act."""
        app = self._app
        if self._stopping:
            return self._ending()
        wire = self._wire(message.client)
        if (busy := too_many(app)) is not None:
            return self._counted(wire, busy)
        limit = self._limit()
        if len(message.body) > limit:
            sentence = f"a message must have at most {limit} bytes, got {len(message.body)}"
            return self._counted(wire, refusal_of(app, 413, "body-too-large", sentence))
        try:
            with app[WAITING].whole(), app[MEMORY].body(None) as room:
                room.memory.reserve(room, len(message.body))
                line = Line(f"gr00t:{wire.session}", known=True, sender=SENDER)
                made = await in_turn(app, room, line, math.inf, self._work, wire, room, message, limit)
                return self._counted(wire, made) if isinstance(made, Problem) else made
        except StalledError as error:
            return self._counted(wire, refusal_of(app, error.status, error.slug, str(error)))

    def _work(self, wire: GrootWire, room: Body, message: Message, limit: int) -> Reply:
        """Return the reply to a message; in a worker thread."""
        room.data = bytearray(message.body)
        call = Call(message.received_ns, session=wire.session, reserved=self._app[RESERVED], most_bytes=limit)
        return answer(self._engine, wire, room, call)

    def _wire(self, client: bytes) -> GrootWire:
        """Return the wire of a client, which remembers its episode; those that were silent for longest are forgotten."""
        wire = self._wires.pop(client, None)
        if wire is None:
            engine = self._engine
            keyring = self._app[KEYRING]
            access = keyring.access if keyring.required else None
            served = ServerSide(access, lambda: engine.state, lambda: engine.loaded)
            wire = GrootWire(f"groot-{secrets.token_hex(8)}", served)
            if len(self._wires) >= MOST_CLIENTS:
                self._wires.popitem(last=False)
        self._wires[client] = wire
        return wire

    def _limit(self) -> int:
        """Return the largest message: as on /act, but no more than ZeroMQ lets through."""
        loaded = self._engine.loaded
        if loaded is None:
            return MOST_MESSAGE_BYTES
        return min(largest_body(loaded, self._engine.settings.max_pixels), MOST_MESSAGE_BYTES)

    def _reply(self, message: Message, body: bytes) -> None:
        self._replies.put((message, body))
        self._notify()

    def _notify(self) -> None:
        with contextlib.suppress(BlockingIOError):  # then it is awake already
            self._wake.send(b"\0")

    def _close_wake(self) -> None:
        self._wake.close()
        self._woken.close()

    # of both

    def _ending(self) -> Reply:
        return self._refused(503, NotReadyError.slug, "this server ends")

    def _refused(self, status: int, slug: str, sentence: str) -> Reply:
        return self._counted(self._plain(), refusal_of(self._app, status, slug, sentence))

    def _plain(self) -> GrootWire:
        return GrootWire("", ServerSide(None, lambda: self._engine.state, lambda: self._engine.loaded))

    def _counted(self, wire: GrootWire, problem: Problem) -> Reply:
        self._engine.metrics.wire_requests.labels(wire.name, REFUSED).inc()
        return refused(wire, problem)


def _options(zmq: Any) -> dict[int, int]:
    """Return the options of the socket; they hold for connections made afterwards."""
    return {
        zmq.MAXMSGSIZE: MOST_MESSAGE_BYTES,
        zmq.RCVHWM: MOST_QUEUED,
        zmq.SNDHWM: MOST_REPLIES,
        zmq.HANDSHAKE_IVL: int(HANDSHAKE_S * 1e3),
        zmq.HEARTBEAT_IVL: int(HEARTBEAT_EVERY_S * 1e3),
        zmq.HEARTBEAT_TIMEOUT: int(HEARTBEAT_S * 1e3),
        zmq.LINGER: int(LINGER_S * 1e3),
    }


def _received(zmq: Any, router: zmq.Socket[bytes], connections: OpenConnections) -> list[Message]:
    """Return the messages that are there, some of them at a time."""
    found: list[Message] = []
    while len(found) < MOST_TAKEN:
        try:
            frames = router.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            break
        connections.delivered(frames[-1].get(zmq.SRCFD))
        found.append(_message([bytes(frame.buffer) for frame in frames], time.monotonic_ns()))
    return found


def _message(frames: Sequence[bytes], received_ns: int) -> Message:
    """Return a message: the client's name, what REQ sockets put before theirs, and one frame."""
    client, *rest = frames
    ends = rest.index(b"") + 1 if b"" in rest[:MOST_ENVELOPE_FRAMES] else 0
    envelope, body = tuple(rest[:ends]), rest[ends:]
    whole = len(body) == 1 and sum(map(len, envelope)) <= MOST_ENVELOPE_BYTES
    return Message(client, envelope, body[0] if whole else b"", received_ns, whole)


def _send(zmq: Any, router: zmq.Socket[bytes], message: Message, body: bytes) -> None:
    """Send a reply; a client that has gone, or reads nothing, does not get it."""
    with contextlib.suppress(zmq.ZMQError):
        router.send_multipart([message.client, *message.envelope, body], zmq.NOBLOCK)


def _where(host: str, port: int) -> str:
    """Return the address as ZeroMQ takes it: a number, as it looks up no names where it listens."""
    kind, _, _, _, address = sockets.getaddrinfo(
        host or None, max(port, 0), type=sockets.SOCK_STREAM, flags=sockets.AI_PASSIVE
    )[0]
    plain = f"[{address[0]}]" if kind == sockets.AF_INET6 else address[0]
    return f"tcp://{plain}:{port or '*'}"
