# SPDX-License-Identifier: Apache-2.0
"""The smallest aiohttp server that answers what /act answered: one hop to a thread, no policy.

    python -m benchmarks.floor reply.json reply.msgpack

Prints `listening on URL`; each file is the answer to requests of its kind.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web

KINDS = {".json": "application/json", ".msgpack": "application/msgpack"}


async def serve(replies: dict[str, bytes]) -> None:
    """Answer POST /act until the process ends."""
    pool = ThreadPoolExecutor(1)

    async def act(request: web.Request) -> web.Response:
        body = await request.read()
        loop = asyncio.get_running_loop()
        reply = await loop.run_in_executor(pool, lambda: replies[request.content_type] if body else b"")
        return web.Response(body=reply, content_type=request.content_type)

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(client_max_size=1 << 30)
    app.add_routes([web.post("/act", act), web.get("/health", health)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve({KINDS[path.suffix]: path.read_bytes() for path in map(Path, sys.argv[1:])}))
