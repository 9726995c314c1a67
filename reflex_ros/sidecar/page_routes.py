# SPDX-License-Identifier: Apache-2.0
"""Page routes: the page at `/`, its live events, and its operator actions: stop and resume the robot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import orjson
from aiohttp import web

from reflex_core.engine.engine import Engine
from reflex_core.errors import ReflexError
from reflex_ros.sidecar.admission import access_of, requester
from reflex_ros.sidecar.events import Hub, stream
from reflex_ros.sidecar.history import RequestHistory
from reflex_ros.sidecar.key_file import READ
from reflex_ros.sidecar.openapi import Operation, add_operations
from reflex_ros.sidecar.page_snapshot import Snapshots
from reflex_ros.sidecar.problems import fresh_id
from reflex_ros.sidecar.replies import Reply, problem, response
from reflex_ros.sidecar.robot_access import Robot

FOLDER = Path(__file__).with_name("page")
FILES = {  # path: file and type; nothing else is ever served
    "/": ("index.html", "text/html"),
    "/page/safety.html": ("safety.html", "text/html"),
    "/page/page.css": ("page.css", "text/css"),
    "/page/plots.css": ("plots.css", "text/css"),
    "/page/page.js": ("page.js", "text/javascript"),
    "/page/panels.js": ("panels.js", "text/javascript"),
    "/page/charts.js": ("charts.js", "text/javascript"),
    "/page/latency.js": ("latency.js", "text/javascript"),
    "/page/link.js": ("link.js", "text/javascript"),
    "/page/operate.js": ("operate.js", "text/javascript"),
    "/page/slots.js": ("slots.js", "text/javascript"),
    "/page/terms.js": ("terms.js", "text/javascript"),
    "/page/twice.js": ("twice.js", "text/javascript"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

log = logging.getLogger(__name__)

HUB = web.AppKey("hub", Hub)
ROBOT = web.AppKey("robot", Robot)


def add_page(
    app: web.Application, engine: Engine, robot: Robot | None, *, has_key: bool, alone: bool
) -> None:
    """Add the routes of page, events, stop and resume. The application itself refuses unauthorised requests.

    has_key: an API key is required. alone: only this machine can connect.
    """
    history = RequestHistory()
    engine.listen(history)
    snapshots = Snapshots(engine, history, robot, has_key=has_key, only_stop=not has_key and not alone)
    if robot is not None:
        app[ROBOT] = robot

    async def hub(app: web.Application) -> AsyncIterator[None]:
        app[HUB] = Hub(snapshots.state, snapshots.pictures)
        yield

    async def close(app: web.Application) -> None:
        await app[HUB].close()

    app.cleanup_ctx.append(hub)
    app.on_shutdown.append(close)
    for path, (name, kind) in FILES.items():
        app.router.add_get(path, _file(name, kind))
    app.router.add_get("/events", get_events)
    add_operations(app, OPERATIONS)


def _file(name: str, kind: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    body = (FOLDER / name).read_bytes()

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=HEADERS)

    return serve


async def get_events(request: web.Request) -> web.StreamResponse:
    """GET /events: a `state` about five times a second, and `pictures` when there are new ones."""
    hub = request.app[HUB]
    if hub.full:
        message = f"{hub.clients} pages are open and no more are served; close one"
        return response(problem(503, "too-many-pages", message, fresh_id(), 5.0))
    return await stream(request, hub, lambda: access_of(request).may((READ,)))


async def post_stop(request: web.Request) -> web.Response:
    """POST /stop: the robot holds until POST /resume."""
    return await _command_robot(request, "stopped", lambda robot: robot.stop())


async def post_resume(request: web.Request) -> web.Response:
    """POST /resume: go on after a stop, from a fresh observation."""
    return await _command_robot(request, "resumed", lambda robot: robot.resume())


async def _command_robot(request: web.Request, done: str, act: Callable[[Robot], str]) -> web.Response:
    robot = request.app.get(ROBOT)
    if robot is None:
        message = "this server runs without a robot: it has no chunk loop to stop or resume"
        return response(problem(409, "no-robot", message, fresh_id()))
    log.warning("%s requested over HTTP from %s", request.path[1:], requester(request))
    try:
        # not on the clerk's thread: a stop does not queue behind /metrics
        message = await asyncio.get_running_loop().run_in_executor(None, act, robot)
    except ReflexError as error:
        return response(problem(409, "not-active", str(error), fresh_id()))
    return response(Reply(200, orjson.dumps({done: True, "message": message})))


# what programs use too; the page and its events are no part of the API
OPERATIONS = (Operation("POST", "/stop", post_stop), Operation("POST", "/resume", post_resume))
