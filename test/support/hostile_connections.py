# SPDX-License-Identifier: Apache-2.0
"""Many connections at once, whose bytes a test writes itself."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from raw_http import answered

from reflex_ros.sidecar.connections import ConnectionLimits

FEW = ConnectionLimits(most=8, head_s=60.0, idle_s=60.0, body_idle_s=60.0)
SHORT = ConnectionLimits(most=64, head_s=0.2, idle_s=0.3, body_idle_s=0.2)
HEAD = b"POST /act HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@contextmanager
def sockets(server: Any, number: int, data: bytes = b"") -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        found = []
        for _ in range(number):
            one = stack.enter_context(
                socket.create_connection(("127.0.0.1", server.sidecar.port), timeout=60)
            )
            if data:
                one.sendall(data)
            found.append(one)
        yield found


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def parsed(reply: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"application/json" in head, reply
    return int(head.split()[1]), json.loads(body)


def ask(server: Any, data: bytes) -> tuple[int, dict[str, Any]]:
    with socket.create_connection(("127.0.0.1", server.sidecar.port), timeout=60) as connection:
        connection.sendall(data)
        return parsed(answered(connection))
