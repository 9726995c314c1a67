# SPDX-License-Identifier: Apache-2.0
"""The protocol of a wire, and the values between a wire and what answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from reflex_core.engine.serving_state import ServingState
from reflex_core.images.file_kind import MAX_PIXELS
from reflex_core.robot.gripper_shares import GripperJoint, GripperShare
from reflex_core.settings.wire_keys import GUESSED, KeyMap
from reflex_core.values import NOTHING, Observation, Served
from reflex_ros.sidecar.ignored_fields import NONE_IGNORED, IgnoredFields
from reflex_ros.sidecar.problems import Problem


def _anything(_: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Readable:
    """What a request may hold.

    cameras: the robot's, in its own order. max_pixels: of one image. observation_steps: how many observations the policies
    see, the newest one included. reserved: a `robot_id` that no client may use, ""
    where there is none. reserve: reserves so many bytes that decoding takes beyond the body itself; raises StalledError
    where the requests under way take all memory that is meant for them. state_size: how many numbers the robot's state
    has, None where that is free. keys: the setting `wire_keys`. options: of the URL's query, the last of each name. grippers: the robot's
    whose ends are known.
    """

    cameras: tuple[str, ...] = ()
    max_pixels: int = MAX_PIXELS
    reserved: str = ""
    reserve: Callable[[int], None] = _anything
    observation_steps: int = 1
    state_size: int | None = None
    keys: KeyMap = GUESSED
    options: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    serving: object | None = None
    grippers: tuple[GripperJoint, ...] = ()


@dataclass(frozen=True, slots=True)
class DecodedRequest:
    """One request as the client wrote it. names: its fields; ignored: those of them that are not read.

    observe_only: the observation is kept for the next ones of its episode, and nothing is inferred. form: how the client
    wants the reply, a word of the wire's own. wire: the name in metrics and records, where it is not the wire's own.
    key_robot_id: the robot that the message's own key is for, "" for none.
    received: the keys of a message with foreign names, for what is refused; keys: which of them were read, by our names. shares:
    grippers that the client counts from 0 to 1, in its actions too.
    """

    observation: Observation
    episode_id: str | None = None
    request_id: str | None = None
    seed: int | None = None
    robot_id: str | None = None
    key_robot_id: str = ""
    elapsed_rows: float | None = None
    previous_request_id: str = ""
    names: tuple[str, ...] = ()
    ignored: IgnoredFields = NONE_IGNORED
    observe_only: bool = False
    form: str = ""
    wire: str = ""
    received: str = ""
    keys: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    shares: tuple[GripperShare, ...] = ()


@dataclass(frozen=True, slots=True)
class DirectReply:
    """The answer to a message that asks for no action: a greeting, a ping, the begin of an episode.

    body: empty where the client waits for none. text: it is text, on wires with both kinds of message. outcome: how an
    episode ended, for the episodes' records. begins: the episode that begins with it, "" for none; of an earlier one of that name
    nothing is carried over. key_robot_id: the robot that the message's own key is for, "" for none.
    """

    body: bytes = b""
    text: bool = False
    outcome: EpisodeEnd | None = None
    begins: str = ""
    key_robot_id: str = ""


@dataclass(frozen=True, slots=True)
class EpisodeEnd:
    """How an episode ended, as its client reports it."""

    episode_id: str
    success: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """The answer to an observation without inference. kept: how many of its episode are kept now; 0 where none is needed."""

    request_id: str
    episode_id: str | None
    observation_steps: int
    kept: int
    ignored: IgnoredFields = NONE_IGNORED


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer and the context that a wire may encode.

    robot_id: the server's. caller: the guard's name for the client. cameras: those with an image in the request. form, keys,
    shares: of the decoded request.
    """

    served: Served
    loaded: ServingState
    robot_id: str
    caller: str
    cameras: Collection[str] = ()
    ignored: IgnoredFields = NONE_IGNORED
    form: str = ""
    keys: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    shares: tuple[GripperShare, ...] = ()


class Wire(Protocol):
    """A request decoder and response encoder. It knows no socket, no engine, and no other wire.

    `act.answer` does everything between `decode` and `encode`, so that limits, keys, callers, guard, records and metrics are
    the same on every wire. All three methods run in worker threads, several at once; `problem` also on the event loop.

    A wire of the table serves POST on its `route`. One that streams (a websocket, gRPC) has an endpoint of its own, which
    hands each message to `act.answer` with its wire and sends the reply's body.
    """

    @property
    def name(self) -> str:
        """The wire's name in log lines and docs."""
        ...

    @property
    def route(self) -> str:
        """The path of its POST; wires that share one are then distinguished by the request's Content-Type."""
        ...

    @property
    def content_types(self) -> tuple[str, ...]:
        """The media types of its requests in lower case. The first wire of a route also gets all that no other claims."""
        ...

    @property
    def content_type(self) -> str:
        """The media type of its replies."""
        ...

    def decode(self, data: bytearray, readable: Readable) -> DecodedRequest | DirectReply:
        """Decode a body, which is unpacked and within its limit; images stay encoded.

        DirectReply for what the wire answers itself, without the engine.

        Raises BodyError for bytes that are malformed (status 4xx), ObservationError naming the field, what it
        takes and what it got (status 422), with `request_id` set where the client gave one, and what `reserve` raises.
        """
        ...

    def encode(self, answered: Answered) -> bytes:
        """Return the body of an answer."""
        ...

    def observed(self, observed: Observed) -> bytes:
        """Return the body of an answer to an observation without inference; for wires that decode `observe_only`."""
        ...

    def problem(self, problem: Problem) -> bytes:
        """Return the body of a refusal or a failure; its status and headers are those of the problem."""
        ...


class SocketWire(Wire, Protocol):
    """The wire of one websocket connection. Its messages are decoded one after another, so that it may remember things."""

    @property
    def errors_are_text(self) -> bool:
        """True where a refusal is a text message, and answers are binary."""
        ...

    def awaits_reply(self, message: bytes) -> bool:
        """Return False for a message to which the client reads no answer: one would be taken for that of the next message."""
        ...

    def greeting(self) -> bytes:
        """Return the message with which the server begins; empty where the client does. Runs in a worker thread."""
        ...


About = Callable[[], Mapping[str, Any]]  # what is served, for greetings


def episode_of(name: str, connection: str) -> str:
    """Return the id of the episode that the client of a connection calls so: two robots may use one name at the same time."""
    return f"{name}@{connection}"
