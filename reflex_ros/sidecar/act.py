# SPDX-License-Identifier: Apache-2.0
"""Turn the bytes of a request into the bytes of its answer, for every wire; no sockets here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from reflex_core.engine.engine import DEGRADED, READY, Engine
from reflex_core.engine.serving_state import ServingState
from reflex_core.errors import InferenceError, NotReadyError, ObservationError, ReflexError
from reflex_core.robot.callers import caller_from, require_robot_id
from reflex_core.robot.intake import MISSING_INSTRUCTION
from reflex_core.settings.wire_keys import key_map
from reflex_core.slots.routing_headers import routing_headers
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.text.untrusted import shown
from reflex_core.values import NOTHING, Request, Served
from reflex_ros.sidecar.bodies import MOST_BYTES, Body, unpacked
from reflex_ros.sidecar.connections import StalledError
from reflex_ros.sidecar.problems import BodyError, Problem, fresh_id, header_safe, problem_of
from reflex_ros.sidecar.replies import Reply
from reflex_ros.sidecar.sessions import episode_for
from reflex_ros.sidecar.trace_context import NO_PARENT, TraceContext
from reflex_ros.sidecar.wires.fields import misnamed_instruction
from reflex_ros.sidecar.wires.wire import Answered, DecodedRequest, DirectReply, Observed, Readable, Wire

TEXT_TYPE = "text/plain"
REFUSED = "refused"  # the outcome in the metrics
# refusals that may mean that a key was not recognised
KEY_PROBLEMS = ("missing-image", "missing-state", "state-length", MISSING_INSTRUCTION)

log = logging.getLogger(__name__)
_failures = RateLimitedLog(log)


class OtherRobotError(BodyError):
    """The request names another robot than its key is for."""

    slug = "other-robot"
    status = 403


@dataclass(frozen=True, slots=True)
class Call:
    """Connection and headers of a request.

    received_ns: on the monotonic clock. peer: the address it came from; session: of its connection, where the wire has one.
    routed_by: its session header, by which a balancer selected this server; of a connection, `session` has it already.
    useful_until_ns: when its client has no more use for an answer, monotonic; None where it does not say.
    reserved: a `robot_id` that it may not bring: the robot's of this process. packed: its Content-Encoding. most_bytes: of
    the body, unpacked. forwarded: sent by another server because its own policy failed. parent: the caller's span.
    options: of the URL's query. robot_id: that its key is for, "" for a key of no robot.
    """

    received_ns: int
    peer: str | None = None
    session: str | None = None
    reserved: str = ""
    packed: str = ""
    most_bytes: int = MOST_BYTES
    forwarded: bool = False
    parent: TraceContext = NO_PARENT
    options: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    robot_id: str = ""
    routed_by: str = ""
    useful_until_ns: int | None = None


def cameras_of(loaded: ServingState) -> tuple[str, ...]:
    """Return the robot's cameras in its own order: `image` is the first, `image_wrist` the second."""
    if loaded.embodiment is not None:
        return tuple(camera.name for camera in loaded.embodiment.cameras)
    return tuple(dict.fromkeys(loaded.policy.binding.cameras.values()))


def largest_body(loaded: ServingState, max_pixels: int) -> int:
    """Return the largest body to accept, in bytes: every camera of every observation as raw RGB in base64, 1 MiB for the rest."""
    return max(len(cameras_of(loaded)), 1) * loaded.observation_steps * max_pixels * 4 + (1 << 20)


def answer(engine: Engine, wire: Wire, body: Body, call: Call) -> Reply:
    """Return the reply to one request; runs in a worker thread and never raises.

    The body is unpacked, decoded by the wire, answered by the engine and encoded by the wire; what goes wrong on the way is
    counted, logged if it is a fault of this server, and reported in the form of the wire.
    """
    decoded: DecodedRequest | None = None
    request: Request | None = None
    try:
        loaded = engine.loaded
        if loaded is None:
            raise NotReadyError(engine.state)
        found = _decoded(wire, body, call, readable_by(engine, loaded, body, call))
        if isinstance(found, DirectReply):
            return _direct(engine, loaded, wire, found, call.robot_id or found.key_robot_id)
        decoded = found
        request = _request(engine, wire, decoded, call)
        if decoded.observe_only:
            return _observed(engine, loaded, wire, decoded, request)
        served = engine.act(request)
        answered = Answered(
            served,
            loaded,
            engine.settings.robot_id,
            request.caller,
            request.observation.frames,
            decoded.ignored,
            decoded.form,
            decoded.keys,
            decoded.shares,
        )
        return Reply(200, wire.encode(answered), headers_of(served), wire.content_type)
    except Exception as error:
        if request is None:  # what the engine refuses, it counts itself
            engine.metrics.wire_requests.labels(wire.name, REFUSED).inc()
        return refused(wire, problem_from(engine, error, decoded, request))


def _direct(engine: Engine, loaded: ServingState, wire: Wire, found: DirectReply, robot: str) -> Reply:
    """Return what the wire answers itself; an episode's begin or end is reported first. robot: that the key is for."""
    if found.begins:
        loaded.begins(found.begins, robot)
    if found.outcome is not None:
        engine.report_outcome(found.outcome.episode_id, found.outcome.success, robot_id=robot)
    return Reply(200, found.body, {}, TEXT_TYPE if found.text else wire.content_type)


def _observed(
    engine: Engine, loaded: ServingState, wire: Wire, decoded: DecodedRequest, request: Request
) -> Reply:
    """Return the reply to an observation that is kept for the next ones of its episode."""
    kept = engine.observe(request)
    observed = Observed(
        request.request_id, request.episode_id, loaded.observation_steps, kept, decoded.ignored
    )
    headers = {"X-Request-Id": header_safe(request.request_id)}
    return Reply(200, wire.observed(observed), headers, wire.content_type)


def refused(wire: Wire, problem: Problem) -> Reply:
    """Return a problem in the wire's form."""
    return Reply(problem.status, wire.problem(problem), problem.headers(), wire.content_type)


def headers_of(served: Served) -> dict[str, str]:
    """Return the headers of an answer."""
    return {"X-Request-Id": header_safe(served.request_id), **routing_headers(served)}


def readable_by(engine: Engine, loaded: ServingState, body: Body, call: Call) -> Readable:
    """Return the limits and names that decoding a request to this engine needs."""
    reserve = partial(body.memory.reserve_beyond, body)
    binding = loaded.policy.binding
    return Readable(
        cameras_of(loaded),
        engine.settings.max_pixels,
        call.reserved,
        reserve,
        loaded.observation_steps,
        binding.state_dim,
        key_map(engine.settings.wire_keys),
        call.options,
        loaded if engine.state in (READY, DEGRADED) else None,
        binding.grippers,
    )


def _decoded(wire: Wire, body: Body, call: Call, readable: Readable) -> DecodedRequest | DirectReply:
    """Decode a body and free its bytes; only the memory of its images stays reserved."""
    decoded = wire.decode(unpacked(body, call.packed, call.most_bytes), readable)
    kept = 0 if isinstance(decoded, DirectReply) else decoded.observation.image_bytes
    body.memory.free(body, max(body.size - kept, 0))
    return decoded


def _robot_id(decoded: DecodedRequest, call: Call) -> str | None:
    """Return the robot that sends a request: its key's, else the one that it names. Raises OtherRobotError, ObservationError."""
    own = call.robot_id or decoded.key_robot_id
    if not own:
        return decoded.robot_id
    require_robot_id(own, call.reserved)
    if decoded.robot_id and decoded.robot_id != own:
        raise OtherRobotError(
            f"this key is for the robot {own!r}, and the request names {shown(decoded.robot_id)}: leave 'robot_id' out"
        )
    return own


def _request(engine: Engine, wire: Wire, decoded: DecodedRequest, call: Call) -> Request:
    episode_id = episode_for(decoded.episode_id, call.routed_by)
    return engine.request(
        decoded.observation,
        received_ns=call.received_ns,
        episode_id=episode_id,
        request_id=decoded.request_id,
        seed=decoded.seed,
        forwarded=call.forwarded,
        elapsed_rows=decoded.elapsed_rows,
        previous_request_id=decoded.previous_request_id,
        traceparent=call.parent.traceparent,
        tracestate=call.parent.tracestate,
        caller=caller_from(_robot_id(decoded, call), call.session, episode_id, call.peer),
        wire=decoded.wire or wire.name,
        useful_until_ns=call.useful_until_ns,
    )


def problem_from(
    engine: Engine, error: Exception, decoded: DecodedRequest | None, request: Request | None
) -> Problem:
    """Return the problem of an error, counted and logged; the engine counts what it refuses itself."""
    inside = request is not None
    if isinstance(error, StalledError):
        engine.metrics.errors.labels(error.slug).inc()
        return Problem(error.status, error.slug, str(error), fresh_id())
    request_id = _request_id(error, decoded, request)
    if isinstance(error, ObservationError | NotReadyError):
        if not inside:
            engine.metrics.errors.labels(error.slug).inc()
        if error.slug == MISSING_INSTRUCTION and decoded is not None:
            error = ObservationError(f"{error}{misnamed_instruction(decoded.names)}", error.slug)
        if error.slug in KEY_PROBLEMS and decoded is not None and decoded.received:
            error = ObservationError(
                f"{error} (received {decoded.received}; 'wire_keys' says which is what)", error.slug
            )
        return problem_of(error, request_id or fresh_id())
    explained = isinstance(error, InferenceError) and error.slug != InferenceError.slug
    kind = error.slug if isinstance(error, ReflexError) else type(error).__name__
    _failures(
        logging.ERROR,
        kind,
        "request %.200r failed: %s",
        request_id,
        error,
        error=None if explained else error,
    )
    if not inside:
        engine.metrics.errors.labels("internal-error").inc()
    return problem_of(error, request_id or fresh_id())


def _request_id(error: Exception, decoded: DecodedRequest | None, request: Request | None) -> str:
    if request is not None:
        return request.request_id
    if decoded is not None:
        return decoded.request_id or ""
    return error.request_id if isinstance(error, ObservationError) else ""
