# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 over kept connections, every part of an exchange within one deadline."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Any, Mapping
from urllib.parse import urlsplit

from reflex_client.errors import MalformedReplyError, OutOfTimeError, ReflexClientError, UnreachableError
from reflex_client.transport.retries import Deadline

MOST_BYTES = 256 << 20  # of a reply
PIECE_BYTES = 1 << 16
CONNECTIONS_KEPT = 8
_STALE = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


@dataclass(frozen=True)
class Response:
    """Status, headers with lower-case names, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Call:
    """One request under way, which another thread may abort."""

    def __init__(self) -> None:
        self.aborted = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def uses(self, connected: socket.socket | None) -> None:
        """Remember the socket that an abort closes; None when the request is over."""
        with self._lock:
            self._socket = connected

    def abort(self) -> None:
        """End it: what waits for it gets an exception at once."""
        self.aborted.set()
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it is closed already
                    self._socket.shutdown(socket.SHUT_RDWR)


class _TimedReader(io.RawIOBase):
    """Reads from a socket until the deadline of its exchange, however slowly the bytes come."""

    def __init__(self, owner: _TimedSocket) -> None:
        self._owner = owner
        self._raw: Any = owner.socket.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Any:
        self._owner.arm()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedSocket:
    """What http.client needs of a socket. deadline: of the exchange that uses it now."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self.socket = connected
        self.deadline = deadline

    def arm(self) -> None:
        remaining_s = self.deadline.remaining_s
        if remaining_s <= 0.0:
            raise socket.timeout("timed out")
        self.socket.settimeout(remaining_s)

    def sendall(self, data: Any) -> None:
        self.arm()
        self.socket.sendall(data)

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self))

    def close(self) -> None:
        self.socket.close()


class Server:
    """One server, by its URL. Thread-safe: each exchange has a connection of its own, which is kept for the next.

    No proxy is used and no redirect is followed: a robot asks the server that it was given.
    """

    def __init__(self, url: str, ssl_context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ReflexClientError(f"a server's URL is http://HOST:PORT, got {url!r:.100}", "bad-url")
        try:
            port = parts.port
        except ValueError as error:
            raise ReflexClientError(f"{url!r:.100}: {error}", "bad-url") from error
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._context = ssl_context
        self._lock = threading.Lock()
        self._kept: list[http.client.HTTPConnection] = []

    @property
    def url(self) -> str:
        """The URL without a slash at its end."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http{'s' if self._secure else ''}://{host}:{self._port}{self._prefix}"

    def exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        deadline: Deadline,
        call: Call,
    ) -> Response:
        """Send one request and return the response, whatever its status. Raises OutOfTimeError, UnreachableError, MalformedReplyError."""
        while True:
            connection = self._idle()
            kept = connection is not None
            try:
                if connection is None:
                    connection = self._connect(deadline)
                response = self._over(connection, method, path, body, headers, deadline, call)
            except _STALE as error:
                _close(connection)
                if kept and not call.aborted.is_set():
                    continue  # the server had closed it meanwhile, which says nothing
                raise UnreachableError(f"{self.url} closed the connection: {error}") from error
            except socket.timeout as error:
                _close(connection)
                raise OutOfTimeError(f"no reply from {self.url} in time") from error
            except http.client.IncompleteRead as error:
                _close(connection)
                raise UnreachableError(
                    f"{self.url} closed the connection in the midst of its reply"
                ) from error
            except OSError as error:
                _close(connection)
                raise UnreachableError(f"{self.url}: {error.strerror or error}") from error
            except http.client.HTTPException as error:
                _close(connection)
                what = str(error) or type(error).__name__
                raise MalformedReplyError(f"{self.url} does not speak HTTP: {what:.200}") from error
            except BaseException:
                _close(connection)
                raise
            finally:
                call.uses(None)
            return response

    def close(self) -> None:
        """Close the connections that are kept."""
        with self._lock:
            kept, self._kept = self._kept, []
        for connection in kept:
            connection.close()

    def _over(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        deadline: Deadline,
        call: Call,
    ) -> Response:
        timed: Any = connection.sock
        timed.deadline = deadline
        call.uses(timed.socket)
        if call.aborted.is_set():
            raise ConnectionAbortedError("aborted")
        connection.request(method, f"{self._prefix}{path}", body, dict(headers))
        response = connection.getresponse()
        data = self._body(response)
        named: dict[str, str] = {name.lower(): text for name, text in response.getheaders()}
        if response.will_close:
            connection.close()
        else:
            self._keep(connection)
        return Response(response.status, named, data)

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            piece = response.read(PIECE_BYTES)
            if not piece:
                if response.length:  # what http.client overlooks where it reads piece by piece
                    raise http.client.IncompleteRead(b"", response.length)
                return b"".join(pieces)
            size += len(piece)
            if size > MOST_BYTES:
                raise MalformedReplyError(f"{self.url} sent more than {MOST_BYTES} bytes")
            pieces.append(piece)

    def _connect(self, deadline: Deadline) -> http.client.HTTPConnection:
        """Connect to the first address of the host that accepts. Raises OSError."""
        failure: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM
        ):
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(max(deadline.remaining_s, 1e-3))
                made.connect(address)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._secure:
                    context = self._context or ssl.create_default_context()
                    made = context.wrap_socket(made, server_hostname=self._host)
                connection = http.client.HTTPConnection(self._host, self._port)
                connection.sock = _TimedSocket(made, deadline)
                return connection
            except OSError as error:
                made.close()
                failure = error
        raise failure or OSError("it has no address")

    def _idle(self) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._kept.pop() if self._kept else None

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._kept) < CONNECTIONS_KEPT:
                self._kept.append(connection)
                return
        connection.close()


def _close(connection: http.client.HTTPConnection | None) -> None:
    if connection is not None:
        connection.close()
