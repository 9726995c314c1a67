# SPDX-License-Identifier: Apache-2.0
"""~/get_action_chunk: one checked chunk for a program that plays it itself. Nothing here commands the robot.

The request goes the way of POST /act: the same checks, the same engine call, the same sentences.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message

from reflex_core.concurrency.lru import Lru
from reflex_core.engine.engine import Engine
from reflex_core.engine.serving_state import ServingState
from reflex_core.errors import NotReadyError, ObservationError
from reflex_core.robot.callers import caller_from
from reflex_core.robot.groups import POSITION
from reflex_core.text.untrusted import escaped
from reflex_core.values import HOLD, Frame, Observation, Request, Served
from reflex_ros.messages.chunks import chunk_message, rows_message
from reflex_ros.messages.images import frame
from reflex_ros.messages.raw import IMAGE, RawMessage
from reflex_ros.messages.stamps import stamp_ns
from reflex_ros.node.assignment import Assignment
from reflex_ros.node.observation_buffer import Gates, ObservationBuffer, RefusedObservationError, check_stamps
from reflex_ros.sidecar.act import cameras_of, problem_from
from reflex_ros.sidecar.ignored_fields import NONE_IGNORED
from reflex_ros.sidecar.wires.fields import decode_fields
from reflex_ros.sidecar.wires.wire import DecodedRequest, Readable
from reflex_ros.srv import GetActionChunk

if TYPE_CHECKING:
    from sensor_msgs.msg import JointState

    from reflex_ros.node.lifecycle import ManagedNode

SERVICE = "get_action_chunk"
MOST_UNDER_WAY = 8  # requests; each has a thread while it is answered
# of what comes at once: the usual 10 of a service drop the rest, and their callers wait for ever
QUEUE = QoSProfile(depth=64)
EPISODES_KEPT = 256
MOST_DEADLINE_MS = 60_000.0
ANY_AGE = Gates(math.inf, math.inf)  # of an observation that the caller brings whole
REPLY_MS = 1.0  # of a deadline, for what follows the answer
BUSY, NOT_NOW = "too-many-requests", 503


@dataclass(frozen=True, slots=True)
class OwnSensors:
    """What the node sees itself. buffer: None while it does not listen. now_ns: the robot's clock."""

    buffer: Callable[[], ObservationBuffer | None]
    gates: Callable[[], Gates]
    now_ns: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Seen:
    """An observation as the engine takes it, and its stamp (0: unknown).

    The engine takes a stamped observation for one of the robot that this process commands, and remembers the answer as
    commanded: that of a request has no stamp there.
    """

    observation: Observation
    stamp_ns: int
    age_ms: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The newest answer of an episode: its number in it, and the stamp of its observation."""

    number: int
    request_id: str
    stamp_ns: int


class ChunkService:
    """The service. Requests are answered in threads of their own, so that the executor goes on meanwhile."""

    def __init__(self, node: ManagedNode, engine: Engine, assignment: Assignment, own: OwnSensors) -> None:
        """Create the service; it answers as soon as a policy serves, also while the node commands no robot."""
        self._node, self._engine, self._assignment, self._own = node, engine, assignment, own
        self._lock = threading.Lock()
        self._under_way = 0
        self._episodes: Lru[str, str] = Lru(EPISODES_KEPT)  # the service's own, by the caller's name
        self._answered: Lru[str, Answered] = Lru(EPISODES_KEPT)
        self._begun = 0
        # in the usual kind of group no other callback would run while a request is being answered
        node.create_service(
            GetActionChunk, f"~/{SERVICE}", self._on_request, qos_profile=QUEUE,
            callback_group=ReentrantCallbackGroup(),
        )  # fmt: skip

    async def _on_request(
        self, message: GetActionChunk.Request, response: GetActionChunk.Response
    ) -> GetActionChunk.Response:
        received_ns = time.monotonic_ns()
        if self._under_way >= MOST_UNDER_WAY:
            return refused(response, NOT_NOW, BUSY, f"{MOST_UNDER_WAY} requests are under way; try again")
        self._under_way += 1
        try:
            return await self._node.off_executor(lambda: self._answer(message, response, received_ns))
        finally:
            self._under_way -= 1

    def _answer(
        self, message: GetActionChunk.Request, response: GetActionChunk.Response, received_ns: int
    ) -> GetActionChunk.Response:
        """Fill the response; never raises. For a thread."""
        decoded: DecodedRequest | None = None
        request: Request | None = None
        try:
            loaded = self._engine.loaded
            if loaded is None:
                raise NotReadyError(self._engine.state)
            decoded = self._decoded(message, loaded)
            seen = self._seen(decoded, message, loaded)
            episode_id = self._episode(decoded, message, loaded)
            request = self._request(decoded, seen, message, episode_id, received_ns, loaded)
            served = self._engine.act(request)
            return self._filled(response, served, request, seen, loaded)
        except Exception as error:
            problem = problem_from(self._engine, error, decoded, request)
            status = NOT_NOW if isinstance(error, RefusedObservationError) else problem.status
            return refused(response, status, problem.slug, problem.message)

    def _decoded(self, message: GetActionChunk.Request, loaded: ServingState) -> DecodedRequest:
        """Check what the request says itself, as over HTTP. Raises ObservationError."""
        settings = self._engine.settings
        readable = Readable(cameras_of(loaded), settings.max_pixels, settings.robot_id)
        fields = {
            "instruction": message.instruction or self._assignment.instruction,
            "episode_id": message.episode_id,
            "request_id": message.request_id,
            "robot_id": message.robot_id,
            "seed": None if message.seed == -1 else message.seed,
            "previous_request_id": message.previous_request_id,
            "elapsed_rows": None if message.elapsed_rows == -1.0 else message.elapsed_rows,
            "state": positions_of(message.robot_state, loaded) if message.robot_state.name else None,
        }
        if message.robot_state.position and not message.robot_state.name:
            raise ObservationError(
                "'robot_state' has positions without names; they are read by name", "bad-state"
            )
        if not 0.0 <= message.deadline_ms <= MOST_DEADLINE_MS:
            raise ObservationError(
                f"'deadline_ms' must be 0 to {MOST_DEADLINE_MS:g}, got {message.deadline_ms}",
                "bad-deadline-ms",
            )
        return decode_fields(fields, frames_of(message, readable), readable, NONE_IGNORED)

    def _seen(self, decoded: DecodedRequest, message: GetActionChunk.Request, loaded: ServingState) -> Seen:
        """Complete the observation from the node's own sensors. Raises ObservationError where that cannot be."""
        given, own = decoded.observation, self._own
        lacks_images = not given.frames and bool(loaded.policy.binding.cameras)
        lacks_state = given.state is None and loaded.needs_state
        now_ns = own.now_ns()
        if not (lacks_images or lacks_state):
            stamp = oldest_stamp_ns(message)
            if stamp:  # how old it may be is the caller's own business
                check_stamps({"what the request brings": stamp}, now_ns, ANY_AGE)
            return Seen(given, stamp, (now_ns - stamp) * 1e-6 if stamp else 0.0)
        buffer = own.buffer()
        if buffer is None:
            lacking = " and ".join(
                name for name, lacks in (("images", lacks_images), ("a state", lacks_state)) if lacks
            )
            raise ObservationError(
                f"the request has no {lacking}, and the node, which is {self._node.state}, listens to no sensors: send"
                " 'images' and 'robot_state', or activate it",
                "no-own-observation",
            )
        newest = buffer.newest(now_ns, own.gates())
        frames = newest.frames if lacks_images else given.frames
        state = newest.state if lacks_state else given.state
        alone = given.frames or given.state is not None
        history = () if alone else tuple(replace(one, stamp_ns=0, age_ms=0.0) for one in newest.history)
        observation = Observation(frames, state, given.instruction, history=history)
        stamps = {"what the node has itself": newest.stamp_ns}
        if stamp := oldest_stamp_ns(message):
            stamps["what the request brings"] = stamp
        oldest_ns = check_stamps(stamps, now_ns, own.gates())
        return Seen(observation, oldest_ns, (now_ns - oldest_ns) * 1e-6)

    def _episode(self, decoded: DecodedRequest, message: GetActionChunk.Request, loaded: ServingState) -> str:
        """Return the episode of a request: the one it names, else the caller's running one.

        Raises ObservationError for that of the node's own robot, whose next chunk would continue the caller's.
        """
        if decoded.episode_id is not None and decoded.episode_id == self._assignment.episode_id:
            raise ObservationError(
                f"'episode_id' must be another one than that of the robot which this node commands, got"
                f" '{decoded.episode_id}'",
                "reserved-episode-id",
            )
        with self._lock:
            caller = decoded.robot_id or ""
            episode_id = decoded.episode_id or self._episodes.get(caller)
            if decoded.episode_id is None and (message.new_episode or episode_id is None):
                self._begun += 1
                episode_id = f"{SERVICE}_{self._own.now_ns() // 1_000_000_000}_{self._begun}"
                self._episodes.put(caller, episode_id)
            assert episode_id is not None
            if message.new_episode:
                self._answered.pop(episode_id)
        if message.new_episode:
            loaded.begins(episode_id)
        return episode_id

    def _request(
        self, decoded: DecodedRequest, seen: Seen, message: GetActionChunk.Request, episode_id: str, received_ns: int,
        loaded: ServingState,
    ) -> Request:  # fmt: skip
        elapsed_rows, of = self._executed(decoded, seen, episode_id, loaded)
        request = self._engine.request(
            seen.observation,
            received_ns=received_ns,
            episode_id=episode_id,
            request_id=decoded.request_id,
            seed=decoded.seed,
            elapsed_rows=elapsed_rows,
            previous_request_id=of,
            caller=caller_from(decoded.robot_id, SERVICE, None, None),
        )
        if message.deadline_ms <= 0.0:
            return request
        budget_ms = max(message.deadline_ms - REPLY_MS, 0.0)
        return replace(request, deadline_ns=received_ns + int(budget_ms * 1e6))

    def _executed(
        self, decoded: DecodedRequest, seen: Seen, episode_id: str, loaded: ServingState
    ) -> tuple[float | None, str]:
        """Return how many rows are over of which answer: as the request says, else of the one before by both stamps."""
        with self._lock:
            before, dt_s = self._answered.get(episode_id), loaded.policy.binding.dt_s
        stated = decoded.elapsed_rows, decoded.previous_request_id
        if decoded.elapsed_rows is not None or before is None or dt_s <= 0.0:
            return stated
        if stated[1] not in ("", before.request_id) or not 0 < before.stamp_ns <= seen.stamp_ns:
            return stated
        return (seen.stamp_ns - before.stamp_ns) * 1e-9 / dt_s, before.request_id

    def _filled(
        self,
        response: GetActionChunk.Response,
        served: Served,
        request: Request,
        seen: Seen,
        loaded: ServingState,
    ) -> GetActionChunk.Response:
        episode_id = request.episode_id or ""
        with self._lock:
            before = self._answered.get(episode_id)
            number = 0 if before is None else before.number + 1
            self._answered.put(episode_id, Answered(number, served.request_id, seen.stamp_ns))
        held = served.chunk.source == HOLD or bool(served.hold_reason)
        response.status = (
            GetActionChunk.Response.STATUS_HOLD if held else GetActionChunk.Response.STATUS_CHUNK
        )
        response.success = not held
        response.message = f"the answer is a hold: {served.hold_reason or HOLD}" if held else ""
        columns = [
            column
            for group in loaded.policy.binding.groups
            if group.commands == POSITION
            for column in group.columns
        ]
        response.chunk = rows_message(served.chunk, sorted(columns), seen.stamp_ns)
        response.native_control_period = served.chunk.dt_s
        response.caller = request.caller
        response.rtc_mode, response.rtc_frozen_steps = served.rtc.mode, served.rtc.delay
        response.rtc_previous = served.rtc.previous
        response.masked_cameras = list(served.inference.masked_cameras)
        response.details = chunk_message(served, seen.stamp_ns, seen.age_ms, number, served.chunk.start_index)
        response.details.robot_id = self._engine.settings.robot_id
        return response


def refused(
    response: GetActionChunk.Response, status: int, slug: str, message: str
) -> GetActionChunk.Response:
    """Fill a response without a chunk. status: that of HTTP."""
    response.status = GetActionChunk.Response.STATUS_FAILED
    if status in (429, NOT_NOW):
        response.status = GetActionChunk.Response.STATUS_NOT_READY
    elif status < 500:
        response.status = GetActionChunk.Response.STATUS_REFUSED
    response.error, response.message = slug, message
    return response


def frames_of(message: GetActionChunk.Request, readable: Readable) -> dict[str, Frame]:
    """Return the images of a request by camera. Raises ObservationError for one that is damaged or of no camera."""
    if len(message.image_names) != len(message.images):
        raise ObservationError(
            f"'image_names' has {len(message.image_names)} names for {len(message.images)} images",
            "bad-image",
        )
    frames: dict[str, Frame] = {}
    for name, image in zip(message.image_names, message.images, strict=True):
        if name not in readable.cameras:
            cameras = ", ".join(readable.cameras) or "none"
            raise ObservationError(
                f"'image_names': there is no camera '{escaped(name, 40)}'; the cameras are {cameras}",
                "unknown-camera",
            )
        if name in frames:
            raise ObservationError(
                f"'image_names': camera '{name}' has two images in this request", "bad-image"
            )
        raw = RawMessage(f"images[{name}]", IMAGE, serialize_message(image), stamp_ns(image.header.stamp), 0)
        frames[name] = frame(raw, readable.max_pixels)
    return frames


def positions_of(state: JointState, loaded: ServingState) -> list[float]:
    """Return the positions of the policy's joints, in its order. Raises ObservationError where one is missing."""
    if len(state.name) != len(state.position):
        raise ObservationError(
            f"'robot_state' has {len(state.name)} names for {len(state.position)} positions", "bad-state"
        )
    binding = loaded.policy.binding
    names = binding.state_names or binding.action_names
    found = dict(zip(state.name, state.position, strict=True))
    if len(found) < len(state.name):
        twice = next(name for name, count in Counter(state.name).items() if count > 1)
        raise ObservationError(f"'robot_state' names joint '{escaped(twice, 40)}' twice", "bad-state")
    missing = [name for name in names if name not in found]
    if missing:
        seen = escaped(", ".join(sorted(found)[:32]), 400) or "none"
        raise ObservationError(f"'robot_state' lacks {', '.join(missing)}; joints in it: {seen}", "bad-state")
    return [found[name] for name in names]


def oldest_stamp_ns(message: GetActionChunk.Request) -> int:
    """Return the oldest stamp of what a request brings; 0 where something has none."""
    headers = [image.header for image in message.images]
    if message.robot_state.name:
        headers.append(message.robot_state.header)
    return min((stamp_ns(header.stamp) for header in headers), default=0)
