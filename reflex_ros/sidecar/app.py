# SPDX-License-Identifier: Apache-2.0
"""Routes and handlers. The event loop moves bytes; all work on them is one hop to a worker thread."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import orjson
from aiohttp import HttpVersion10, HttpVersion11, web
from prometheus_client import CONTENT_TYPE_LATEST

from reflex_core.engine.engine import READY, Engine
from reflex_core.engine.serving_state import ServingState
from reflex_core.errors import NotReadyError
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.sidecar.ab_routes import (
    ACTIONS,
    CHANGE,
    LARGEST_BODY,
    OUTCOME,
    change_policies,
    policies,
    report_outcome,
)
from reflex_ros.sidecar.access import Keyring, own_robot
from reflex_ros.sidecar.act import Call, answer, largest_body, refused
from reflex_ros.sidecar.addresses import HOP_HEADER
from reflex_ros.sidecar.admission import (
    ALONE,
    ASSIGNER,
    CLERK,
    ENGINE,
    FAIR,
    KEYRING,
    MEMORY,
    RESERVED,
    ROBOT,
    WAITING,
    WORKERS,
    Waiting,
    access_of,
    deadline_of,
    in_turn,
    line_of,
    refusal_of,
    requester,
    too_many,
)
from reflex_ros.sidecar.assignment_routes import EPISODE, INSTRUCTION, begin_episode, instruct
from reflex_ros.sidecar.auth import is_loopback
from reflex_ros.sidecar.bodies import MOST_BYTES, BodyMemory, read_body, unpacked, worked
from reflex_ros.sidecar.connections import Connection, StalledError
from reflex_ros.sidecar.fair_queue import FairQueue
from reflex_ros.sidecar.fleet_routes import OPERATIONS as FLEET_OPERATIONS
from reflex_ros.sidecar.gate import NO_KEY, shut_out
from reflex_ros.sidecar.health import brief_health, config, health
from reflex_ros.sidecar.history_routes import OPERATIONS as HISTORY_OPERATIONS
from reflex_ros.sidecar.history_routes import add_history
from reflex_ros.sidecar.key_file import ACT, READ
from reflex_ros.sidecar.openapi import PATH as OPENAPI_PATH
from reflex_ros.sidecar.openapi import Handler, Operation, add_operations, document
from reflex_ros.sidecar.operator_routes import RESET, breaker_reset, guard_reset, guard_status
from reflex_ros.sidecar.page_routes import FILES as PAGE_FILES
from reflex_ros.sidecar.page_routes import OPERATIONS as PAGE_OPERATIONS
from reflex_ros.sidecar.page_routes import add_page
from reflex_ros.sidecar.problems import BodyError, Problem, fresh_id, problem_of
from reflex_ros.sidecar.replies import JSON_TYPE, Reply, problem, response
from reflex_ros.sidecar.robot_access import Robot
from reflex_ros.sidecar.sessions import echo, require_same, session_of
from reflex_ros.sidecar.trace_context import trace_context
from reflex_ros.sidecar.websockets import add_sockets, is_upgrade, serve_socket
from reflex_ros.sidecar.wires.schema import OBJECT
from reflex_ros.sidecar.wires.table import ROUTES, WIRES, wire_for
from reflex_ros.sidecar.wires.wire import Wire
from reflex_ros.sidecar.worker_threads import WorkerThreads

OPEN_PATHS = ("/health", "/healthz", "/metrics", OPENAPI_PATH, *PAGE_FILES)  # they hold no data

log = logging.getLogger(__name__)
_failures = RateLimitedLog(log)


ASSIGN_TURN_S = 0.9  # with what the node may take, 3 s, no longer than a page waits

OPENAPI = web.AppKey("openapi", bytes)
ASSIGN_TURN = web.AppKey("assign_turn", asyncio.Lock)


def make_app(
    engine: Engine, keyring: Keyring, robot: Robot | None = None, body_bytes: int = MOST_BYTES
) -> web.Application:
    """Return the application; its worker threads live as long as it does. body_bytes: for all requests together."""
    app = web.Application(middlewares=[_failurein_json])
    app[ENGINE] = engine
    app[WAITING] = Waiting()
    app[MEMORY] = BodyMemory(body_bytes)
    settings, errors = engine.settings, engine.metrics.errors
    app[FAIR] = FairQueue(
        settings.http_threads,
        lambda: engine.settings.max_waiting_per_robot,
        lambda slug: errors.labels(slug).inc(),
    )
    app[ALONE] = is_loopback(engine.settings.host)
    app[ROBOT], app[ASSIGN_TURN] = robot, asyncio.Lock()
    app[RESERVED] = engine.settings.robot_id if robot is not None else ""
    app[KEYRING] = keyring
    app.cleanup_ctx.append(_threads)
    for route in ROUTES:
        app.router.add_post(route, act)
    add_operations(app, OPERATIONS)
    add_operations(app, HISTORY_OPERATIONS)
    add_operations(app, FLEET_OPERATIONS)
    add_history(app, engine)
    described = document(
        (*OPERATIONS, *HISTORY_OPERATIONS, *FLEET_OPERATIONS, *PAGE_OPERATIONS),
        WIRES,
        open_paths=OPEN_PATHS,
        has_key=keyring.required,
    )
    app[OPENAPI] = orjson.dumps(described)
    add_sockets(app)
    add_page(app, engine, robot, has_key=keyring.required, alone=app[ALONE])
    return app


async def _threads(app: web.Application) -> AsyncIterator[None]:
    settings = app[ENGINE].settings
    if settings.max_batch > settings.http_threads:
        log.warning(
            "max_batch is %d, but http_threads is %d: so many requests are at the policy at a time, and no batch is larger; raise"
            " http_threads",
            settings.max_batch, settings.http_threads,
        )  # fmt: skip
    app[WORKERS] = WorkerThreads(app[ENGINE].settings.http_threads, "reflex-act")
    app[CLERK] = WorkerThreads(1, "reflex-clerk")  # /metrics does not queue behind inference
    app[ASSIGNER] = ThreadPoolExecutor(1, "reflex-assign")  # it waits for the node: no stop queues behind it
    yield
    app[WORKERS].shutdown()
    app[CLERK].shutdown()
    app[ASSIGNER].shutdown(wait=False, cancel_futures=True)


@web.middleware
async def _failurein_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse unauthorised requests, and report every failure as JSON."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        return await _answered(request, handler)
    connection.begin(request)
    try:
        found = await _answered(request, handler)
        if connection.half_closed or request.app[WAITING].draining:
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
        upgrade = is_upgrade(request)
        barred = shut_out(request, OPEN_PATHS, upgrade=upgrade) if known else None
        if barred is not None:
            return response(refused(_wire(request), barred))
        return await serve_socket(request) if upgrade else await handler(request)
    except ConnectionError:
        raise  # the client has gone: there is no one to answer
    except StalledError as error:
        stalled = _refused(request, error.status, error.slug, str(error))
        stalled.force_close()
        return stalled
    except BodyError as error:
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


def _refused(request: web.Request, status: int, slug: str, message: str) -> web.Response:
    return response(refused(_wire(request), refusal_of(request.app, status, slug, message)))


def _wire(request: web.Request) -> Wire:
    return wire_for(request.path, request.headers.get("Content-Type", ""))


async def act(request: web.Request) -> web.Response:
    """POST /act, and to every other wire's route: one observation in, one action chunk out."""
    session = session_of(request.headers)
    found = await _admitted(request, session)
    found.headers.update(echo(session))
    return found


async def _admitted(request: web.Request, session: str) -> web.Response:
    received_ns = time.monotonic_ns()
    engine, waiting = request.app[ENGINE], request.app[WAITING]
    loaded = engine.loaded
    if loaded is None:
        return response(refused(_wire(request), problem_of(NotReadyError(engine.state), fresh_id())))
    if (problem := too_many(request.app)) is not None:
        return response(refused(_wire(request), problem))
    waiting.active += 1
    try:
        return await _act(request, engine, loaded, received_ns, session)
    finally:
        waiting.active -= 1


async def _act(
    request: web.Request, engine: Engine, loaded: ServingState, received_ns: int, session: str
) -> web.Response:
    waiting, memory = request.app[WAITING], request.app[MEMORY]
    limit = largest_body(loaded, engine.settings.max_pixels)
    with memory.body(request.content) as room:
        await read_body(request, room, limit)
        deadline_s = deadline_of(request, received_ns)
        access = access_of(request)
        if not access.may((ACT,)):  # revoked while the body was on its way
            return _refused(request, 401, "unauthorized", NO_KEY)
        waiting.requests += 1
        try:
            call = Call(
                received_ns,
                request.remote,
                reserved=request.app[RESERVED],
                packed=request.headers.get("Content-Encoding", ""),
                most_bytes=limit,
                forwarded=HOP_HEADER in request.headers,
                parent=trace_context(request.headers),
                options=dict(request.query),
                robot_id=access.robot_id,
                routed_by=session,
                useful_until_ns=None if deadline_s == math.inf else int(deadline_s * 1e9),
            )
            line, wire = line_of(request, access), _wire(request)
            made = await in_turn(request.app, room, line, deadline_s, answer, engine, wire, room, call)
            return response(refused(wire, made) if isinstance(made, Problem) else made)
        finally:
            waiting.requests -= 1


async def get_health(request: web.Request) -> web.Response:
    """GET /health: 200 only while a policy is ready and the server is not about to end."""
    engine, draining = request.app[ENGINE], request.app[WAITING].draining
    # what balances the load has no key: it reads the status alone
    brief = request.app[KEYRING].has_file and not access_of(request).may((READ,))
    return response(brief_health(engine, draining=draining) if brief else health(engine, draining=draining))


async def get_healthz(request: web.Request) -> web.Response:
    """GET /healthz: OK while a policy is ready, for probes made for openpi."""
    if request.app[WAITING].draining:
        return web.Response(text="draining\n", status=503)
    ready = request.app[ENGINE].state == READY
    return web.Response(text="OK\n" if ready else "not ready\n", status=200 if ready else 503)


async def get_config(request: web.Request) -> web.Response:
    """GET /config: the export's reflex_config.json and what is effectively served."""
    return response(await _on_clerk(request, config))


async def get_metrics(request: web.Request) -> web.Response:
    """GET /metrics: Prometheus text."""
    text = await request.app[CLERK].run(request.app[ENGINE].metrics.exposition)
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
    session = session_of(request.headers)
    body, episode_id = await _small_body(request), request.match_info["episode_id"]
    require_same(episode_id, session)
    report = partial(report_outcome, episode_id=episode_id, body=body, robot_id=own_robot(access_of(request)))
    return response(await _on_clerk(request, report))


async def post_instruction(request: web.Request) -> web.Response:
    """POST /instruction: give the robot of this process another instruction."""
    return await _assign(request, instruct)


async def post_episode(request: web.Request) -> web.Response:
    """POST /episodes: begin an episode of the robot of this process."""
    return await _assign(request, begin_episode)


async def _assign(
    request: web.Request, work: Callable[[Robot | None, bytes, str | None], Reply]
) -> web.Response:
    """Run work that waits for the node in a thread of its own, one at a time.

    One whose turn does not come soon is refused: its caller would have given up by the time it is done.
    """
    body, robot, turn = await _small_body(request), request.app[ROBOT], request.app[ASSIGN_TURN]
    try:
        await asyncio.wait_for(turn.acquire(), ASSIGN_TURN_S)
    except asyncio.TimeoutError:
        message = "the node is still busy with another instruction or episode: try again"
        return response(problem(503, "not-answered", message, fresh_id(), 1.0))
    try:
        loop = asyncio.get_running_loop()
        return response(
            await loop.run_in_executor(request.app[ASSIGNER], work, robot, body, requester(request))
        )
    finally:
        turn.release()


async def _small_body(request: web.Request) -> bytes:
    packed = request.headers.get("Content-Encoding", "")
    with request.app[MEMORY].body(request.content) as room:
        await read_body(request, room, LARGEST_BODY)
        return bytes(await worked(request.app[CLERK], room, unpacked, room, packed, LARGEST_BODY))


async def _on_clerk(request: web.Request, work: Callable[[Engine], Reply]) -> Reply:
    """Run work that takes locks or writes a log in a worker thread, off the event loop."""
    found: Reply = await request.app[CLERK].run(partial(work, request.app[ENGINE]))
    return found


async def get_openapi(request: web.Request) -> web.Response:
    """GET /openapi.json: this document."""
    return web.Response(body=request.app[OPENAPI], content_type=JSON_TYPE)


# fmt: off
OPERATIONS = (
    Operation("GET", "/guard/status", get_guard_status),
    Operation("POST", "/guard/reset", post_guard_reset, RESET),
    Operation("POST", "/breaker/reset", post_breaker_reset),
    Operation("GET", "/policies", get_policies),
    Operation("POST", "/policies", post_policies, CHANGE, one_of=tuple(ACTIONS)),
    Operation("POST", "/episodes/{episode_id:.+}/outcome", post_outcome, OUTCOME, ("success",)),
    Operation("POST", "/instruction", post_instruction, INSTRUCTION, ("instruction",)),
    Operation("POST", "/episodes", post_episode, EPISODE),
    Operation("GET", "/health", get_health, replies={200: OBJECT, 503: OBJECT}),
    Operation("GET", "/healthz", get_healthz, text=True),
    Operation("GET", "/config", get_config),
    Operation("GET", "/metrics", get_metrics, text=True),
    Operation("GET", OPENAPI_PATH, get_openapi),
)
# fmt: on
