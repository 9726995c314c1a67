# SPDX-License-Identifier: Apache-2.0
"""A small server of openpi's websocket, written by the facts of its wire: it can serve, fail, lie and be killed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web
from wires import packed, unpacked

ROWS = 50

Answer = Callable[[dict[Any, Any], web.WebSocketResponse], Any]


def towards(target: list[float]) -> Answer:
    """Rows that lead from the state of the observation to the target at a slow, constant speed."""

    def answer(observation: dict[Any, Any], _: web.WebSocketResponse) -> Any:
        state = np.asarray(observation["observation/state"], np.float64).reshape(-1)[: len(target)]
        steps = np.clip(np.array(target) - state, -0.5, 0.5)
        rows = state + steps * (np.arange(1, ROWS + 1)[:, None] / ROWS)
        return {"actions": rows.astype(np.float32), "server_timing": {"infer_ms": 1.0}}

    return answer


def rows_of(rows: Any) -> Answer:
    return lambda _, __: {"actions": np.array(rows, np.float32)}


class OpenpiDouble:
    """Listens on a loopback port from `start` to `stop`; `start` again listens on the same port.

    metadata: that its rows are joint positions, unless others are given; openpi's own servers say nothing. answer: makes the reply;
    bytes and texts are sent as they are, None is no reply. observations: what came. paths, hops: of the
    upgrades.
    """

    def __init__(self, answer: Answer, metadata: dict[str, Any] | None = None, key: str = "") -> None:
        self.answer, self.key = answer, key
        self.metadata = {"action_space": "joint_position"} if metadata is None else metadata
        self.observations: list[dict[Any, Any]] = []
        self.connections = 0
        self.paths: list[str] = []
        self.hops: list[str] = []
        self.port = 0
        self.delay_s = 0.0
        self.redirects_to = ""

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> OpenpiDouble:
        self._loop = asyncio.new_event_loop()
        bound = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(bound,), daemon=True)
        self._thread.start()
        bound.wait()
        return self

    def stop(self) -> None:
        """End at once, as a killed process does."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, bound: threading.Event) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True)
        loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        bound.set()
        loop.run_forever()
        loop.run_until_complete(site.stop())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.key and request.headers.get("Authorization") != f"Api-Key {self.key}":
            return web.Response(status=401)
        if self.redirects_to:
            return web.Response(status=307, headers={"Location": self.redirects_to})
        self.connections += 1
        self.paths.append(request.path)
        self.hops.append(request.headers.get("X-Reflex-Hop", ""))
        socket = web.WebSocketResponse(compress=False, max_msg_size=0)
        await socket.prepare(request)
        await socket.send_bytes(packed(self.metadata))
        async for message in socket:
            if message.type is not WSMsgType.BINARY:
                break
            observation = unpacked(message.data)
            self.observations.append(observation)
            await asyncio.sleep(self.delay_s)
            reply = self.answer(observation, socket)
            if isinstance(reply, str):
                await socket.send_str(reply)
            elif reply is not None:
                await socket.send_bytes(reply if isinstance(reply, bytes) else packed(reply))
        return socket
