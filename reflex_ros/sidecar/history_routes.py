# SPDX-License-Identifier: Apache-2.0
"""GET /history: the newest answers with small images, for `reflex trace view` of a live server."""

from __future__ import annotations

import asyncio

from aiohttp import web

from reflex_core.engine.engine import Engine
from reflex_core.text.untrusted import shown
from reflex_ros.sidecar.admission import ENGINE
from reflex_ros.sidecar.openapi import Operation
from reflex_ros.sidecar.problems import fresh_id
from reflex_ros.sidecar.recent_answers import RecentAnswers
from reflex_ros.sidecar.replies import Reply, problem, response

RECENT = web.AppKey("recent", RecentAnswers)
TURN = web.AppKey("turn", asyncio.Lock)
MOST_DIGITS = 18


def add_history(app: web.Application, engine: Engine) -> None:
    """Listen to the engine for GET /history."""
    app[RECENT], app[TURN] = RecentAnswers(), asyncio.Lock()
    engine.listen(app[RECENT])


async def get_history(request: web.Request) -> web.StreamResponse:
    """GET /history: the answers after `?after=N` as records of a trace, with small images, and `next` to go on from."""
    after = request.query.get("after", "")
    if after not in ("", "-1") and not (after.isascii() and after.isdecimal() and len(after) <= MOST_DIGITS):
        message = f"'after' must be the 'next' of the reply before, got {shown(after)}"
        return response(problem(400, "bad-after", message, fresh_id()))
    loaded = request.app[ENGINE].loaded
    if loaded is None:
        return response(problem(503, "not-ready", "no policy is loaded yet", fresh_id(), 1.0))
    recent, number = request.app[RECENT], int(after) if after else None
    async with request.app[TURN]:  # thumbnails of one reply at a time
        body = await asyncio.get_running_loop().run_in_executor(None, recent.document, loaded.session, number)
    return response(Reply(200, body))


OPERATIONS = (Operation("GET", "/history", get_history),)
