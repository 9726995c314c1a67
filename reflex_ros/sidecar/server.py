# SPDX-License-Identifier: Apache-2.0
"""The thread that owns the event loop and the socket."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import ssl
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from aiohttp import web, web_app

from reflex_core.engine.engine import Engine
from reflex_core.errors import ReflexError
from reflex_core.settings.table import Settings
from reflex_ros.sidecar.access import Keyring
from reflex_ros.sidecar.admission import MEMORY, WAITING, Waiting
from reflex_ros.sidecar.app import make_app
from reflex_ros.sidecar.auth import check_address, read_keyring, warn_of_plain_keys
from reflex_ros.sidecar.bodies import MOST_BYTES, BodyMemory
from reflex_ros.sidecar.connections import ConnectionLimits, Connections, connections_that_fit
from reflex_ros.sidecar.file_watch import WatchedFiles, watching
from reflex_ros.sidecar.groot_port import GrootPort, require_groot
from reflex_ros.sidecar.key_file import Key, read_keys
from reflex_ros.sidecar.lerobot_port import OFF, LerobotPort, require_lerobot
from reflex_ros.sidecar.robot_access import Robot
from reflex_ros.sidecar.tls import HANDSHAKE_S, Certificate, context_of, read_certificate, use

BACKLOG = 128
FINISH_S = 10.0  # how long requests in flight may take once the sidecar stops

log = logging.getLogger(__name__)


class Sidecar:
    """The HTTP server of one engine. Start it before the engine loads: /health shows the progress."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        robot: Robot | None = None,
        *,
        limits: ConnectionLimits | None = None,
        body_bytes: int = MOST_BYTES,
    ) -> None:
        """Create it, not started. robot: for /stop, /resume and the page; None without a node.

        limits: of its connections; as many may be open to the port of LeRobot's clients.
        body_bytes: that the bodies of all requests may take together.
        """
        ports = 1 if settings.lerobot_port == OFF else 2
        self._limits = limits or ConnectionLimits(most=connections_that_fit(ports))
        self._body_bytes = body_bytes
        # once it is started
        self.connections: Connections | None = None
        self.memory: BodyMemory | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._engine = engine
        self._robot = robot
        self._settings = settings
        self._bound = threading.Event()
        self._failure: ReflexError | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None
        self._port, self._has_key = 0, False
        self._certificate: Certificate | None = None
        self._tls: ssl.SSLContext | None = None
        self._lerobot: LerobotPort | None = None
        self._groot: GrootPort | None = None
        self._waiting: Waiting | None = None
        self.app: web.Application | None = None  # once it is started

    @property
    def port(self) -> int:
        """The port it listens on; 0 before `start`."""
        return self._port

    @property
    def lerobot_port(self) -> int:
        """The gRPC port of LeRobot's clients; 0 where there is none."""
        return self._lerobot.port if self._lerobot is not None else 0

    @property
    def groot_port(self) -> int:
        """The ZeroMQ port of Isaac-GR00T's clients; 0 where there is none."""
        return self._groot.port if self._groot is not None else 0

    @property
    def has_key(self) -> bool:
        """True when requests must bring the key."""
        return self._has_key

    @property
    def waiting(self) -> int:
        """Requests that have been read and not answered."""
        return self._waiting.requests if self._waiting is not None else 0

    @property
    def url(self) -> str:
        """The base URL."""
        host = self._settings.host
        scheme = "https" if self._settings.tls_cert else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}"

    def start(self) -> None:
        """Bind the socket; returns when it listens.

        Raises ReflexError when the address is taken or unknown, or would be open to the network without a key.
        """
        keyring = read_keyring(self._settings)
        check_address(self._settings, has_key=keyring.required)
        self._certificate = read_certificate(self._settings)
        warn_of_plain_keys(self._settings, has_key=keyring.required)
        require_lerobot(self._settings)
        require_groot(self._settings)
        self._has_key = keyring.required
        self._thread = threading.Thread(target=self._run, args=(keyring,), name="reflex-http", daemon=True)
        self._thread.start()
        self._bound.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def drain(self) -> None:
        """Answer as before, but /health says 503 and each answer ends its connection. From any thread; `stop` comes later."""
        if self.loop is not None and self._waiting is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(setattr, self._waiting, "draining", True)

    def stop(self) -> None:
        """Take no more requests, finish those in flight within 10 s, and end. May be called twice."""
        if self._thread is None or self.loop is None or self._stopping is None or not self._thread.is_alive():
            return
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(FINISH_S + 5.0)
        if self._thread.is_alive():
            log.error("the HTTP thread did not end within %.0f s", FINISH_S + 5.0)

    def _run(self, keyring: Keyring) -> None:
        try:
            asyncio.run(self._serve(keyring))
        except Exception as error:
            log.exception("the HTTP thread failed")
            self._failure = ReflexError(
                f"the HTTP server failed: {type(error).__name__}: {error}", "http-failed"
            )
        finally:
            self._bound.set()
            _forget_applications()

    async def _serve(self, keyring: Keyring) -> None:
        try:
            async with AsyncExitStack() as watches:
                for files in self._watched(keyring):
                    await watches.enter_async_context(watching(files, self._engine.metrics))
                await self._listen(keyring)
        finally:
            # gRPC keeps every loop that it has seen, which would keep the connections, the node and its policy
            asyncio.get_running_loop().set_exception_handler(None)

    def _watched(self, keyring: Keyring) -> list[WatchedFiles]:
        """Return the files that are read again when they change."""
        found = []
        if self._settings.keys_file:
            path = Path(self._settings.keys_file)
            found.append(
                WatchedFiles("keys", (path,), lambda: read_keys(path), partial(_accept, keyring, path))
            )
        if self._certificate is not None:
            self._tls = context_of(self._certificate)
            paths = (Path(self._settings.tls_cert), Path(self._settings.tls_key))
            found.append(
                WatchedFiles("certificate", paths, lambda: read_certificate(self._settings), self._serve_with)
            )
        return found

    def _serve_with(self, certificate: Certificate) -> None:
        """Serve new connections with another certificate."""
        assert self._tls is not None
        use(self._tls, certificate)
        self._certificate = certificate
        if self._lerobot is not None:
            self._lerobot.certificate = certificate

    async def _listen(self, keyring: Keyring) -> None:
        self.loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        app = make_app(self._engine, keyring, self._robot, self._body_bytes)
        self.app, self._waiting, self.memory = app, app[WAITING], app[MEMORY]
        runner = web.AppRunner(
            app,
            handler_cancellation=True,  # a request whose client has gone leaves the queue
            shutdown_timeout=FINISH_S,
        )
        await runner.setup()
        assert runner.server is not None
        metrics = self._engine.metrics
        self.connections = table = Connections(
            runner.server, self._limits, lambda slug: metrics.errors.labels(slug).inc()
        )
        try:
            listening = await self.loop.create_server(
                table.make,
                self._settings.host,
                self._settings.port,
                reuse_address=True,
                backlog=BACKLOG,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_S if self._tls is not None else None,
            )
        except OSError as error:
            table.close()
            await runner.cleanup()
            where = f"{self._settings.host}:{self._settings.port}"
            self._failure = ReflexError(f"cannot listen on {where}: {_why(error)}", "address-in-use")
            return
        self._port = listening.sockets[0].getsockname()[1]
        try:
            if self._settings.lerobot_port != OFF:
                self._lerobot = LerobotPort(app, self._limits.most, self._certificate)
                await self._lerobot.start()
            if self._settings.groot_port != OFF:
                self._groot = GrootPort(app)
                await self._groot.start()
            self._bound.set()
            await self._stopping.wait()
        except ReflexError as error:
            self._failure = error
        listening.close()
        table.close()
        for port in (self._lerobot, self._groot):
            if port is not None:
                await port.stop()
        await runner.cleanup()


def _accept(keyring: Keyring, path: Path, keys: Sequence[Key]) -> None:
    """Accept the keys of the file; that there are none may be meant, and may be a copy that went wrong."""
    keyring.replace(keys)
    if not keys:
        log.warning("%s has no key any more: every request with a key of this file is refused", path)


def _why(error: OSError) -> str:
    """Return the cause without the address, which asyncio repeats."""
    if error.errno == errno.EADDRINUSE:
        return "another program does; `ss -ltnp` names it. If it is `reflex serve`, it may be driving this robot: end it"
    return os.strerror(error.errno) if error.errno else str(error)


def _forget_applications() -> None:
    """Let go of servers that have ended.

    aiohttp keeps the newest 1024 pairs of handler and application for the life of the process, and with ours goes an engine and a node.
    """
    kept = getattr(web_app, "_cached_build_middleware", None)
    if kept is not None:
        kept.cache_clear()
