# SPDX-License-Identifier: Apache-2.0
"""How robots speak: each wire turns an observation into bytes on a socket of its own, and an answer into rows and telemetry."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson

from benchmarks.chaos.judge import Asked
from benchmarks.exports import ROOT
from reflex_core.values import Floats

sys.path.append(str(ROOT / "test" / "support"))
from groot_client import GrootClient, GrootError, nested
from lerobot_client import LerobotClient, observation
from wires import packed, unpacked
from ws_client import ClosedError, Socket, UpgradeError, opened

PATIENCE_S = 30.0  # beyond it a robot gives up: far more than any deadline
LOST_S = 5.0  # the same for ZeroMQ, whose sockets are not told that a request was lost with its server
SOCKETS = "/"  # openpi's


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer. rows: None for a refusal, whose document then has `error`. block: None where the wire carries no telemetry."""

    status: int
    rows: Floats | None
    block: Mapping[str, Any] | None = None
    document: object = None


class Speaker(Protocol):
    """One robot's connection. Raises OSError (of whatever kind) where nothing came back; then the next call connects again."""

    def ask(self, asked: Asked) -> Heard: ...

    def close(self) -> None: ...


class OverHttp:
    """POST /act: `json` with JPEG files, `raw` with pixels in base64, `msgpack` with arrays."""

    def __init__(self, port: int, wire: str) -> None:
        self._port, self._wire = port, wire
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, asked: Asked) -> Heard:
        body, kind = self._body(asked)
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
            self._connection.request("POST", "/act", body, {"Content-Type": kind})
            response = self._connection.getresponse()
            data = response.read()
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise ConnectionError(str(error)) from error
        if response.getheader("Connection", "").lower() == "close":
            self.close()
        packed_form = response.getheader("Content-Type", "").startswith("application/msgpack")
        return self._heard(response.status, data, unpacked if packed_form else orjson.loads)

    def _body(self, asked: Asked) -> tuple[bytes, str]:
        sight = asked.sight
        height, width = sight.pixels.shape[:2]
        fields: dict[str, Any] = {
            "instruction": sight.instruction, "state": list(sight.state), "seed": asked.seed, "robot_id": asked.robot,
            "request_id": asked.request_id, "episode_id": f"{asked.robot}-episode",
        }  # fmt: skip
        if asked.elapsed is not None:
            fields |= {"elapsed_rows": asked.elapsed, "previous_request_id": asked.previous}
        if self._wire == "msgpack":
            fields |= {"images": {"camera": sight.pixels}, "state": np.array(sight.state)}
            return packed(fields), "application/msgpack"
        image: object = sight.jpeg_text
        if asked.raw:
            image = {"data": sight.raw_text, "encoding": "rgb8", "height": height, "width": width}
        return orjson.dumps(fields | {"images": {"camera": image}}), "application/json"

    def _heard(self, status: int, data: bytes, read: Callable[[bytes], Any]) -> Heard:
        try:
            document = read(data)  # what is refused before its wire is known is refused in JSON
        except ValueError:
            return Heard(status, None, document=data[:300])
        if status != 200:
            return Heard(status, None, document=document)
        return Heard(status, np.array(document["actions"], np.float32), document["reflex"])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class OverOpenpi:
    """openpi's websocket."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: Socket | None = None

    def ask(self, asked: Asked) -> Heard:
        try:
            if self._socket is None:
                self._socket = opened(self._port, SOCKETS)
                self._socket._connection.settimeout(PATIENCE_S)
                self._socket.receive()  # the greeting
            answer = self._socket.infer({
                "observation/image": asked.sight.pixels, "observation/state": np.array(asked.sight.state),
                "prompt": asked.sight.instruction, "seed": asked.seed, "request_id": asked.request_id,
            })  # fmt: skip
        except UpgradeError as error:
            self.close()
            with suppress(ValueError):
                return Heard(error.status, None, document=orjson.loads(error.body))
            raise ConnectionError(str(error)) from error
        except (ClosedError, OSError) as error:
            self.close()
            raise ConnectionError(str(error)) from error
        if isinstance(answer, str):
            return refused_in_text(answer)
        return Heard(200, np.array(answer["actions"], np.float32), answer["reflex"])

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class OverGroot:
    """Isaac-GR00T's ZeroMQ port."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._client: GrootClient | None = None

    def ask(self, asked: Asked) -> Heard:
        import zmq

        try:
            if self._client is None:
                self._client = GrootClient(self._port)
                self._client.socket.setsockopt(zmq.RCVTIMEO, int(LOST_S * 1e3))
            seen = nested(asked.sight.pixels, asked.sight.state, asked.sight.instruction)
            options = {"seed": asked.seed, "robot_id": asked.robot, "request_id": asked.request_id}
            rows, block = self._client.act(seen, options)
        except GrootError as error:
            return refused_in_text(str(error))
        except zmq.ZMQError as error:
            self.close()
            raise ConnectionError(str(error)) from error
        return Heard(200, np.array(rows["left_arm"][0], np.float32), block["reflex"])

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class OverLerobot:
    """LeRobot's gRPC port: rows alone, without telemetry."""

    def __init__(self, port: int, joints: tuple[str, ...]) -> None:
        self._port, self._joints, self._step = port, joints, 0
        self._client: LerobotClient | None = None

    def ask(self, asked: Asked) -> Heard:
        import grpc

        try:
            if self._client is None:
                self._client = LerobotClient(self._port, PATIENCE_S)
                self._client.start(names=self._joints)
                self._step = 0
            sight = asked.sight
            self._client.send(
                observation(
                    sight.state, self._joints, timestep=self._step, must_go=True, task=sight.instruction,
                    camera=sight.pixels,
                )
            )  # fmt: skip
            self._step += 10
            rows = self._client.actions()
        except grpc.RpcError as error:
            self.close()
            raise ConnectionError(f"{error.code()}: {error.details()}") from error  # type: ignore[attr-defined]
        return Heard(200, np.array([row.action for row in rows], np.float32))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def refused_in_text(text: str) -> Heard:
    """Return a refusal that is `slug: sentence`."""
    slug, _, sentence = text.partition(": ")
    return Heard(0, None, document={"error": slug, "message": sentence, "request_id": ""})


def speaker(wire: str, ports: Mapping[str, int], joints: tuple[str, ...]) -> Speaker:
    """Return a robot's connection."""
    if wire == "openpi":
        return OverOpenpi(ports["http"])
    if wire == "groot":
        return OverGroot(ports["groot"])
    if wire == "lerobot":
        return OverLerobot(ports["lerobot"], joints)
    return OverHttp(ports["http"], wire)
