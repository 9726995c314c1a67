# SPDX-License-Identifier: Apache-2.0
"""A client in the shapes of Isaac-GR00T, written by the facts of its wire, and connections whose bytes a test writes itself."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
import zmq
from http_client import PATIENCE_S, STATE, picture
from numpy.typing import NDArray
from wires import npy_tag, packed, unpacked

REACH = "reach the red cube"
LANGUAGE = "annotation.human.task_description"
PING = bytes.fromhex("81a8656e64706f696e74a470696e67")  # as the real client sends it
MORE, COMMAND, LONG = 1, 4, 2  # flags of a ZMTP frame


class GrootError(Exception):
    """The answer was an error, as NVIDIA's client raises it."""


class GrootClient:
    """A REQ socket, or another kind."""

    def __init__(self, port: int, kind: int = zmq.REQ, tag: Any = npy_tag, name: bytes = b"") -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1e3))
        self.socket.setsockopt(zmq.LINGER, 0)
        if name:
            self.socket.setsockopt(zmq.IDENTITY, name)
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self._tag = tag

    def send(self, message: Any) -> None:
        self.socket.send(message if isinstance(message, bytes) else packed(message, self._tag))

    def receive(self) -> Any:
        answer = unpacked(self.socket.recv())
        if isinstance(answer, dict) and "error" in answer:
            raise GrootError(answer["error"])
        return answer

    def ask(self, message: Any) -> Any:
        self.send(message)
        return self.receive()

    def call(self, endpoint: str, data: Any = None, **more: Any) -> Any:
        return self.ask({"endpoint": endpoint, "data": data} | more)

    def act(self, observation: Any = None, options: Any = None) -> Any:
        """Actions and the rest, as N1.6 and N1.7 call it."""
        found = nested() if observation is None else observation
        return self.call("get_action", {"observation": found, "options": options})

    def close(self) -> None:
        self.context.destroy(linger=0)


def nested(
    image: NDArray[np.uint8] | None = None, state: Any = STATE, text: str = REACH, group: str = "left_arm"
) -> dict[str, Any]:
    """An observation of N1.6 and N1.7."""
    picture_of = picture() if image is None else image
    return {
        "video": {"ego_view": picture_of[None, None]},
        "state": {group: np.array(state, np.float32)[None, None]},
        "language": {LANGUAGE: [[text]]},
    }


def flat(
    image: NDArray[np.uint8] | None = None, state: Any = STATE, text: str = REACH, group: str = "single_arm"
) -> dict[str, Any]:
    """An observation of N1.5."""
    picture_of = picture() if image is None else image
    return {
        "video.webcam": picture_of[None],
        f"state.{group}": np.array(state, np.float64)[None],
        LANGUAGE: [text],
    }


@contextmanager
def shaken(port: int) -> Iterator[socket.socket]:
    """A connection after the handshake of a REQ socket (ZMTP 3.0, NULL), for frames by hand."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        signature = b"\xff" + bytes(8) + b"\x7f"
        connection.sendall(signature + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        _take(connection, 64)
        ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 3) + b"REQ"
        connection.sendall(bytes([COMMAND, len(ready)]) + ready)
        read_frame(connection)
        yield connection


def frame(data: bytes, flags: int = 0, length: int | None = None) -> bytes:
    """One frame; length: what it says of itself."""
    size = len(data) if length is None else length
    if size > 255:
        return bytes([flags | LONG]) + struct.pack(">Q", size) + data
    return bytes([flags, size]) + data


def read_frame(connection: socket.socket) -> tuple[int, bytes]:
    """The next frame and its flags; ConnectionError at the end."""
    flags = _take(connection, 1)[0]
    size = struct.unpack(">Q", _take(connection, 8))[0] if flags & LONG else _take(connection, 1)[0]
    return flags, _take(connection, size)


def read_reply(connection: socket.socket) -> Any:
    """The body of the next message that a REQ socket would be given."""
    while True:
        flags, data = read_frame(connection)
        if not flags & (COMMAND | MORE):
            return msgpack.unpackb(data)


def _take(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise ConnectionError("the server closed the connection")
        found += part
    return found


def rows_in(actions: Any, keys: Sequence[str], prefix: str = "") -> Any:
    """The columns of groups one after another."""
    return np.concatenate([actions[f"{prefix}{key}"] for key in keys], axis=-1)
