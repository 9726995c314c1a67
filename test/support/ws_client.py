# SPDX-License-Identifier: Apache-2.0
"""A websocket client of the standard library whose frames a test may write itself."""

from __future__ import annotations

import base64
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from http_client import PATIENCE_S
from wires import packed, unpacked

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class UpgradeError(Exception):
    """The upgrade was not answered by 101. status, body: of the answer."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status} {body!r}")
        self.status, self.body = status, body


class ClosedError(Exception):
    """The server ended the connection. code: of its close frame, 0 without one."""

    def __init__(self, code: int) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class Socket:
    """One connection, after its upgrade."""

    def __init__(self, connection: socket.socket, rest: bytes = b"") -> None:
        self._connection, self._rest = connection, rest
        self.pongs: list[bytes] = []

    def send(self, data: bytes, opcode: int = BINARY, *, fin: bool = True) -> None:
        self.raw(frame(data, opcode, fin=fin))

    def raw(self, data: bytes) -> None:
        self._connection.sendall(data)

    def receive(self) -> bytes | str:
        """The next message; pings are answered, pongs noted. Raises ClosedError."""
        while True:
            head = self._take(2)
            opcode, length = head[0] & 15, head[1] & 127
            if length == 126:
                length = struct.unpack(">H", self._take(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self._take(8))[0]
            data = self._take(length)
            if opcode == PING:
                self.send(data, PONG)
            elif opcode == PONG:
                self.pongs.append(data)
            elif opcode == CLOSE:
                raise ClosedError(struct.unpack(">H", data[:2])[0] if data else 0)
            else:
                return data.decode() if opcode == TEXT else data

    def infer(self, observation: Mapping[Any, Any]) -> Any:
        """The answer to an observation of openpi's: a value, or the text of a refusal."""
        self.send(packed(observation))
        answer = self.receive()
        return answer if isinstance(answer, str) else unpacked(answer)

    def close(self) -> None:
        self._connection.close()

    def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            try:
                part = self._connection.recv(1 << 20)
            except ConnectionError:
                part = b""
            if not part:
                raise ClosedError(0)
            self._rest += part
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def frame(data: bytes, opcode: int = BINARY, *, fin: bool = True, length: int | None = None) -> bytes:
    """One masked frame; length: what it says of itself."""
    size = len(data) if length is None else length
    head = bytes([opcode | (128 if fin else 0)])
    if size < 126:
        head += bytes([128 | size])
    elif size < 1 << 16:
        head += bytes([254]) + struct.pack(">H", size)
    else:
        head += bytes([255]) + struct.pack(">Q", size)
    return head + bytes(4) + data  # a mask of zeros leaves the data as they are


@contextmanager
def connected(server: Any, path: str = "/", **headers: str) -> Iterator[Socket]:
    """A connection on which no message was read yet. Raises UpgradeError."""
    found = opened(server, path, **headers)
    try:
        yield found
    finally:
        found.close()


def opened(server: Any, path: str = "/", **headers: str) -> Socket:
    """The same, to be closed by its owner."""
    port = server if isinstance(server, int) else server.sidecar.port
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    named = {
        "Host": f"127.0.0.1:{port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = connection.recv(1 << 16)
        if not part:
            raise ClosedError(0)
        answer += part
    head, _, rest = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if status != 101:
        connection.settimeout(1.0)
        try:
            while b"}" not in rest and (part := connection.recv(1 << 16)):
                rest += part
        except TimeoutError:
            pass
        connection.close()
        raise UpgradeError(status, rest)
    return Socket(connection, rest)
