# SPDX-License-Identifier: Apache-2.0
"""The messages of Isaac-GR00T's policy client, N1.5 to N1.7: an endpoint and its data, msgpack with arrays in two tags.

N1.5 sends the observation as the data and reads a map of actions; N1.6 and N1.7 send `observation` and `options`, and read
a list of actions and of what else there is. Each is answered in its own shape, arrays tagged as they came.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from reflex_core.engine.serving_state import ServingState
from reflex_core.errors import NotReadyError, ObservationError
from reflex_core.metrics.episodes import ID_RULE, usable_id
from reflex_core.settings.wire_keys import unmarked
from reflex_core.text.untrusted import shown
from reflex_ros.sidecar.access import Access
from reflex_ros.sidecar.key_file import ACT
from reflex_ros.sidecar.problems import BodyError, Problem
from reflex_ros.sidecar.wires.foreign import decode_foreign, own_fields
from reflex_ros.sidecar.wires.groot_shapes import (
    ACTION,
    INSTRUCTION,
    LANGUAGE,
    STATE,
    VIDEO,
    Shaped,
    actions_of,
    declared_groups,
    groups_of,
    name_in,
    shaped,
)
from reflex_ros.sidecar.wires.msgpack_codec import NPY, pack, unpack
from reflex_ros.sidecar.wires.openpi import without_arrays
from reflex_ros.sidecar.wires.reply_fields import BLOCK, observed_fields, reply_fields
from reflex_ros.sidecar.wires.rows import rows_of
from reflex_ros.sidecar.wires.wire import (
    Answered,
    DecodedRequest,
    DirectReply,
    Observed,
    Readable,
    episode_of,
)

GET_ACTION, MODALITIES, RESET, PING, KILL = (
    "get_action", "get_modality_config", "reset", "ping", "kill",
)  # fmt: skip
PONG = {"status": "ok", "message": "Server is running"}


class UnauthorizedError(BodyError):
    """The message brings no key, or another."""

    slug = "unauthorized"
    status = 401


class MissingRightError(UnauthorizedError):
    """The message brings a key that may not ask for actions."""

    slug = "missing-right"
    status = 403


@dataclass(frozen=True, slots=True)
class ServerSide:
    """What the wire knows of its server. access: of the key that messages must bring as `api_token`; None: they bring none.

    state: of the engine; loaded: what it serves.
    """

    access: Callable[[bytes], Access | None] | None
    state: Callable[[], str]
    loaded: Callable[[], ServingState | None]


@dataclass(frozen=True, slots=True)
class Form:
    """How a reply to an observation looks. listed: a list of actions and what else there is; prefix: of the actions' keys."""

    listed: bool = True
    prefix: str = ""
    batched: bool = True


class GrootWire:
    """The wire of one client, whose messages come one after another."""

    name = "groot"
    route = ""
    content_types = ()
    content_type = "application/msgpack"

    def __init__(self, session: str, served: ServerSide) -> None:
        """Begin the first episode. session: the client's own id."""
        self.session, self._served = session, served
        self._resets = 0
        self._episode = session
        self._form = Form()
        self._tags = NPY
        self._state: list[tuple[str, int]] = []

    def decode(self, data: bytearray, readable: Readable) -> DecodedRequest | DirectReply:
        """Decode an observation, or answer what needs no inference. Raises BodyError, ObservationError, NotReadyError."""
        message = unpack(data)
        data.clear()
        fields = message.value
        if not isinstance(fields, dict):
            raise ObservationError(f"a message must be a map, got {shown(fields)}", "bad-message")
        robot_id = self._robot_of_key(fields)
        endpoint = fields.get("endpoint", GET_ACTION)
        if endpoint == GET_ACTION:
            self._tags = message.form or self._tags
            return replace(self._observation(fields.get("data"), readable), key_robot_id=robot_id)
        if endpoint == PING:
            return self._pong(readable)
        if endpoint == MODALITIES:
            return DirectReply(pack(self._modalities(readable)))
        if endpoint == RESET:
            return replace(self._reset(fields.get("data")), key_robot_id=robot_id)
        raise _unknown(endpoint)

    def encode(self, answered: Answered) -> bytes:
        """Return the rows by group of the robot, and with N1.6 and N1.7 one map of plain telemetry."""
        loaded, form = answered.loaded, self._form
        binding = loaded.slots.get(answered.served.slot, loaded.first).policy.binding
        groups = groups_of(self._state, binding)
        actions = actions_of(rows_of(answered), groups, prefix=form.prefix, batched=form.batched)
        if not form.listed:
            return pack(actions, answered.form)
        telemetry = reply_fields(answered)[BLOCK] | {"keys": dict(answered.keys)}
        telemetry["chunk"] = telemetry["chunk"] | {"start_index": 0}  # rows that are over were left out
        return pack([actions, {BLOCK: without_arrays(telemetry)}], answered.form)

    def observed(self, observed: Observed) -> bytes:
        """Return how many observations of the episode are kept."""
        kept = without_arrays(observed_fields(observed))
        return pack([{}, {BLOCK: kept}] if self._form.listed else kept)

    def problem(self, problem: Problem) -> bytes:
        """Return the error that the client raises."""
        document = problem.document()
        return pack({"error": f"{document['error']}: {document['message']}"})

    def _robot_of_key(self, fields: Mapping[Any, Any]) -> str:
        """Return the robot that the message's key is for, "" for none. Raises UnauthorizedError."""
        if self._served.access is None:
            return ""
        token = fields.get("api_token")
        offered = token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token
        access = self._served.access(offered) if isinstance(offered, bytes) else None
        if access is None:
            raise UnauthorizedError("this needs the API key as 'api_token'")
        if not access.may((ACT,)):
            raise MissingRightError(f"this needs a key with the right {ACT!r}")
        return access.robot_id

    def _pong(self, readable: Readable) -> DirectReply:
        """Answer that observations are served. Raises NotReadyError where they are not."""
        if readable.serving is None:
            raise NotReadyError(self._served.state())
        return DirectReply(pack(PONG))

    def _observation(self, data: object, readable: Readable) -> DecodedRequest:
        if not isinstance(data, dict):
            raise ObservationError(f"'data' must be an observation, got {shown(data)}", "bad-message")
        inner = data.get("observation")
        listed = isinstance(inner, dict)
        observation = inner if isinstance(inner, dict) else data
        found = shaped(observation, readable.observation_steps)
        self._form = Form(listed, "" if found.nested else f"{ACTION}.", listed or found.batched)
        own = own_fields(observation) | _own(data.get("options") if listed else None)
        own.setdefault("episode_id", self._episode)
        *earlier, newest = found.steps
        decoded = decode_foreign(newest, readable, self.name, own=own | {"history": earlier})
        self._state = _state_sizes(decoded, found)
        return replace(decoded, form=self._tags)

    def _reset(self, data: object) -> DirectReply:
        """Begin an episode, by the name that `options` may give it."""
        given = _own(data.get("options") if isinstance(data, dict) else None).get("episode_id")
        if given is not None and not (isinstance(given, str) and given and usable_id(given)):
            raise ObservationError(
                f"'episode_id' must be a string of {ID_RULE}, got {shown(given)}",
                "bad-episode-id",
            )
        self._resets += 1
        self._episode = episode_of(given, self.session) if given else f"{self.session}-{self._resets}"
        return DirectReply(pack({}), begins=self._episode)

    def _modalities(self, readable: Readable) -> dict[str, Any]:
        """Return keys and time steps of what is served, for clients that ask before they send anything.

        The configuration is a map as N1.6 and N1.7 read it; a client that has sent an observation of N1.5 gets N1.5's text.
        """
        loaded = self._served.loaded()
        if loaded is None:
            raise NotReadyError(self._served.state())
        binding = loaded.first.policy.binding
        cameras = dict(readable.keys.cameras)
        groups = declared_groups(binding, readable.keys.state)
        seen = list(range(1 - readable.observation_steps, 1))
        found = {
            VIDEO: (seen, [name_in(cameras.get(camera, camera), VIDEO) for camera in readable.cameras]),
            STATE: (seen, list(groups) if loaded.needs_state else []),
            ACTION: (list(range(binding.horizon)), list(groups)),
            LANGUAGE: ([0], [readable.keys.instruction or INSTRUCTION]),
        }
        return {name: self._modality(*entry) for name, entry in found.items()}

    def _modality(self, deltas: list[int], keys: list[str]) -> dict[str, Any]:
        config: Any = {"delta_indices": deltas, "modality_keys": keys}
        return {
            "__ModalityConfig_class__": True,
            "as_json": config if self._form.listed else json.dumps(config),
        }


def _own(options: object) -> dict[str, Any]:
    """Return the request fields of ours in `options`, whose other entries are for another server."""
    if options is not None and not isinstance(options, dict):
        raise ObservationError(f"'options' must be a map or nil, got {shown(options)}", "bad-message")
    return own_fields(options or {}, prefix="")


def _unknown(endpoint: object) -> ObservationError:
    if endpoint == KILL:
        return ObservationError(
            "clients do not end this server, which may be moving other robots: end it where it was started",
            "kill-refused",
        )
    return ObservationError(
        f"'endpoint' must be {GET_ACTION}, {MODALITIES}, {RESET} or {PING}, got {shown(endpoint)}",
        "bad-endpoint",
    )


def _state_sizes(decoded: DecodedRequest, found: Shaped) -> list[tuple[str, int]]:
    """Return the keys that became the state, with how many numbers each has."""
    sizes = found.sizes()
    keys = map(unmarked, decoded.keys.get(STATE, "").split("+"))
    return [(key, sizes[key]) for key in keys if key in sizes]
