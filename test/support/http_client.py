# SPDX-License-Identifier: Apache-2.0
"""What the HTTP tests send and how they read the answer: real sockets, standard library only."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from reflex_core.engine.engine import Engine

PATIENCE_S = 60.0  # only a hang takes this long

STATE = [0.0, 0.1, 0.0, -1.5, 0.0, 1.8, 0.1]


@dataclass(frozen=True)
class Answer:
    """Status, headers with lower-case names, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks one server, over a new connection each time. key: that it shows, "" for none."""

    def __init__(self, port: int, host: str = "127.0.0.1", key: str = "") -> None:
        self.port = port
        self.host = host
        self._shown = {"Authorization": f"Bearer {key}"} if key else {}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)
        try:
            named = {key.replace("_", "-"): text for key, text in headers.items()}
            connection.request(method, path, body, self._shown | named)
            response = connection.getresponse()
            named = {name.lower(): text for name, text in response.getheaders()}
            return Answer(response.status, named, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def act(self, document: Any = None, **fields: Any) -> Answer:
        """POST /act with a document, or with a good request in which `fields` are replaced."""
        return self.ask("POST", "/act", json.dumps(good(**fields) if document is None else document).encode())


def good(**fields: Any) -> dict[str, Any]:
    """A request that every seven-joint export answers."""
    return {"image": jpeg(), "instruction": "reach the red cube", "state": STATE} | fields


def picture(
    height: int = 32, width: int = 32, colour: tuple[int, int, int] = (200, 40, 40)
) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def jpeg(**of: Any) -> str:
    return text(simplejpeg.encode_jpeg(picture(**of), quality=95))


def png(**of: Any) -> str:
    return text(cv2.imencode(".png", picture(**of)[:, :, ::-1])[1].tobytes())


def raw(encoding: str = "rgb8", **of: Any) -> dict[str, Any]:
    pixels = picture(**of)
    return {
        "data": text(pixels.tobytes()),
        "encoding": encoding,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
    }


def png_bomb(side: int) -> str:
    """A PNG of side x side pixels in a few bytes per row of zeros."""

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (side + 1)), 9)
    return text(b"\x89PNG\r\n\x1a\n" + block(b"IHDR", head) + block(b"IDAT", rows) + block(b"IEND", b""))


def wait_for(condition: Callable[[], object]) -> None:
    """Return once the condition holds; fail when it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.001)


def in_flight(engine: Engine) -> float:
    """How many requests are inside the engine now."""
    return sum(sample.value for metric in engine.metrics.in_flight.collect() for sample in metric.samples)


@contextmanager
def busy(engine: Engine) -> Iterator[None]:
    """Take the policy's turn, so that every request that comes waits until this is left."""
    assert engine.loaded is not None
    with engine.loaded.policy._fifo_lock.turn():
        yield


def at_the_policy(engine: Engine) -> int:
    """How many requests wait for the policy's turn, decoded and checked."""
    assert engine.loaded is not None
    return len(engine.loaded.policy._fifo_lock._waiting)


class Background:
    """A call in a thread; `result` waits for it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._outcome: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._outcome.append(call()), daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(PATIENCE_S)
        assert self._outcome, "the call failed or did not end"
        return self._outcome[0]
