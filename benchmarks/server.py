# SPDX-License-Identifier: Apache-2.0
"""A server in a process of its own, and a client that costs next to nothing: prepared bytes on a keep-alive socket."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import simplejpeg

from benchmarks.exports import ROOT, Measured
from reflex_ros.sidecar.wires.msgpack_codec import pack

READY_S = PATIENCE_S = 300.0  # policies of real size, on a machine that others use too


@contextmanager
def served(measured: Measured, threads: int = 1, flags: Sequence[str] = ()) -> Iterator[int]:
    """`reflex serve --no-ros` of an export; gives the port once /health says 200."""
    with serving(measured, threads, flags) as (_, port):
        yield port


@contextmanager
def serving(
    measured: Measured, threads: int = 1, flags: Sequence[str] = (), checkout: Path = ROOT
) -> Iterator[tuple[int, int]]:
    """The same; gives process id and port. checkout: whose code serves, under this interpreter."""
    command = [
        sys.executable, "-m", "reflex_ros.cli.main", "serve", str(measured.path), "--no-ros", "--port", "0",
        "--device", "cpu", "--intra-op-threads", str(threads), *flags,
    ]  # fmt: skip
    if measured.embodiment:
        command += ["--embodiment", measured.embodiment]
    with listening(command, checkout) as found:
        yield found


@contextmanager
def listening(command: Sequence[str], checkout: Path = ROOT) -> Iterator[tuple[int, int]]:
    """Start a server that prints `listening on URL`; gives process id and port once /health says 200."""
    process = subprocess.Popen(
        command, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "listening on " in line:
                port = int(line.rsplit(":", 1)[1])
                break
        else:
            assert process.stderr is not None
            raise RuntimeError(f"the server did not start: {process.stderr.read()[-2000:]}")
        _wait_until_ready(port)
        yield process.pid, port
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _wait_until_ready(port: int) -> None:
    client = Client(port)
    end_s = time.monotonic() + READY_S
    try:
        while client.ask(get("/health")).status != 200:
            if time.monotonic() > end_s:
                raise RuntimeError(f"the server was not ready after {READY_S:.0f} s")
            time.sleep(0.02)
    finally:
        client.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and how long it took from the first byte sent to the last one received."""

    status: int
    body: bytes
    duration_ms: float


class Client:
    """One connection. HTTP/1.1 with Content-Length only, which is what the server sends."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> Answer:
        """Send a whole request, wait for the whole answer. Raises ConnectionError when the server hangs up."""
        began = time.perf_counter()
        self._socket.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        while len(body) < length:
            body += self._more()
        return Answer(int(head[9:12]), body, (time.perf_counter() - began) * 1e3)

    def _more(self) -> bytes:
        part = self._socket.recv(1 << 16)
        if not part:
            raise ConnectionError("the server closed the connection")
        return part

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def get(path: str) -> bytes:
    """A GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def post_act(camera: str, state: list[float], height: int, width: int, kind: str) -> bytes:
    """A POST /act with one picture, of `act_body`'s kinds."""
    content_type, body = act_body(camera, state, height, width, kind)
    head = f"POST /act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def act_body(camera: str, state: list[float], height: int, width: int, kind: str) -> tuple[str, bytes]:
    """Media type and body of a request with one picture and a fixed seed.

    kind: `jpeg` (quality 85) or `raw` (rgb8) in JSON, `msgpack` (rgb8 as an array in openpi's form).
    """
    pixels = picture(height, width)
    fields: dict[str, Any] = {"instruction": "reach the red cube", "state": state, "seed": 1}
    if kind == "msgpack":
        return "application/msgpack", pack({**fields, "images": {camera: pixels}})
    if kind == "jpeg":
        image: object = _text(simplejpeg.encode_jpeg(pixels, quality=85, colorspace="RGB"))
    else:
        image = {"data": _text(pixels.tobytes()), "encoding": "rgb8", "height": height, "width": width}
    return "application/json", orjson.dumps({**fields, "images": {camera: image}})


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def picture(height: int, width: int) -> np.ndarray:
    """HxWx3 uint8 RGB with the detail of a camera picture: smooth shapes and a little sensor noise."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 32 + 1, width // 32 + 1, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(smooth + random.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)
