# SPDX-License-Identifier: Apache-2.0
"""Routes and handlers. The event loop moves bytes; all work on them is one hop to a worker thread."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp import HttpVersion10, HttpVersion11, web
from prometheus_client import CONTENT_TYPE_LATEST

from reflex_core.engine.engine import Engine
from reflex_core.engine.serving_state import Loaded
from reflex_core.errors import InferenceError, NotReadyError, ObservationError, ReflexError
from reflex_core.robot.callers import caller_from
from reflex_core.robot.intake import MISSING_INSTRUCTION
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.sidecar import act_request
from reflex_ros.sidecar.ab_routes import LARGEST_BODY, change_policies, policies, report_outcome
from reflex_ros.sidecar.act_reply import (
    Reply,
    chunk_reply,
    config,
    fresh_id,
    health,
    problem,
    problem_of,
    response,
)
from reflex_ros.sidecar.auth import authorised, is_loopback
from reflex_ros.sidecar.bodies import (
    MOST_BYTES,
    Body,
    BodyMemory,
    make_room_for_values,
    read_body,
    unpacked,
    worked,
)
from reflex_ros.sidecar.connections import Connection, StalledError
from reflex_ros.sidecar.csrf import refusal
from reflex_ros.sidecar.operator_routes import breaker_reset, guard_reset, guard_status
from reflex_ros.sidecar.page_routes import FILES as PAGE_FILES
from reflex_ros.sidecar.page_routes import add_page
from reflex_ros.sidecar.robot_access import Robot
from reflex_ros.sidecar.trace_context import NO_PARENT, TraceContext, trace_context

WAITING_REQUESTS = 64
OPEN_PATHS = ("/health", "/metrics", *PAGE_FILES)  # they hold no data
HOP_HEADER = "X-Reflex-Hop"  # another server asks because its own policy failed

log = logging.getLogger(__name__)
_failures = RateLimitedLog(log)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Waiting:
    """Requests on /act, and those of them that are whole and not answered. Touched by the event loop only."""

    active: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Door:
    """How a request came in. peer: the address it came from; session: of its connection, where the wire has one.

    reserved: a `robot_id` that it may not bring: the robot's of this process. packed: its Content-Encoding.
    most_bytes: of the body, unpacked.
    """

    peer: str | None = None
    session: str | None = None
    reserved: str = ""
    packed: str = ""
    most_bytes: int = MOST_BYTES


NO_DOOR = Door()
ENGINE = web.AppKey("engine", Engine)
ROBOT: web.AppKey[Robot | None] = web.AppKey("robot")
RESERVED = web.AppKey("reserved", str)
API_KEY = web.AppKey("api_key", bytes)
ALONE = web.AppKey("alone", bool)  # only this machine can ask
WAITING = web.AppKey("waiting", Waiting)
MEMORY = web.AppKey("memory", BodyMemory)
WORKERS = web.AppKey("workers", ThreadPoolExecutor)
CLERK = web.AppKey("clerk", ThreadPoolExecutor)


def make_app(
    engine: Engine, api_key: bytes | None, robot: Robot | None = None, body_bytes: int = MOST_BYTES
) -> web.Application:
    """The application; its worker threads live as long as it does. body_bytes: for all requests together."""
    app = web.Application(middlewares=[_failurein_json])
    app[ENGINE] = engine
    app[WAITING] = Waiting()
    app[MEMORY] = BodyMemory(body_bytes)
    app[ALONE] = is_loopback(engine.settings.host)
    app[ROBOT] = robot
    app[RESERVED] = engine.settings.robot_id if robot is not None else ""
    if api_key is not None:
        app[API_KEY] = api_key
    app.cleanup_ctx.append(_threads)
    app.router.add_post("/act", act)
    app.router.add_get("/guard/status", get_guard_status)
    app.router.add_post("/guard/reset", post_guard_reset)
    app.router.add_post("/breaker/reset", post_breaker_reset)
    app.router.add_get("/policies", get_policies)
    app.router.add_post("/policies", post_policies)
    app.router.add_post("/episodes/{episode_id:.+}/outcome", post_outcome)
    app.router.add_get("/health", get_health)
    app.router.add_get("/config", get_config)
    app.router.add_get("/metrics", get_metrics)
    add_page(app, engine, robot, has_key=api_key is not None, alone=app[ALONE])
    return app


async def _threads(app: web.Application) -> AsyncIterator[None]:
    app[WORKERS] = ThreadPoolExecutor(app[ENGINE].settings.http_threads, "reflex-act")
    app[CLERK] = ThreadPoolExecutor(1, "reflex-clerk")  # /metrics does not queue behind inference
    yield
    for pool in (app[WORKERS], app[CLERK]):
        pool.shutdown(wait=False, cancel_futures=True)


@web.middleware
async def _failurein_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Who may ask, and every failure as JSON."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        return await _answered(request, handler)
    connection.begin(request)
    try:
        found = await _answered(request, handler)
        if connection.half_closed:
            found.force_close()
        return found
    finally:
        connection.end()


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        if request.version not in (HttpVersion10, HttpVersion11):
            return _refused(request, 400, "not-http", "this server speaks HTTP/1.1")
        if not _one_host(request):
            return _refused(request, 400, "bad-host", "a request must name one Host")
        known = request.match_info.http_exception is None
        refused = _shut_out(request) if known and request.path not in OPEN_PATHS else None
        return refused if refused is not None else await handler(request)
    except ConnectionError:
        raise  # the client has gone, and nobody is there to be answered
    except StalledError as error:
        stalled = _refused(request, error.status, error.slug, str(error))
        stalled.force_close()
        return stalled
    except act_request.BodyError as error:
        return _refused(request, error.status, error.slug, str(error))
    except web.HTTPException as error:
        slug = {404: "not-found", 405: "method-not-allowed", 408: "request-timeout"}.get(
            error.status, "http-error"
        )
        failure = _refused(request, error.status, slug, error.reason)
        if "Allow" in error.headers:
            failure.headers["Allow"] = error.headers["Allow"]
        return failure
    except Exception as error:
        kind = f"handler {type(error).__name__}"
        _failures(logging.ERROR, kind, "%s %.200r failed", request.method, request.path, error=error)
        return _refused(request, 500, "internal-error", "the server failed on this request; its log says why")


def _one_host(request: web.Request) -> bool:
    hosts = request.headers.getall("Host", [])
    if not hosts:
        return request.version < HttpVersion11
    return len(hosts) == 1 and hosts[0].isprintable() and " " not in hosts[0]


def _shut_out(request: web.Request) -> web.Response | None:
    """The refusal of who lacks the key, or, where there is none, of what the browser cannot vouch for."""
    key = request.app.get(API_KEY)
    if key is not None:
        if authorised(request.headers, key):
            return None
        return _refused(request, 401, "unauthorized", "this needs the API key: Authorization: Bearer <key>")
    found = refusal(request.method, request.path, request.headers, alone=request.app[ALONE])
    return _refused(request, 403, *found) if found is not None else None


def _refused(request: web.Request, status: int, slug: str, message: str) -> web.Response:
    request.app[ENGINE].metrics.errors.labels(slug).inc()
    return response(problem(status, slug, message, fresh_id()))


async def act(request: web.Request) -> web.Response:
    """POST /act: one observation in, one action chunk out."""
    received_ns = time.monotonic_ns()
    engine, waiting = request.app[ENGINE], request.app[WAITING]
    loaded = engine.loaded
    if loaded is None:
        return response(problem_of(NotReadyError(engine.state), fresh_id()))
    most = engine.settings.max_concurrent
    if most and waiting.active >= most:
        return _too_many(request, waiting.active, most)
    waiting.active += 1
    try:
        return await _act(request, engine, loaded, received_ns)
    finally:
        waiting.active -= 1


def _too_many(request: web.Request, active: int, most: int) -> web.Response:
    request.app[ENGINE].metrics.errors.labels("too_many_requests").inc()
    message = f"{active} requests are being served and {most} may be; try again"
    numbers = {"concurrent_requests": active, "max_concurrent": most}
    return response(problem(429, "too_many_requests", message, fresh_id(), **numbers))


async def _act(request: web.Request, engine: Engine, loaded: Loaded, received_ns: int) -> web.Response:
    waiting, memory = request.app[WAITING], request.app[MEMORY]
    limit = act_request.largest_body(len(act_request.cameras_of(loaded)), engine.settings.max_pixels)
    with memory.body(request.content) as room:
        await read_body(request, room, limit)
        if waiting.requests >= WAITING_REQUESTS:
            return _refused(request, 503, "queue_full", f"{waiting.requests} requests are waiting; try again")
        waiting.requests += 1
        try:
            forwarded = HOP_HEADER in request.headers
            packed = request.headers.get("Content-Encoding", "")
            door = Door(request.remote, reserved=request.app[RESERVED], packed=packed, most_bytes=limit)
            parent = trace_context(request.headers)
            workers = request.app[WORKERS]
            return response(
                await worked(workers, room, answer, engine, room, received_ns, forwarded, parent, door)
            )
        finally:
            waiting.requests -= 1


def answer(
    engine: Engine,
    body: Body,
    received_ns: int,
    forwarded: bool = False,
    parent: TraceContext = NO_PARENT,
    door: Door = NO_DOOR,
) -> Reply:
    """The whole of /act but the socket; runs in a worker thread and never raises."""
    request_id = ""
    inside = False
    fields: tuple[str, ...] = ()
    try:
        loaded = engine.loaded
        if loaded is None:
            raise NotReadyError(engine.state)
        document = _document(body, door)
        fields = tuple(document)
        request_id = act_request.request_id(document) or ""
        asked = act_request.read(
            document, act_request.cameras_of(loaded), engine.settings.max_pixels, door.reserved
        )
        del document  # its text is as large as the pictures, and may wait long for the policy
        _keep(body, asked)
        request = engine.request(
            asked.observation,
            received_ns=received_ns,
            episode_id=asked.episode_id,
            request_id=asked.request_id,
            seed=asked.seed,
            forwarded=forwarded,
            elapsed_rows=asked.elapsed_rows,
            previous_request_id=asked.previous_request_id,
            traceparent=parent.traceparent,
            tracestate=parent.tracestate,
            caller=caller_from(asked.robot_id, door.session, asked.episode_id, door.peer),
        )
        request_id, inside = request.request_id, True
        served = engine.act(request)
        frames = request.observation.frames
        return chunk_reply(served, loaded, engine.settings.robot_id, request.caller, frames, asked.unread)
    except (ObservationError, NotReadyError) as error:
        if not inside:  # the engine counts what it refuses itself
            engine.metrics.errors.labels(error.slug).inc()
        if error.slug == MISSING_INSTRUCTION:
            error = ObservationError(f"{error}{act_request.misnamed_instruction(fields)}", error.slug)
        return problem_of(error, request_id or fresh_id())
    except StalledError as error:
        engine.metrics.errors.labels(error.slug).inc()
        return problem(error.status, error.slug, str(error), fresh_id())
    except Exception as error:
        told = isinstance(error, InferenceError) and error.slug != InferenceError.slug
        kind = error.slug if isinstance(error, ReflexError) else type(error).__name__
        _failures(
            logging.ERROR, kind, "request %.200r failed: %s", request_id, error, error=None if told else error
        )
        if not inside:
            engine.metrics.errors.labels("internal-error").inc()
        return problem_of(error, request_id or fresh_id())


def _document(body: Body, door: Door) -> act_request.Document:
    """The JSON of a body, whose bytes are gone with this."""
    data = unpacked(body, door.packed, door.most_bytes)
    make_room_for_values(body, data)
    return act_request.document(data)


def _keep(body: Body, asked: act_request.Asked) -> None:
    """Give back the room of everything but the pictures."""
    kept = sum(len(frame.data) for frame in asked.observation.frames.values())
    body.memory.free(body, max(body.size - kept, 0))


async def get_health(request: web.Request) -> web.Response:
    """GET /health: 200 only while a policy is ready."""
    return response(health(request.app[ENGINE]))


async def get_config(request: web.Request) -> web.Response:
    """GET /config: the export's reflex_config.json and what is effectively served."""
    return response(await _on_clerk(request, config))


async def get_metrics(request: web.Request) -> web.Response:
    """GET /metrics: Prometheus text."""
    loop = asyncio.get_running_loop()
    text = await loop.run_in_executor(request.app[CLERK], request.app[ENGINE].metrics.exposition)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def get_guard_status(request: web.Request) -> web.Response:
    """GET /guard/status: is the guard tripped, and how near is it?"""
    return response(await _on_clerk(request, guard_status))


async def post_guard_reset(request: web.Request) -> web.Response:
    """POST /guard/reset: take a caller whose guard is tripped back into service."""
    body = await _small_body(request)
    robot = request.app[ROBOT]
    return response(await _on_clerk(request, lambda engine: guard_reset(engine, body, robot)))


async def post_breaker_reset(request: web.Request) -> web.Response:
    """POST /breaker/reset: close the circuit breaker without waiting for its cooldown."""
    return response(await _on_clerk(request, breaker_reset))


async def get_policies(request: web.Request) -> web.Response:
    """GET /policies: every slot, the split, and what was changed."""
    return response(await _on_clerk(request, policies))


async def post_policies(request: web.Request) -> web.Response:
    """POST /policies: change the split, promote a slot, or roll the last change back."""
    body = await _small_body(request)
    return response(await _on_clerk(request, lambda engine: change_policies(engine, body)))


async def post_outcome(request: web.Request) -> web.Response:
    """POST /episodes/<id>/outcome: how an episode ended."""
    body, episode_id = await _small_body(request), request.match_info["episode_id"]
    return response(await _on_clerk(request, lambda engine: report_outcome(engine, episode_id, body)))


async def _small_body(request: web.Request) -> bytes:
    packed = request.headers.get("Content-Encoding", "")
    with request.app[MEMORY].body(request.content) as room:
        await read_body(request, room, LARGEST_BODY)
        return bytes(await worked(request.app[CLERK], room, unpacked, room, packed, LARGEST_BODY))


async def _on_clerk(request: web.Request, work: Callable[[Engine], Reply]) -> Reply:
    """Work that takes locks or writes a log stays off the event loop."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(request.app[CLERK], work, request.app[ENGINE])
