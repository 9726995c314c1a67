# SPDX-License-Identifier: Apache-2.0
"""The HTTP client of another server of this kind: one request out, one answer in, inside the time that is left."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from itertools import chain
from typing import Any

import aiohttp
import numpy as np
import orjson

from reflex_core import __version__
from reflex_core.export.config_schema import GUIDED, PREFIX
from reflex_core.files.json_fields import is_number, is_whole
from reflex_core.policy.cloud_server import INVALID, REFUSED, STATUS, CloudAnswer, CloudError
from reflex_core.robot.callers import robot_of
from reflex_core.text.untrusted import escaped
from reflex_core.values import CLOUD, POLICY, Floats, Inference, Observation, Request
from reflex_ros.sidecar.addresses import HOP_HEADER, checked_url, read_key, warn_of_plain_key
from reflex_ros.sidecar.loop_thread import LoopThread
from reflex_ros.sidecar.outgoing_pictures import OutgoingPictures
from reflex_ros.sidecar.sessions import session_header

VARIABLE = "REFLEX_CLOUD_API_KEY"
LARGEST_REPLY = 16 << 20
HEALTH_TIMEOUT_S = 2.0
KEEP_ALIVE_S = 60.0
VERSION_CHARACTERS = 128

_HASH = re.compile(r"[0-9a-f]{1,64}")

AS_JPEG = OutgoingPictures()


def read_cloud_key(path: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the key of the file, else of REFLEX_CLOUD_API_KEY, else None. Raises SettingError for one that cannot be sent."""
    return read_key("cloud_api_key_file", path, VARIABLE, environment)


class HttpCloud:
    """Another server of this kind, over HTTP with keep-alive connections. Its event loop has a thread of its own."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        name: str = "cloud",
        pictures: OutgoingPictures = AS_JPEG,
        goes_on: bool = False,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: Of the server, without /act.
            api_key: Sent as a bearer; None sends none.
            name: Of the server's use, in log lines.
            pictures: How images are sent.
            goes_on: Say which chunk the robot executes; only where every request of an episode is sent there.
        """
        parts = checked_url(url, "remote" if goes_on else "cloud_fallback", VARIABLE)
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._pictures, self._goes_on = pictures, goes_on
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # a reply that unpacks to gigabytes is not possible
            "User-Agent": f"reflex_ros/{__version__}",
            HOP_HEADER: "1",
        }
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
            warn_of_plain_key(parts, name)
        self._session: aiohttp.ClientSession | None = None
        self._loop = LoopThread(f"{name}-http", self._end)

    def ask(self, request: Request, left_s: float) -> CloudAnswer:
        """POST /act. Raises CloudError, CancelledError, or ObservationError for a frame that cannot be decoded."""
        until_s = time.monotonic() + left_s
        body = body_of(request, self._pictures, goes_on=self._goes_on)
        status, reply = self._loop.run(
            self._exchange("POST", "/act", body, session_header(request.episode_id)),
            until_s - time.monotonic(),
            request.cancellation,
        )
        return answer_of(status, reply, request.request_id)

    def get(self, path: str, left_s: float) -> tuple[int, bytes]:
        """Return status and body of a page of it. Raises CloudError."""
        return self._loop.run(self._exchange("GET", path, None, {}), left_s, None)

    def ready(self) -> bool:
        """Return whether GET /health answers 200."""
        try:
            status, _ = self.get("/health", HEALTH_TIMEOUT_S)
        except CloudError:
            return False
        return status == 200

    def close(self) -> None:
        """Drop the connections and end the thread. May be called twice; `ask` then raises CloudError."""
        self._loop.close()

    async def _exchange(
        self, method: str, path: str, body: bytes | None, more: Mapping[str, str]
    ) -> tuple[int, bytes]:
        try:
            try:
                return await self._once(method, path, body, more)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if isinstance(error, aiohttp.ClientConnectorError):
                    raise
                # a kept connection that the other side had given up
                return await self._once(method, path, body, more)
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as error:
            raise CloudError(INVALID, f"the reply is broken: {_named(error)}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise CloudError(REFUSED, f"no connection: {_named(error)}") from error

    async def _once(
        self, method: str, path: str, body: bytes | None, more: Mapping[str, str]
    ) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(keepalive_timeout=KEEP_ALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),  # `_run` ends what takes too long
                auto_decompress=False,
            )
        async with self._session.request(
            method, self._base + path, data=body, headers={**self._headers, **more}, allow_redirects=False
        ) as response:
            parts: list[bytes] = []
            size = response.content_length or 0
            if size <= LARGEST_REPLY:
                size = 0
                async for part in response.content.iter_any():
                    parts.append(part)
                    size += len(part)
                    if size > LARGEST_REPLY:
                        break
            if size > LARGEST_REPLY:
                response.close()  # or leaving would read the rest
                raise CloudError(INVALID, f"a reply of more than {LARGEST_REPLY} bytes")
            return response.status, b"".join(parts)

    async def _end(self) -> None:
        if self._session is not None:
            await self._session.close()


def _named(error: BaseException) -> str:
    return f"{type(error).__name__} {str(error)[:200]!r}"


def body_of(request: Request, pictures: OutgoingPictures = AS_JPEG, *, goes_on: bool = False) -> bytes:
    """Return the body of POST /act for this request. Raises ObservationError for a frame that cannot be decoded.

    goes_on: with the chunk that the robot executes, where the request says it.
    """
    observation = request.observation
    document = _sensors(observation, pictures) | {
        "instruction": observation.instruction,
        "request_id": request.request_id,
    }
    if observation.history:
        document["history"] = [_sensors(earlier, pictures) for earlier in observation.history]
    if request.episode_id is not None:
        document["episode_id"] = request.episode_id
    if request.seed is not None:
        document["seed"] = request.seed
    if goes_on and request.elapsed_rows is not None:
        document["elapsed_rows"] = request.elapsed_rows
        document["previous_request_id"] = request.previous_request_id
    if robot := robot_of(request):  # the other server counts for it, not for this one
        document["robot_id"] = robot
    return orjson.dumps(document)


def _sensors(observation: Observation, pictures: OutgoingPictures) -> dict[str, Any]:
    images = {camera: pictures.document(frame) for camera, frame in observation.frames.items()}
    state = observation.state
    return {"images": images} | ({} if state is None else {"state": state.tolist()})


def answer_of(status: int, body: bytes, request_id: str) -> CloudAnswer:
    """Parse a reply. Raises CloudError when it holds no valid chunk for this request."""
    if status != 200:
        raise CloudError(STATUS, f"status {status}: {answer_text(body)}", status)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CloudError(INVALID, f"the reply is not JSON: {body[:80]!r}") from error
    if not isinstance(document, dict):
        raise CloudError(INVALID, f"the reply is no JSON object: {body[:80]!r}")
    if document.get("request_id", request_id) != request_id:
        raise CloudError(INVALID, "the reply belongs to another request")
    return CloudAnswer(
        actions=_actions(document.get("actions")),
        names=_names(document.get("action_names", [])),
        dt_s=_number(document, "dt_s"),
        source=_text(document.get("source", POLICY)),
        model_version=_text(document.get("model_version")),
        seed=_count(document.get("seed"), unknown=-1),
        inference=Inference(
            CLOUD,
            denoise_steps_configured=_count(document.get("num_denoising_steps"), unknown=0),
            denoise_steps=_count(document.get("denoising_steps"), unknown=0),
        ),
        model_hash=_hash(document.get("model_hash")),
        config_hash=_hash(document.get("config_hash")),
        rtc_mode=mode
        if isinstance(mode := document.get("rtc_mode"), str) and mode in (GUIDED, PREFIX)
        else "",
        rtc_delay=_count(document.get("rtc_delay"), unknown=0),
    )


def answer_text(body: bytes) -> str:
    """Return the sentence of a refusal, else the beginning of its body."""
    try:
        document = orjson.loads(body)
        return escaped(f"{document['error']}: {document['message']}", 300)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"{body[:200]!r}"


def _actions(rows: object) -> Floats:
    """Return (n, m) float32 of a list of equally long rows of JSON numbers; values beyond float32 become Inf."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        raise CloudError(INVALID, "'actions' is no list of rows")
    if len({len(row) for row in rows}) > 1:
        raise CloudError(INVALID, "the rows of 'actions' differ in length")
    kinds = set(map(type, chain.from_iterable(rows)))
    if not kinds <= {int, float}:
        raise CloudError(INVALID, "'actions' holds something that is not a number")
    with np.errstate(over="ignore"):
        return np.array(rows, dtype=np.float64).astype(np.float32)


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise CloudError(INVALID, "'action_names' is no list of names")
    return tuple(value)


def _number(document: Mapping[str, Any], field: str) -> float:
    value = document.get(field)
    if not is_number(value):
        raise CloudError(INVALID, f"'{field}' is no number")
    return float(value)


def _count(value: object, unknown: int) -> int:
    return value if is_whole(value, 0, 2**63 - 1) else unknown


def _text(value: object) -> str:
    """Return short printable ASCII, as it goes into headers and log lines; `unknown` for anything else."""
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return value[:VERSION_CHARACTERS]
    return "unknown"


def _hash(value: object) -> str:
    return value if isinstance(value, str) and _HASH.fullmatch(value) else ""
