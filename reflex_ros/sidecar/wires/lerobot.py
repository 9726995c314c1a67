# SPDX-License-Identifier: Apache-2.0
"""LeRobot's asynchronous inference (0.4 to 0.6; the same bytes since 0.3.3): setup and observation in, rows as TimedAction out.

A client sends observations in one call and takes rows in another, so that each call is a wire; what a client
has sent and got before is in its `Session` (lerobot_session.py).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.export.binding import Binding
from reflex_core.robot.client_units import ClientUnits
from reflex_core.settings.wire_keys import STATE, KeyMap
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.text.untrusted import escaped
from reflex_ros.sidecar.problems import Problem
from reflex_ros.sidecar.wires.foreign import decode_foreign, float_of
from reflex_ros.sidecar.wires.key_map import Received, keys_for
from reflex_ros.sidecar.wires.lerobot_joints import UNDECLARED, ClientJoints, client_joints
from reflex_ros.sidecar.wires.lerobot_reader import (
    OBSERVATION,
    SETUP,
    Made,
    attribute,
    read_pickle,
)
from reflex_ros.sidecar.wires.lerobot_rows import resampled
from reflex_ros.sidecar.wires.lerobot_writer import MOST_TIMESTEP, timed_actions
from reflex_ros.sidecar.wires.numpy_tags import Array
from reflex_ros.sidecar.wires.pickle_machine import PickleError
from reflex_ros.sidecar.wires.request_fields import MOST_ROWS, STATE_NUMBERS
from reflex_ros.sidecar.wires.rows import rows_of
from reflex_ros.sidecar.wires.wire import Answered, DecodedRequest, DirectReply, Observed, Readable

NAME = "lerobot"
IMAGES = "observation.images."
OF_STATE = "observation.state"
TASK = "task"
MOST_IMAGES = 64
MOST_TIME_S = 1e12

log = logging.getLogger(__name__)
_line = RateLimitedLog(log)


@dataclass(frozen=True, slots=True)
class ClientSetup:
    """What a client says of itself. model: what it asks for, which is not what it gets.

    numbers: names of its state, in the order of its actions. images: its cameras without those of depth. renamed: by its own name
    the one that its policy was trained with. rows: how many it wants of a chunk, 0 where it does not say.
    """

    model: str = ""
    numbers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    depth: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0


NO_SETUP = ClientSetup()


@dataclass(frozen=True, slots=True)
class TimedRequest:
    """One observation. timestep: of the newest action that the client has executed. timestamp: of the client's clock, in s."""

    decoded: DecodedRequest
    timestep: int
    timestamp: float
    must_go: bool
    joints: ClientJoints


@dataclass(frozen=True, slots=True)
class Labels:
    """first: timestep of the first row that is sent. rows: the most that the client wants, 0 for all. fps: 0, or the client's rate."""

    first: int
    rows: int = 0
    fps: float = 0.0


def _no_rows(_answered: Answered) -> bytes:
    return b""


class LerobotWire:
    """The wire of one call. decode, encode: of that call; only that for rows has an answer."""

    name = NAME
    route = ""
    content_types = ()
    content_type = "application/x-protobuf"

    def __init__(
        self,
        decode: Callable[[bytearray, Readable], DecodedRequest | DirectReply],
        encode: Callable[[Answered], bytes] = _no_rows,
    ) -> None:
        self._decode, self._encode = decode, encode

    def decode(self, data: bytearray, readable: Readable) -> DecodedRequest | DirectReply:
        """Decode the call's message."""
        return self._decode(data, readable)

    def encode(self, answered: Answered) -> bytes:
        """Return the call's answer."""
        return self._encode(answered)

    def observed(self, observed: Observed) -> bytes:  # noqa: ARG002 - no client of this wire asks for it
        """Return nothing: the client waits for no content."""
        return b""

    def problem(self, problem: Problem) -> bytes:
        """Return `slug: sentence`, the status message of the call."""
        document = problem.document()
        return f"{document['error']}: {document['message']}".encode()


class SetupCall:
    """SendPolicyInstructions. setup: what was sent, once it is decoded."""

    def __init__(self, binding: Binding, units: ClientUnits, served: str) -> None:
        """Create it for one message. served: what this server serves, for the log."""
        self._binding, self._units, self._served = binding, units, served
        self.setup = NO_SETUP

    def decode(self, data: bytearray, readable: Readable) -> DirectReply:
        """Check that the client's joints and cameras fit. Raises PickleError, ObservationError."""
        setup = setup_of(_message(data, SETUP))
        if setup.numbers:
            client_joints(self._binding, setup.numbers, _state_keys(readable.keys), self._units)
        received = Received(setup.images, ((OF_STATE, len(setup.numbers)),), (TASK,))
        chosen = _camera_keys(readable.keys)
        keys = keys_for(chosen, received, readable.cameras, len(setup.numbers) or None, NAME)
        if self._binding.cameras and not keys.cameras:
            raise ObservationError(
                f"the policy sees {', '.join(readable.cameras)}, and the client sends no image",
                "missing-image",
            )
        text = "a LeRobot client asked for %s and is served %s: this server loads nothing that a client names"
        _line(logging.INFO, "model", text, escaped(setup.model, 120), self._served)
        self.setup = setup
        return DirectReply()


class ObservationCall:
    """SendObservations. timed: the observation, once it is decoded."""

    def __init__(self, binding: Binding, units: ClientUnits, setup: ClientSetup) -> None:
        """Create it for one message."""
        self._binding, self._units, self._setup = binding, units, setup
        self.timed: TimedRequest | None = None

    def decode(self, data: bytearray, readable: Readable) -> DirectReply:
        """Decode an observation; it is answered by another call. Raises PickleError, ObservationError."""
        fields = _message(data, OBSERVATION)
        values = fields.get("observation")
        if not isinstance(values, dict):
            raise PickleError("the 'observation' of a TimedObservation must be a dictionary")
        timestep, timestamp = _timestep(fields.get("timestep")), _timestamp(fields.get("timestamp"))
        numbers, images, task = self._sorted(values)
        named = self._setup.numbers if set(self._setup.numbers) == set(numbers) else tuple(numbers)
        message: dict[str, Any] = dict(images)
        joints = client_joints(self._binding, named, _state_keys(readable.keys), self._units)
        message[OF_STATE] = joints.to_state(numbers)
        if task:
            message[TASK] = task
        decoded = decode_foreign(message, replace(readable, keys=_camera_keys(readable.keys)), NAME)
        keys = {**decoded.keys, STATE: "+".join(joints.names)}
        decoded = replace(decoded, keys=keys, names=tuple(values))
        must_go = fields.get("must_go") is True
        self.timed = TimedRequest(decoded, timestep, timestamp, must_go, joints)
        return DirectReply()

    def _sorted(self, values: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Array], str]:
        """Return numbers, images and the task of an observation."""
        numbers: dict[str, float] = {}
        images: dict[str, Array] = {}
        task = ""
        for name, found in values.items():
            value = attribute(found)
            if isinstance(value, np.ndarray) and value.ndim >= 2:  # of two axes: depth, which no policy reads
                if value.ndim > 2 and _short(name) not in self._setup.depth:
                    images[_renamed(name, self._setup.renamed)] = value
            elif isinstance(value, np.ndarray):
                numbers |= _numbered(name, value)
            elif isinstance(value, bool | int | float):
                numbers[name] = float_of(name, value)
            elif isinstance(value, str):
                task = value if name == TASK or not task else task
            elif value is not None:
                raise ObservationError(
                    f"'{escaped(name, 80)}' of an observation must be a number, an array or a text",
                    "bad-body",
                )
            if len(numbers) > STATE_NUMBERS or len(images) > MOST_IMAGES:
                raise ObservationError(
                    f"an observation must have at most {STATE_NUMBERS} numbers and {MOST_IMAGES} images",
                    "bad-body",
                )
        return numbers, images, task


class RowsCall:
    """GetActions: the answer to an observation that came before. sent: how many rows, once they are encoded."""

    def __init__(self, timed: TimedRequest, labels: Labels) -> None:
        """Create it for one answer."""
        self._timed, self._labels = timed, labels
        self.request_id, self.sent = "", 0

    def decode(self, data: bytearray, readable: Readable) -> DecodedRequest:  # noqa: ARG002 - the message is empty
        """Return the request of that observation."""
        return self._timed.decoded

    def encode(self, answered: Answered) -> bytes:
        """Return the pickle of `list[TimedAction]`, in the client's order and numbers."""
        chunk, labels = answered.served.chunk, self._labels
        rows = rows_of(answered)
        period_s = chunk.dt_s
        if labels.fps > 0 and chunk.dt_s > 0:
            rows, period_s = resampled(rows, chunk.dt_s, labels.fps), 1.0 / labels.fps
        rows = rows[: labels.rows or len(rows)]
        self.request_id, self.sent = answered.served.request_id, len(rows)
        own = self._timed.joints.to_client(rows)
        return timed_actions(own, labels.first, self._timed.timestamp + period_s, period_s)


def setup_of(fields: Mapping[str, Any]) -> ClientSetup:
    """Return what a RemotePolicyConfig says. Raises PickleError where it is not what LeRobot writes."""
    features = fields.get("lerobot_features")
    if not isinstance(features, dict):
        raise PickleError("'lerobot_features' of a RemotePolicyConfig must be a dictionary")
    images = {name: value for name, value in features.items() if name.startswith(IMAGES)}
    depth = frozenset(_short(name) for name, feature in images.items() if _is_depth(feature))
    renamed = fields.get("rename_map")
    renamed = renamed if isinstance(renamed, dict) else {}
    renamed = {key: value for key, value in renamed.items() if isinstance(value, str)}
    rows = fields.get("actions_per_chunk")
    words = (fields.get("policy_type"), fields.get("pretrained_name_or_path"))
    return ClientSetup(
        " ".join(escaped(word, 100) for word in words if isinstance(word, str)),
        _names(features.get(OF_STATE)),
        tuple(_renamed(name, renamed) for name in images if _short(name) not in depth),
        depth,
        renamed,
        rows if isinstance(rows, int) and not isinstance(rows, bool) and 0 < rows <= MOST_ROWS else 0,
    )


def _names(feature: Any) -> tuple[str, ...]:
    """Return the names of a feature; none where it has none."""
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list | tuple) or len(names) > STATE_NUMBERS:
        return ()
    return tuple(name for name in names if isinstance(name, str))


def _is_depth(feature: Any) -> bool:
    info = feature.get("info") if isinstance(feature, dict) else None
    return isinstance(info, dict) and info.get("is_depth_map") is True


def _message(data: bytearray, kind: str) -> Mapping[str, Any]:
    made: Made = read_pickle(data)
    if made.kind != kind:
        raise PickleError(f"this call takes a {kind}, got a {made.kind}")
    return made.fields


def _short(name: str) -> str:
    return name.removeprefix(IMAGES)


def _renamed(name: str, renamed: Mapping[str, str]) -> str:
    """Return a camera's name as its policy was trained with it, without what LeRobot puts before it."""
    short = _short(name)
    return _short(renamed.get(name) or renamed.get(IMAGES + short) or short)


def _camera_keys(keys: KeyMap) -> KeyMap:
    """Return the setting `wire_keys` for cameras; the state's names are joints, and the instruction is always `task`."""
    return replace(
        keys,
        state=(),
        shares=(),
        instruction="",
        cameras=tuple((camera, _short(key)) for camera, key in keys.cameras),
    )


def _state_keys(keys: KeyMap) -> tuple[str, ...]:
    """Return the joints of the setting `wire_keys`. Raises ObservationError for one in shares, which another setting is for."""
    if keys.shares:
        key, end = keys.shares[0]
        raise ObservationError(
            f"setting 'wire_keys' says '{escaped(key, 80)}:{end}', which this wire does not read: what LeRobot's grippers count is said by"
            " --lerobot-units",
            UNDECLARED,
        )
    return keys.state


def _numbered(name: str, values: Array) -> dict[str, float]:
    """Return an array of numbers by name: one as `name`, several as name.0, name.1."""
    if values.size > STATE_NUMBERS:
        raise ObservationError(
            f"'{escaped(name, 80)}' must have at most {STATE_NUMBERS} numbers", "bad-state"
        )
    flat = values.reshape(-1).astype(np.float64).tolist()
    return {name: flat[0]} if len(flat) == 1 else {f"{name}.{at}": value for at, value in enumerate(flat)}


def _timestep(value: Any) -> int:
    last = MOST_TIMESTEP - 2 * MOST_ROWS
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= last:
        raise PickleError(f"the timestep of an observation must be an integer from 0 to {last}")
    return value


def _timestamp(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > MOST_TIME_S:
        raise PickleError("the timestamp of an observation must be seconds since 1970")
    return float(value)
