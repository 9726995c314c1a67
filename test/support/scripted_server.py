# SPDX-License-Identifier: Apache-2.0
"""A server on a real socket that does what a test says with each connection and each request."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

CHUNK: dict[str, Any] = {
    "actions": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]], "action_names": ["a", "b"], "dt_s": 0.05, "start_index": 0,
    "source": "policy", "request_id": "r-1", "latency_ms": 1.0, "reflex": {},
}  # fmt: skip

Do = Callable[["Received"], None]


@dataclass(frozen=True)
class Received:
    """One request. connection: its number, from 0."""

    socket: socket.socket
    connection: int
    head: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str:
        found = re.search(rf"^{name}: (.*?)\r?$", self.head, re.MULTILINE | re.IGNORECASE)
        return found[1] if found else ""


@dataclass
class Scripted:
    """What it received, and its address."""

    url: str
    received: list[Received] = field(default_factory=list)


def replies(status: int, document: Any = None, *headers: str, close: bool = False) -> Do:
    """Answer with JSON; a chunk with the id of its request, where the document has no other."""
    found = CHUNK if document is None else document

    def do(received: Received) -> None:
        own = isinstance(found, dict) and found.get("request_id") == CHUNK["request_id"] and received.body
        data = json.dumps(found | {"request_id": received.json["request_id"]} if own else found).encode()
        lines = [
            f"HTTP/1.1 {status} X",
            f"Content-Length: {len(data)}",
            *headers,
            *(["Connection: close"] if close else []),
        ]
        received.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        if close:
            hangs_up(received)

    return do


def hangs_up(received: Received) -> None:
    """Close the connection in the place of an answer."""
    with suppress(OSError):
        received.socket.shutdown(socket.SHUT_RDWR)
    received.socket.close()


def hangs_up_after(do: Do) -> Do:
    """Answer, and then close a connection that the client believes to be kept."""

    def both(received: Received) -> None:
        do(received)
        hangs_up(received)

    return both


def says_nothing(_: Received) -> None:
    """Leave the client without an answer."""


def sends(data: bytes) -> Do:
    """Answer with these bytes."""
    return lambda received: received.socket.sendall(data)


@contextmanager
def scripted(*script: Do) -> Iterator[Scripted]:
    """A server that does the script's steps, one for each request in the order of their coming; then the last again."""
    listener = socket.create_server(("127.0.0.1", 0))
    found = Scripted(f"http://127.0.0.1:{listener.getsockname()[1]}")
    lock, connections = threading.Lock(), []

    def serve(connection: socket.socket, number: int) -> None:
        data = b""
        with suppress(OSError):
            while True:
                while b"\r\n\r\n" not in data:
                    more = connection.recv(1 << 16)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                while length and len(data) < int(length[1]):
                    data += connection.recv(1 << 16)
                size = int(length[1]) if length else 0
                received = Received(connection, number, head.decode("latin-1"), data[:size])
                data = data[size:]
                with lock:
                    found.received.append(received)
                    do = script[min(len(found.received), len(script)) - 1]
                do(received)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threading.Thread(target=serve, args=(connection, len(connections) - 1), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield found
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # else a thread that accepts keeps it open
        listener.close()
        for connection in connections:
            connection.close()
