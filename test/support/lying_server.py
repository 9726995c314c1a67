# SPDX-License-Identifier: Apache-2.0
"""An HTTP server that misbehaves on purpose: the first part of the path says how."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

GOOD_ROW = [0.0, 0.1, 0.0, -1.5, 0.0, 1.8, 0.1]
HUGE = 17 << 20
JOINTS = [f"panda_joint{number}" for number in range(1, 8)]
# what a server of this kind says of the policy that makes such rows
CONFIG = orjson.dumps({
    "effective": {
        "model_version": "arm@0011", "config_hash": "22", "action_names": JOINTS, "action_horizon": 10, "dt_s": 0.05,
        "n_action_steps": None, "cameras": {"base": "camera"}, "state_names": JOINTS, "state_dim": 7, "state_used": True,
        "observation_steps": 1, "rtc": {"mode": "guided_identity"},
    }
})  # fmt: skip


def chunk(**fields: Any) -> bytes:
    """A reply that is right but for `fields`."""
    document = {"actions": [GOOD_ROW] * 10, "dt_s": 0.05, "source": "policy"}
    return orjson.dumps(document | fields)


def plain(status: int = 200, **fields: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        document = orjson.loads(await request.read())
        body = chunk(**{"request_id": document["request_id"]} | fields)
        return web.Response(body=body, status=status, content_type="application/json")

    return answer


def literally(body: bytes, **headers: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=body, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )

    return answer


async def redirect(request: web.Request) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect("/good/act")


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(HUGE >> 16):
        await response.write(b" " * (1 << 16))
    return response


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def garbage(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"this is no HTTP\r\n\r\n")  # type: ignore[attr-defined]
    request.transport.close()
    return web.Response()


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


LIES: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
    "good": plain(),
    "silent": silent,
    "broken": plain(status=500),
    "busy": plain(status=503),
    "unprocessable": plain(status=422),
    "redirect": redirect,
    "hang-up": hang_up,
    "garbage": garbage,
    "endless": endless,
    "huge": literally(b" " * HUGE),
    "html": literally(b"<html>welcome</html>"),
    "cut": literally(b'{"actions": [[0.0'),
    "list": literally(b"[]"),
    "deep": literally(b"[" * 100_000),
    "nan-literal": literally(b'{"actions": [[NaN, 0, 0, 0, 0, 0, 0]], "dt_s": 0.05}'),
    "gzip": literally(b"\x1f\x8b\x08\x00", Content_Encoding="gzip"),
    "null": plain(actions=[[None] * 7]),
    "words": plain(actions=[["0.0"] * 7]),
    "true": plain(actions=[[True] * 7]),
    "beyond-float32": plain(actions=[[1e300] * 7]),
    "narrow": plain(actions=[[0.0] * 6] * 10),
    "ragged": plain(actions=[[0.0] * 7, [0.0] * 6]),
    "deeper": plain(actions=[[[0.0] * 7]]),
    "empty": plain(actions=[]),
    "rows-of-nothing": plain(actions=[[], []]),
    "no-actions": plain(actions="none"),
    "another-rate": plain(dt_s=0.02),
    "no-rate": plain(dt_s=None),
    "another-robot": plain(action_names=["left", "right", "up", "down", "in", "out", "grip"]),
    "no-names": plain(action_names=7),
    "another-request": plain(request_id="somebody else's"),
    "out-of-range": plain(actions=[[9.0] * 7] * 10),
    "a-hold": plain(source="hold"),
}


class LyingServer:
    """Listens on a free loopback port from `start` to `stop`. Keeps the headers it was asked with, by lie."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.headers_by_lie: dict[str, list[dict[str, str]]] = {}
        self.connections: set[int] = set()
        self._tls = tls
        self._bound = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def url(self, lie: str) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/{lie}"

    def start(self) -> LyingServer:
        self._thread.start()
        self._bound.wait()
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/{lie}/act", self._answer)
        app.router.add_get("/{lie}/health", literally(b"{}"))
        app.router.add_get("/{lie}/config", literally(CONFIG))
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        self._bound.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):  # the silent ones never end by themselves
            task.cancel()
        self._loop.run_until_complete(runner.cleanup())

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        lie = request.match_info["lie"]
        assert request.transport is not None
        self.connections.add(request.transport.get_extra_info("peername")[1])
        self.headers_by_lie.setdefault(lie, []).append(dict(request.headers))
        return await LIES[lie](request)
