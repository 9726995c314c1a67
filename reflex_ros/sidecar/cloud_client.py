# SPDX-License-Identifier: Apache-2.0
"""The HTTP client of --cloud-fallback: one request out, one answer in, inside the time that is left."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import ipaddress
import logging
import os
import re
import threading
import time
from collections.abc import Coroutine, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import aiohttp
import numpy as np
import orjson
import simplejpeg

from reflex_core import __version__
from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import CancelledError, SettingError
from reflex_core.files.json_fields import is_number, is_whole
from reflex_core.files.secrets import read_secret
from reflex_core.images.raw_encodings import rgb
from reflex_core.policy.cloud_server import INVALID, REFUSED, STATUS, TIMEOUT, CloudAnswer, CloudError
from reflex_core.robot.callers import robot_of
from reflex_core.settings.table import Settings
from reflex_core.values import CLOUD, POLICY, Floats, Frame, Inference, Observation, Request

VARIABLE = "REFLEX_CLOUD_API_KEY"
HOP_HEADER = "X-Reflex-Hop"
LARGEST_REPLY = 16 << 20
HEALTH_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 5.0
KEEP_ALIVE_S = 60.0
JPEG_QUALITY = 95
VERSION_CHARACTERS = 128

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
_HASH = re.compile(r"[0-9a-f]{1,64}")

log = logging.getLogger(__name__)

Result = TypeVar("Result")


def read_cloud_key(path: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the key of the file, else of REFLEX_CLOUD_API_KEY, else None. Raises SettingError for one that cannot be sent."""
    text = environment.get(VARIABLE, "")
    where = f"the environment variable {VARIABLE}"
    if path:
        where = f"setting 'cloud_api_key_file': {path}"
        try:
            text = read_secret(Path(path)).decode("utf-8")
        except (OSError, ValueError) as error:
            raise SettingError(f"{where}: {getattr(error, 'strerror', None) or error}") from error
    key = text.strip()
    if path and not key:
        raise SettingError(f"{where} is empty")
    if not (key.isascii() and key.isprintable()):
        raise SettingError(f"{where} must be one line of printable ASCII")
    return key or None


def connect_cloud(settings: Settings) -> HttpCloud:
    """Return the server of --cloud-fallback. Raises SettingError for a URL or key that cannot be used."""
    return HttpCloud(settings.cloud_fallback, read_cloud_key(settings.cloud_api_key_file))


def check_cloud(settings: Settings) -> None:
    """Raise SettingError for a URL that cannot be used."""
    if settings.cloud_fallback:
        checked_url(settings.cloud_fallback)


def check_cloud_key(settings: Settings) -> None:
    """Raise SettingError for a key file that cannot be used; a key that comes out of a pipe is not read yet."""
    key = settings.cloud_api_key_file
    try:
        if key:
            Path(key).stat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SettingError(f"setting 'cloud_api_key_file': {key}: {why}") from error
    if settings.cloud_fallback and not (key and Path(key).is_fifo()):
        read_cloud_key(key)


def checked_url(url: str) -> SplitResult:
    """Return the parts of a base URL such as https://host:8000/prefix. Raises SettingError for anything else."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _bad_url(url, str(error)) from error
    if parts.username is not None or parts.password is not None:
        raise SettingError(f"setting 'cloud_fallback': no password in the URL, put the key into {VARIABLE}")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise _bad_url(url, "only printable ASCII without blanks")
    if parts.scheme not in ("http", "https") or not host:
        raise _bad_url(url, "it must begin with http:// or https:// and a host")
    if parts.query or parts.fragment or not _PREFIX.fullmatch(parts.path):
        raise _bad_url(url, "after the host only a path prefix is possible")
    if parts.path.rstrip("/").endswith("/act"):
        raise _bad_url(url, "give the server, without /act")
    return parts


def _bad_url(url: str, why: str) -> SettingError:
    return SettingError(f"setting 'cloud_fallback': {url[:200]!r} is not the URL of a server: {why}")


class HttpCloud:
    """Another server of this kind, over HTTP with keep-alive connections. Its event loop has a thread of its own."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        parts = checked_url(url)
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # a reply that unpacks to gigabytes is not possible
            "User-Agent": f"reflex_ros/{__version__}",
            HOP_HEADER: "1",
        }
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
            if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
                log.warning("cloud: the API key is sent unencrypted to %s: use https", self._base)
        log.info("cloud: when the policy fails, images, state and instruction are sent to %s", self._base)
        self._session: aiohttp.ClientSession | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="reflex-cloud-http", daemon=True)
        self._thread.start()

    def ask(self, request: Request, left_s: float) -> CloudAnswer:
        """POST /act. Raises CloudError, CancelledError, or ObservationError for a frame that cannot be decoded."""
        until_s = time.monotonic() + left_s
        body = body_of(request)
        status, reply = self._run(
            self._exchange("POST", "/act", body), until_s - time.monotonic(), request.cancellation
        )
        return answer_of(status, reply, request.request_id)

    def ready(self) -> bool:
        """Return whether GET /health answers 200."""
        try:
            status, _ = self._run(self._exchange("GET", "/health", None), HEALTH_TIMEOUT_S, None)
        except CloudError:
            return False
        return status == 200

    def close(self) -> None:
        """Drop the connections and end the thread. May be called twice; `ask` then raises CloudError."""
        if self._loop.is_closed():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(CLOSE_TIMEOUT_S)
        except concurrent.futures.TimeoutError:
            log.error("cloud: the connections did not close within %.0f s", CLOSE_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()

    def _run(
        self,
        exchange: Coroutine[Any, Any, Result],
        left_s: float,
        cancellation: Cancellation | None,
    ) -> Result:
        """Run the exchange on the loop's thread until it is done, timed out or cancelled."""
        try:
            future = asyncio.run_coroutine_threadsafe(exchange, self._loop)
        except RuntimeError as error:  # the loop is closed
            exchange.close()
            raise CloudError(REFUSED, "the connection to the cloud was closed") from error
        with (cancellation or Cancellation()).calling(lambda: _cancel(future)):
            try:
                return future.result(max(left_s, 0.0))
            except concurrent.futures.TimeoutError as error:
                future.cancel()
                raise CloudError(TIMEOUT, f"no answer within {left_s * 1e3:.0f} ms") from error
            except concurrent.futures.CancelledError as error:
                if cancellation is not None and cancellation.cancelled:
                    raise CancelledError(
                        "the request was cancelled: its answer came from elsewhere"
                    ) from error
                raise CloudError(REFUSED, "the connection to the cloud was closed") from error

    async def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        try:
            try:
                return await self._once(method, path, body)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if isinstance(error, aiohttp.ClientConnectorError):
                    raise
                # a kept connection that the other side had given up
                return await self._once(method, path, body)
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as error:
            raise CloudError(INVALID, f"the reply is broken: {_named(error)}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise CloudError(REFUSED, f"no connection: {_named(error)}") from error

    async def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(keepalive_timeout=KEEP_ALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),  # `_run` ends what takes too long
                auto_decompress=False,
            )
        async with self._session.request(
            method, self._base + path, data=body, headers=self._headers, allow_redirects=False
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
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


def _cancel(future: concurrent.futures.Future[Any]) -> None:
    future.cancel()


def _named(error: BaseException) -> str:
    return f"{type(error).__name__} {str(error)[:200]!r}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def body_of(request: Request) -> bytes:
    """Return the body of POST /act for this request. Raises ObservationError for a frame that cannot be decoded."""
    observation = request.observation
    document = _sensors(observation) | {
        "instruction": observation.instruction,
        "request_id": request.request_id,
    }
    if observation.history:
        document["history"] = [_sensors(earlier) for earlier in observation.history]
    if request.episode_id is not None:
        document["episode_id"] = request.episode_id
    if request.seed is not None:
        document["seed"] = request.seed
    if robot := robot_of(request):  # the other server counts for it, not for this one
        document["robot_id"] = robot
    return orjson.dumps(document)


def _sensors(observation: Observation) -> dict[str, Any]:
    images = {
        camera: base64.b64encode(_encoded(frame)).decode("ascii")
        for camera, frame in observation.frames.items()
    }
    state = observation.state
    return {"images": images} | ({} if state is None else {"state": state.tolist()})


def _encoded(frame: Frame) -> Any:
    """Return an encoded frame's file unchanged, or a raw frame as JPEG."""
    if frame.encoding in ("jpeg", "png") and frame.decoder is None:
        return frame.data
    return simplejpeg.encode_jpeg(np.ascontiguousarray(rgb(frame)), quality=JPEG_QUALITY, colorspace="RGB")


def answer_of(status: int, body: bytes, request_id: str) -> CloudAnswer:
    """Parse a reply. Raises CloudError when it holds no valid chunk for this request."""
    if status != 200:
        raise CloudError(STATUS, f"status {status}: {body[:200]!r}")
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
    )


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
