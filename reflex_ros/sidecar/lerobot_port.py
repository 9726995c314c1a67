# SPDX-License-Identifier: Apache-2.0
"""The gRPC port of LeRobot's clients, opt-in: `transport.AsyncInference` without protobuf, many clients at a time.

The event loop moves bytes; what is done with them is done by the worker threads of /act, within the same limits. LeRobot's own
clients bring no key, so that it listens on this machine alone unless two settings say otherwise; where there is a file of keys, a
call brings one in its metadata.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from reflex_core.engine.engine import DEGRADED, INACTIVE, INITIALIZING, LOADING, READY, WARMING
from reflex_core.engine.serving_state import ServingState
from reflex_core.errors import ConfigurationError, NotReadyError, ReflexError, SettingError
from reflex_core.robot.client_units import client_units
from reflex_core.settings.table import Settings
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.text.untrusted import escaped
from reflex_ros.sidecar.act import REFUSED, Call, answer, largest_body, refused
from reflex_ros.sidecar.admission import (
    ENGINE,
    MEMORY,
    RESERVED,
    WAITING,
    in_turn,
    queue_full,
    refusal_of,
    too_many,
)
from reflex_ros.sidecar.auth import is_loopback
from reflex_ros.sidecar.bodies import Body
from reflex_ros.sidecar.connections import StalledError
from reflex_ros.sidecar.fair_queue import Line
from reflex_ros.sidecar.lerobot_keys import newest_credentials, robot_of_call
from reflex_ros.sidecar.lerobot_parts import add, receive
from reflex_ros.sidecar.problems import BodyError, Problem, fresh_id, problem_of
from reflex_ros.sidecar.replies import Reply
from reflex_ros.sidecar.tls import Certificate
from reflex_ros.sidecar.wires.lerobot import NAME, LerobotWire, ObservationCall, RowsCall, SetupCall
from reflex_ros.sidecar.wires.lerobot_session import Session, Waiting
from reflex_ros.sidecar.wires.protobuf import bytes_field, fields_of
from reflex_ros.sidecar.wires.wire import DirectReply

if TYPE_CHECKING:
    import grpc.aio

SERVICE = "transport.AsyncInference"
OFF = -1
ON_THE_WAY = (INITIALIZING, LOADING, INACTIVE, WARMING)
INACTIVE_S = 2.0  # between loading and warming up it is for a moment; a node may stay so
SKIPPED = "skipped"  # the outcome in the metrics
PART_BYTES = 4 << 20  # the client sends 2 MiB at a time
SETUP_BYTES = 1 << 20
WAIT_S = 2.0  # of GetActions for an observation, as LeRobot's server waits
STALE_S = 2.0  # an observation that waited longer says nothing of the robot any more
LOOKED_EVERY_S = 0.1
MOST_CLIENTS = 64
IDLE_S = 30.0  # a client asks for rows all the time: one that does not has gone
MOST_CALLS = 256
MOST_CALLS_A_CLIENT = 16
MOST_SENTENCE = 1000
GRACE_S = 2.0
LIMITS_CONNECTIONS = (1, 63)  # the first version of grpcio that does
OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second server would get every other client
    ("grpc.max_receive_message_length", PART_BYTES),
    ("grpc.max_concurrent_streams", MOST_CALLS_A_CLIENT),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
)
# gRPC's name by the status of HTTP; its clients try again by themselves after UNAVAILABLE
# and DEADLINE_EXCEEDED, which would stall a robot's loop
CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    408: "ABORTED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    503: "FAILED_PRECONDITION",
}

PROBLEMS = LerobotWire(lambda _data, _readable: DirectReply())

Context = Any  # grpc.aio.ServicerContext of bytes

log = logging.getLogger(__name__)
_failures = RateLimitedLog(log)


def require_lerobot(settings: Settings) -> None:
    """Raise SettingError or ConfigurationError where the port is asked for and cannot be opened."""
    if settings.lerobot_port == OFF:
        return
    if importlib.util.find_spec("grpc") is None:
        raise SettingError(
            "setting 'lerobot_port': needs the package grpcio: pip install 'reflex_ros[lerobot]'"
        )
    if settings.keys_file and not settings.lerobot_insecure:
        return  # each call brings a key
    if is_loopback(settings.lerobot_host) or (settings.insecure and settings.lerobot_insecure):
        return
    raise ConfigurationError(
        f"--lerobot-host {settings.lerobot_host} can be reached from other machines, and LeRobot's clients bring no key: say both"
        " --insecure and --lerobot-insecure, or leave it at 127.0.0.1 and forward the port (ssh -L)",
        "insecure-address",
    )


class LerobotPort:
    """The open port. Belongs to the event loop. most_connections: at a time; others are closed at once, their clients try again."""

    def __init__(
        self, app: web.Application, most_connections: int, certificate: Certificate | None = None
    ) -> None:
        """certificate: to serve with where calls bring keys; one that replaces it is for new connections."""
        self.certificate = certificate
        self._app, self._most_connections = app, most_connections
        self._engine = app[ENGINE]
        self._sessions: dict[str, Session] = {}
        self._stopping = asyncio.Event()
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises ReflexError where the address cannot be had."""
        import grpc.aio  # only here: it is an extra

        settings = self._engine.settings
        most = ("grpc.max_allowed_incoming_connections", self._most_connections)
        server = grpc.aio.server(options=(*OPTIONS, most), maximum_concurrent_rpcs=MOST_CALLS)
        calls = {
            "Ready": grpc.unary_unary_rpc_method_handler(self._ready),
            "SendPolicyInstructions": grpc.unary_unary_rpc_method_handler(self._set_up),
            "SendObservations": grpc.stream_unary_rpc_method_handler(self._observe),
            "GetActions": grpc.unary_unary_rpc_method_handler(self._rows),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, calls),))
        host = f"[{settings.lerobot_host}]" if ":" in settings.lerobot_host else settings.lerobot_host
        where = f"{host}:{settings.lerobot_port}"
        try:
            encrypted = self.certificate is not None and settings.keys_file and not settings.lerobot_insecure
            credentials = newest_credentials(lambda: self.certificate) if encrypted else None
            add = (
                server.add_insecure_port
                if credentials is None
                else partial(server.add_secure_port, server_credentials=credentials)
            )
            self.port = add(where)
        except RuntimeError as error:
            self.port = 0
            raise ReflexError(
                f"cannot listen on {where} for LeRobot's clients: another program does, or this machine has no such address",
                "address-in-use",
            ) from error
        await server.start()
        self._server = server
        log.info("LeRobot's clients are answered at %s:%d, without a key", host, self.port)
        if tuple(map(int, grpc.__version__.split(".")[:2])) < LIMITS_CONNECTIONS:
            text = "grpcio %s does not limit the connections to that port, as 1.63 and newer do"
            log.warning(text, grpc.__version__)

    async def stop(self) -> None:
        """End the calls that wait, and finish those under way within 2 s."""
        self._stopping.set()
        for session in self._sessions.values():
            session.news.set()
        if self._server is not None:
            await self._server.stop(GRACE_S)
        for session in self._sessions.values():
            session.drop()

    async def _ready(self, _message: bytes, context: Context) -> bytes:
        """Begin an episode of this client; of no other."""
        (await self._session(context)).begin_episode()
        return b""

    async def _set_up(self, message: bytes, context: Context) -> bytes:
        """Check what the client is; while the policy is loading, it waits as it does for LeRobot's own server."""
        session = await self._session(context)
        engine = self._engine
        begun_s = time.monotonic()
        while engine.state in ON_THE_WAY and not self._stopping.is_set():
            if engine.state == INACTIVE and time.monotonic() - begun_s > INACTIVE_S:
                break
            await asyncio.sleep(LOOKED_EVERY_S)
        loaded = engine.loaded
        if loaded is None or engine.state not in (READY, DEGRADED):
            return await self._refuse(context, problem_of(NotReadyError(engine.state), fresh_id()))
        call = SetupCall(
            loaded.policy.binding,
            client_units(engine.settings.lerobot_units),
            loaded.policy.export.model_version,
        )
        with self._app[MEMORY].body(None) as room:
            try:
                await self._fill(room, message, SETUP_BYTES)
                reply = await self._worked(LerobotWire(call.decode), room, context, SETUP_BYTES)
            except (BodyError, StalledError) as error:
                return await self._refuse(context, self._counted(error))
        if reply.status != 200:
            return await self._abort(context, reply.status, reply.body.decode())
        session.begin_episode()
        session.setup = call.setup
        return b""

    async def _observe(self, parts: AsyncIterator[bytes], context: Context) -> bytes:
        """Take the newest observation of this client; it is answered by GetActions."""
        session = await self._session(context)
        with _busy(session):
            return await self._take(session, parts, context)

    async def _take(self, session: Session, parts: AsyncIterator[bytes], context: Context) -> bytes:
        loaded = self._engine.loaded
        if loaded is None:
            return await self._refuse(context, problem_of(NotReadyError(self._engine.state), fresh_id()))
        call = ObservationCall(
            loaded.policy.binding, client_units(self._engine.settings.lerobot_units), session.setup
        )
        limit = largest_body(loaded, self._engine.settings.max_pixels)
        with ExitStack() as held:
            room = held.enter_context(self._app[MEMORY].body(None))
            try:
                await receive(parts, room, limit)
                received_ns = time.monotonic_ns()
                if (busy := too_many(self._app)) is not None:
                    return await self._refuse(context, busy)
                reply = await self._worked(LerobotWire(call.decode), room, context, limit)
                if reply.status != 200 or call.timed is None:
                    return await self._abort(context, reply.status, reply.body.decode())
                room.memory.reserve(room, call.timed.decoded.observation.image_bytes)
            except (BodyError, StalledError) as error:
                return await self._refuse(context, self._counted(error))
            session.judge_rate(call.timed, self._rate(loaded))
            waiting = Waiting(call.timed, held.pop_all().close, received_ns)
        if not session.offer(waiting, time.monotonic()):
            self._engine.metrics.wire_requests.labels(NAME, SKIPPED).inc()
        return b""

    async def _rows(self, _message: bytes, context: Context) -> bytes:
        """Answer the observation that waits with rows; empty where none comes within 2 s, and the client asks again."""
        await self._robot_id(context)
        session = self._sessions.get(context.peer())
        if session is None or self._stopping.is_set():
            await self._stops_within(WAIT_S)
            return b""
        with _busy(session):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(session.news.wait(), WAIT_S)
            return await self._answer(session, context)

    async def _answer(self, session: Session, context: Context) -> bytes:
        engine, loaded = self._engine, self._engine.loaded
        dt_s = loaded.policy.binding.dt_s if loaded is not None else 0.0
        if too_many(self._app) or queue_full(self._app):  # the observation waits on
            await self._stops_within(LOOKED_EVERY_S)
            return b""
        taken = None if self._stopping.is_set() else session.take(engine.settings.lerobot_fps, dt_s)
        if taken is None:
            return b""
        waiting, labels = taken
        call = RowsCall(waiting.timed, labels)
        if time.monotonic_ns() - waiting.received_ns > STALE_S * 1e9:  # no one asked for so long: it is over
            waiting.release()
            return b""
        try:
            with self._app[MEMORY].body(None) as room:
                reply = await self._worked(
                    LerobotWire(call.decode, call.encode), room, context, 0, waiting.received_ns
                )
        finally:
            waiting.release()
        if reply.status == 503:  # nothing serves now: the client asks again, and its robot stays where it is
            return b""
        if reply.status != 200:
            return await self._abort(context, reply.status, reply.body.decode())
        if not session.delivered(waiting.timed, labels, call, time.monotonic()):
            return b""
        return bytes_field(1, reply.body)

    async def _worked(
        self, wire: LerobotWire, room: Body, context: Context, limit: int, received_ns: int | None = None
    ) -> Reply:
        """Return the reply to one message, made by a worker thread. received_ns: of its observation; None: now."""
        peer = context.peer()
        call = Call(
            time.monotonic_ns() if received_ns is None else received_ns,
            _address(peer),
            self._sessions[peer].name if peer in self._sessions else None,
            reserved=self._app[RESERVED],
            most_bytes=limit,
            robot_id=self._sessions[peer].robot_id if peer in self._sessions else "",
        )
        with self._app[WAITING].whole():
            sender = "" if call.robot_id else f"peer:{_address(peer)}"
            line = Line(f"robot:{call.robot_id or peer}", known=True, sender=sender)
            made = await in_turn(self._app, room, line, math.inf, answer, self._engine, wire, room, call)
            return refused(wire, made) if isinstance(made, Problem) else made

    async def _fill(self, room: Body, message: bytes, limit: int) -> None:
        data = fields_of(message).get(1, b"")
        if isinstance(data, int):
            raise BodyError("the data of a setup must be bytes", "malformed-parts")
        add(room, data, limit)

    async def _session(self, context: Context) -> Session:
        """Return the session of a client: of its connection, as it brings no name."""
        robot_id = await self._robot_id(context)
        peer, now_s = context.peer(), time.monotonic()
        session = self._sessions.get(peer)
        if session is None:
            if not self._has_room(now_s):
                sentence = f"{MOST_CLIENTS} LeRobot clients are being served; try again"
                await self._refuse(context, refusal_of(self._app, 429, "too-many-clients", sentence))
            session = self._sessions[peer] = Session()
        session.seen_s, session.robot_id = now_s, robot_id
        return session

    async def _robot_id(self, context: Context) -> str:
        """Return the robot that the key in the call's metadata is for, "" for none; end a call that needs a key and brings none."""
        robot_id, problem = robot_of_call(self._app, context.invocation_metadata())
        if problem is not None:
            await self._refuse(context, problem)
        return robot_id

    def _has_room(self, now_s: float) -> bool:
        """Forget clients that have gone; return whether there is room for one more."""
        gone = [peer for peer, one in self._sessions.items() if not one.busy and now_s - one.seen_s > IDLE_S]
        for peer in gone:
            self._sessions.pop(peer).drop()
        return len(self._sessions) < MOST_CLIENTS

    def _rate(self, loaded: ServingState) -> float:
        dt_s = loaded.policy.binding.dt_s
        return self._engine.settings.lerobot_fps or (1.0 / dt_s if dt_s > 0 else 0.0)

    async def _stops_within(self, limit_s: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), limit_s)

    def _counted(self, error: BodyError | StalledError) -> Problem:
        """Return the problem of what was refused before it reached a worker."""
        self._engine.metrics.wire_requests.labels(NAME, REFUSED).inc()
        return refusal_of(self._app, error.status, error.slug, str(error))

    async def _refuse(self, context: Context, problem: Problem) -> bytes:
        reply = refused(PROBLEMS, problem)
        return await self._abort(context, reply.status, reply.body.decode())

    async def _abort(self, context: Context, status: int, sentence: str) -> bytes:
        """End a call with a status and one sentence, which the client logs."""
        import grpc

        code = getattr(grpc.StatusCode, CODES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL"))
        text = "a LeRobot client was refused (%s): %s"
        _failures(logging.WARNING, sentence.partition(":")[0], text, escaped(context.peer(), 80), sentence)
        await context.abort(code, sentence[:MOST_SENTENCE])
        return b""


@contextlib.contextmanager
def _busy(session: Session) -> Iterator[None]:
    """Keep a client's session while one of its calls runs."""
    session.busy += 1
    try:
        yield
    finally:
        session.busy -= 1
        session.seen_s = time.monotonic()


def _address(peer: str) -> str:
    """Return the address of `ipv4:10.0.0.7:43210`."""
    return peer.partition(":")[2].rpartition(":")[0] or peer
