# SPDX-License-Identifier: Apache-2.0
"""The client of openpi's websocket and of vLLM's dialect of it: one observation out, one chunk in, one at a time on each connection.

A connection is an episode, as nothing else on this wire can say that one begins.

A server of openpi pings, and closes a connection that does not answer: one task of each always reads. What comes late or
unasked ends the connection, so that a chunk is never taken for the answer to another observation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import aiohttp

from reflex_core import __version__
from reflex_core.errors import SettingError
from reflex_core.policy.cloud_server import INVALID, REFUSED, STATUS, CloudAnswer, CloudError
from reflex_core.policy.remote_server import OPENPI, POSITIONS, VLLM, RemoteAbout
from reflex_core.values import Request
from reflex_ros.sidecar.addresses import HOP_HEADER, SOCKET, checked_url, warn_of_plain_key
from reflex_ros.sidecar.loop_thread import LoopThread
from reflex_ros.sidecar.openpi_replies import about_of, answer_of, read, read_metadata, refused
from reflex_ros.sidecar.outgoing_keys import outgoing_keys
from reflex_ros.sidecar.outgoing_pictures import OutgoingPictures
from reflex_ros.sidecar.wires.msgpack_codec import has_msgpack, pack

VLLM_PATH = "/v1/realtime/robot/openpi"
LARGEST_REPLY = 16 << 20
READY_TIMEOUT_S = 2.0
CLOSE_S = 1.0
IDLE_KEPT = 4  # connections
UNASKED = "it sent a message that nothing had asked for"
CLOSING = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)

log = logging.getLogger(__name__)


def require_codec(setting: str, url: str) -> None:
    """Raise SettingError where msgpack is not installed."""
    if not has_msgpack():
        raise SettingError(
            f"setting '{setting}': {url} speaks msgpack: install the package msgpack, as the extra `openpi` of reflex_ros does"
        )


class OpenpiServer:
    """A server of openpi's websocket. Its event loop has a thread of its own."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        name: str = "remote",
        pictures: OutgoingPictures | None = None,
        keys: tuple[str, ...] = (),
        described: bool = False,
    ) -> None:
        """Connect to nothing yet.

        keys: the setting remote_keys. described: refuse it where it does not say that its rows
        are positions, and of which joints.
        """
        parts = checked_url(url, name, "the file of its key", SOCKET)
        self._url = url
        self.dialect = VLLM if parts.path.rstrip("/").endswith(VLLM_PATH) else OPENPI
        self._headers = {"User-Agent": f"reflex_ros/{__version__}", HOP_HEADER: "1"}
        if api_key is not None:
            self._headers["Authorization"] = f"Api-Key {api_key}"
            warn_of_plain_key(parts, name)
        self._pictures, self._keys, self._name = pictures or OutgoingPictures(), outgoing_keys(keys), name
        self._described = described
        self._metadata: Mapping[Any, Any] | None = None
        self._agreed: RemoteAbout | None = None
        self._idle: list[_Connection] = []
        self._dropping: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._logged = ""
        self._loop = LoopThread(f"{name}-ws", self._end)

    def ask(self, request: Request, left_s: float) -> CloudAnswer:
        """Send the observation. Raises CloudError, CancelledError, or ObservationError for a frame that cannot be decoded."""
        until_s = time.monotonic() + left_s
        if self._metadata is None:
            self._loop.run(self._greeted(), left_s, request.cancellation)
        body, episode = pack(self._message(request)), request.episode_id or ""
        left_s = until_s - time.monotonic()
        reply = self._loop.run(self._exchange(body, episode), left_s, request.cancellation)
        if isinstance(reply, str):
            raise refused(reply)
        return answer_of(read(reply), self._metadata or {})

    def about(self, left_s: float) -> RemoteAbout:
        """Return what its metadata say: as many of our own words as are in it. Raises CloudError.

        From then on it must say the same, or its answers are refused: they do not say themselves what they are.
        """
        self._agreed = None
        self._loop.run(self._greeted(), left_s, None)
        self._agreed = about_of(self._metadata or {}, self.dialect)
        return self._agreed

    def ready(self) -> bool:
        """Return whether it takes a connection and sends its metadata."""
        try:
            self._loop.run(self._greeted(), READY_TIMEOUT_S, None)
        except CloudError:
            return False
        return True

    def close(self) -> None:
        """Drop the connections and end the thread. May be called twice; `ask` then raises CloudError."""
        self._loop.close()

    def _message(self, request: Request) -> dict[str, Any]:
        observation = request.observation
        own = (self._metadata or {}).get("server") == "reflex"
        keys = self._keys.for_cameras(observation.frames, own=own)
        if str(keys) != self._logged:
            self._logged = str(keys)
            log.info("%s: keys of observations (setting remote_keys): %s", self._name, keys)
        sent = {name for name, _ in keys.cameras}
        pictures = {
            name: self._pictures.pixels(frame) for name, frame in observation.frames.items() if name in sent
        }
        made = keys.message(pictures, observation.state, observation.instruction)
        if self.dialect == VLLM:
            made |= {"endpoint": "infer"}
            if request.episode_id:
                made["session_id"] = request.episode_id
            if request.seed is not None:
                made["seed"] = request.seed
        return made

    async def _greeted(self) -> None:
        self._keep(await self._opened())

    async def _exchange(self, body: bytes, episode: str) -> bytes | str:
        while (connection := self._taken(episode)) is not None:
            try:
                return await self._once(connection, body)
            except _GoneError:
                continue  # the other side had given it up
        connection = await self._opened()
        connection.episode = episode
        try:
            return await self._once(connection, body)
        except _GoneError as error:
            raise CloudError(REFUSED, str(error)) from error

    def _taken(self, episode: str) -> _Connection | None:
        """Return a kept connection of the episode, or one that nothing was sent on; None where there is none."""
        for connection in [one for one in self._idle if not one.usable]:
            self._idle.remove(connection)
            self._drop(connection)
        for wanted in (episode, None):
            for connection in self._idle:
                if connection.episode == wanted:
                    self._idle.remove(connection)
                    connection.episode = episode
                    return connection
        return None

    async def _once(self, connection: _Connection, body: bytes) -> bytes | str:
        """Return the answer to one message; the connection is kept only where that is all it sent."""
        try:
            reply = await connection.answer(body)
        except BaseException:
            self._drop(connection)
            raise
        self._keep(connection)
        return reply

    async def _opened(self) -> _Connection:
        """Return a new connection whose metadata have come."""
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_request_redirect.append(_refuse_redirect)
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trace_configs=[tracing],
            )
        try:
            socket = await self._session.ws_connect(
                self._url, headers=self._headers, max_msg_size=LARGEST_REPLY, compress=0, autoping=True,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
            )  # fmt: skip
        except aiohttp.WSServerHandshakeError as error:
            status = error.status if error.status != 101 else 0
            reason = STATUS if status else INVALID
            raise CloudError(
                reason, f"no websocket there: {error.message}, status {error.status}", status
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise CloudError(
                REFUSED, f"no connection: {type(error).__name__} {str(error)[:200]!r}"
            ) from error
        connection = _Connection(socket)
        try:
            greeting = await connection.next()
        except _GoneError as error:
            self._drop(connection)
            raise CloudError(REFUSED, str(error)) from error
        except BaseException:
            self._drop(connection)
            raise
        if isinstance(greeting, str):
            self._drop(connection)
            raise refused(greeting)
        try:
            self._metadata = self._checked(read_metadata(greeting))
        except BaseException:
            self._drop(connection)
            raise
        return connection

    def _checked(self, metadata: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """Return the metadata of a new connection. Raises CloudError where they are another policy's than those agreed on, or say too little."""
        found = about_of(metadata, self.dialect)
        if self._described and not (found.action_names and found.action_space == POSITIONS):
            raise CloudError(
                INVALID,
                f"its metadata do not say that its rows are positions of this robot's joints (action_names, action_space {POSITIONS})",
            )
        if self._agreed is None:
            if self._described:  # another connection may lead to another server
                self._agreed = found
            return metadata
        found = replace(found, model_version=self._agreed.model_version)
        if found != self._agreed:
            names = (field.name for field in fields(found))
            differ = [name for name in names if getattr(found, name) != getattr(self._agreed, name)]
            raise CloudError(
                INVALID, f"it serves another policy by now, with other {', '.join(differ)}: configure again"
            )
        return metadata

    def _keep(self, connection: _Connection) -> None:
        if not connection.usable:
            self._drop(connection)
            return
        self._idle.append(connection)
        if len(self._idle) > IDLE_KEPT:
            self._drop(self._idle.pop(0))

    def _drop(self, connection: _Connection) -> None:
        """End a connection without waiting for its other side."""
        task = asyncio.ensure_future(connection.close())
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def _end(self) -> None:
        for connection in self._idle:
            await connection.close()
        if self._session is not None:
            await self._session.close()


async def _refuse_redirect(
    _: aiohttp.ClientSession, __: object, found: aiohttp.TraceRequestRedirectParams
) -> None:
    """End an upgrade that leads elsewhere: observations and key are for the server that was named."""
    raise CloudError(STATUS, f"it redirects, with status {found.response.status}", found.response.status)


class _GoneError(Exception):
    """The connection ended."""


class _Connection:
    """One websocket and the task that reads it. episode: whose observations it carries, None before the first."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.episode: str | None = None
        self._socket = socket
        self._messages: asyncio.Queue[bytes | str | Exception] = asyncio.Queue()
        self._reading = asyncio.ensure_future(self._read())

    @property
    def usable(self) -> bool:
        """True while it is open and nothing came unasked."""
        return self._messages.empty() and not self._socket.closed and not self._reading.done()

    async def answer(self, body: bytes) -> bytes | str:
        """Return the next message after this one. Raises _GoneError, CloudError."""
        if not self._messages.empty():
            raise CloudError(INVALID, UNASKED)
        try:
            await self._socket.send_bytes(body)
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise _GoneError(f"the connection was closed: {type(error).__name__}") from error
        return await self.next()

    async def next(self) -> bytes | str:
        """Return the next message. Raises _GoneError, CloudError."""
        found = await self._messages.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def close(self) -> None:
        """End the connection."""
        self._reading.cancel()
        with suppress(Exception):
            await self._socket.close()

    async def _read(self) -> None:
        end: Exception = _GoneError("the connection was closed")
        try:
            while True:
                message = await self._socket.receive()
                if message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                    if (
                        not self._messages.empty()
                    ):  # no more than one is ever asked for, and memory has an end
                        end = CloudError(INVALID, UNASKED)
                        break
                    self._messages.put_nowait(message.data)
                elif message.type is aiohttp.WSMsgType.ERROR:
                    end = CloudError(INVALID, f"what it sent cannot be read: {str(message.data)[:200]}")
                    break
                elif message.type in CLOSING:
                    end = _GoneError(f"the connection was closed with code {self._socket.close_code}")
                    break
        finally:
            self._messages.put_nowait(end)
