# SPDX-License-Identifier: Apache-2.0
"""Observations with keys of other servers become requests: leaves of the message, which of them is what, frames and state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.images.file_kinds import kind_of
from reflex_core.robot.gripper_shares import GripperShare
from reflex_core.settings.wire_keys import INSTRUCTION, STATE
from reflex_core.text.untrusted import escaped, shown
from reflex_core.values import NOTHING, Frame
from reflex_ros.sidecar.ignored_fields import MOST_CHARACTERS, MOST_NAMED, IgnoredFields
from reflex_ros.sidecar.wires import fields
from reflex_ros.sidecar.wires.gripper_keys import in_rad_and_m, shares_in
from reflex_ros.sidecar.wires.key_map import Keys, Received, keys_for
from reflex_ros.sidecar.wires.numpy_tags import Array
from reflex_ros.sidecar.wires.pixels import frame_of_array, frame_of_file
from reflex_ros.sidecar.wires.request_fields import INSTRUCTION_CHARACTERS, KNOWN, STATE_NUMBERS
from reflex_ros.sidecar.wires.wire import DecodedRequest, Readable

OWN = "reflex/"  # our fields in a message of another server: reflex/seed
MOST_LEAVES = 256
MOST_DEPTH = 4
KEY_CHARACTERS = 200
OWN_FIELDS = frozenset(KNOWN) - {"image", "image_wrist", "images", "state", "instruction"}
UNREAD = frozenset(
    ("sampling_params", "unnorm_key", "num_steps", "noise")
)  # with other servers they choose how, not what
# what is neither sensor nor instruction with other servers
NOT_OBSERVED = OWN_FIELDS | UNREAD | {"endpoint", "session_id", "format"}


@dataclass(slots=True)
class Leaves:
    """Values of a message by the path of their keys, joined by `/`."""

    images: dict[str, Array | bytes] = field(default_factory=dict)
    numbers: dict[str, Array] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def received(self) -> Received:
        """Return the keys alone."""
        sizes = tuple((key, int(value.size)) for key, value in self.numbers.items())
        return Received(tuple(self.images), sizes, tuple(self.texts))


@dataclass(frozen=True, slots=True)
class Sensed:
    """What a message holds. pictures: by camera. state: in rad and m, None without. shares: grippers that it counts from 0 to 1."""

    pictures: dict[str, Frame]
    state: list[float] | None
    texts: Mapping[str, str]
    keys: Keys
    received: Received
    shares: tuple[GripperShare, ...]


def decode_foreign(
    message: Mapping[Any, Any],
    readable: Readable,
    wire: str,
    frames: Mapping[str, Frame] | None = None,
    own: Mapping[str, Any] | None = None,
    protocol: str = "",
) -> DecodedRequest:
    """Return the request of a message with arrays in it.

    frames: images that the caller has decoded already, by camera. own: request fields that are known otherwise (episode_id,
    seed, history, state, instruction); they go before those of the message under `reflex/`, and before what is guessed.
    protocol: the end of a gripper that the wire's own protocol calls 1, "" where it says nothing. Raises ObservationError.
    """
    document = own_fields(message) | dict(own or {})
    history = fields.history_of(document, readable.observation_steps)
    given = frozenset(name for name in (STATE, INSTRUCTION) if document.get(name) not in (None, ""))
    seen = _sensors(message, readable, wire, frames or {}, given, protocol)
    keys = seen.keys
    entries = [_sensors(entry, readable, wire, protocol=protocol) for entry in history]
    if seen.state is not None:
        document["state"] = seen.state
    if keys.instruction:
        document["instruction"] = seen.texts[keys.instruction]
    if entries:
        document["history"] = [{"state": entry.state} for entry in entries]
    names = tuple(_name(key) for key in message)
    ignored = [*(name for name in names if name in UNREAD), *keys.unused]
    unused = tuple(dict.fromkeys(escaped(name, MOST_CHARACTERS) for name in ignored[:MOST_NAMED]))
    earlier = [entry.pictures for entry in entries]
    decoded = fields.decode_fields(document, seen.pictures, readable, IgnoredFields(unused), earlier)
    return replace(
        decoded, received=str(seen.received), keys=keys.document(), names=names, shares=seen.shares
    )


def _sensors(
    message: Mapping[Any, Any],
    readable: Readable,
    wire: str,
    taken: Mapping[str, Frame] = NOTHING,
    given: frozenset[str] = frozenset(),
    protocol: str = "",
) -> Sensed:
    """Return what a message holds, and which of its keys that is."""
    found = leaves(message)
    received = found.received()
    cameras = tuple(camera for camera in readable.cameras if camera not in taken)
    size, grippers = readable.state_size, readable.grippers
    keys = keys_for(readable.keys.without(taken), received, cameras, size, wire, given, grippers, protocol)
    numbers = {key: _flat(key, found.numbers[key]) for key in keys.state}
    shares = shares_in(keys, {key: len(values) for key, values in numbers.items()}, grippers, size)
    state = None
    if keys.state:
        state = in_rad_and_m(np.concatenate([numbers[key] for key in keys.state]), shares).tolist()
    pictures = dict(taken)
    for camera, key in keys.cameras.items():
        pictures[camera] = frame_of(key, found.images[key], readable, bgr=camera in keys.bgr)
    return Sensed(pictures, state, found.texts, keys, received, tuple(one.share for one in shares))


def frame_of(key: str, image: Array | bytes, readable: Readable, *, bgr: bool) -> Frame:
    """Return the frame of one image of a message. Raises ObservationError."""
    name = escaped(key)
    if isinstance(image, bytes):
        return frame_of_file(name, image, readable.max_pixels)
    return frame_of_array(name, image, readable.max_pixels, bgr=bgr)


def own_fields(message: Mapping[Any, Any], prefix: str = OWN) -> dict[str, Any]:
    """Return our request fields of a message, whose names begin with the prefix; arrays of one number as that number."""
    named = ((_name(key), value) for key, value in message.items())
    found = ((name.removeprefix(prefix), value) for name, value in named if name.startswith(prefix))
    return {name: plain(value) for name, value in found if name in OWN_FIELDS}


def plain(value: Any) -> Any:
    """Return a scalar array as the number that it holds, anything else as it is."""
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def leaves(message: Mapping[Any, Any]) -> Leaves:
    """Return the values of a message by kind. Raises ObservationError for too many, or maps too deep in each other."""
    found = Leaves()
    for number, (path, value) in enumerate(_walk(message, "", 0)):
        if number >= MOST_LEAVES:
            raise ObservationError(f"an observation must have at most {MOST_LEAVES} values", "bad-body")
        _sort(found, path, value)
    return found


def _walk(message: Mapping[Any, Any], before: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth >= MOST_DEPTH:
        raise ObservationError(f"maps must be at most {MOST_DEPTH} deep in each other", "bad-body")
    for key, value in message.items():
        name = _name(key)
        if depth == 0 and (name in NOT_OBSERVED or name.startswith(OWN)):
            continue
        path = f"{before}{name}"
        if isinstance(value, dict):
            yield from _walk(value, f"{path}/", depth + 1)
        else:
            yield path, value


def _sort(found: Leaves, path: str, value: Any) -> None:
    if isinstance(value, np.ndarray):
        if value.ndim >= 3:
            found.images[path] = value
        else:
            found.numbers[path] = value
    elif isinstance(value, bytes):
        if kind_of(value) is not None:
            found.images[path] = value
        else:
            found.texts[path] = value[: INSTRUCTION_CHARACTERS + 1].decode("utf-8", "replace")
    elif isinstance(value, str):
        found.texts[path] = value
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int | float):
        found.numbers[path] = np.array([float_of(path, value)])
    elif isinstance(value, list | tuple) and value:
        _sort_list(found, path, value)


def _sort_list(found: Leaves, path: str, value: Any) -> None:
    if isinstance(value[0], str):
        found.texts[path] = value[0]
    elif len(value) <= STATE_NUMBERS and all(isinstance(item, int | float) for item in value):
        found.numbers[path] = np.array([float_of(path, item) for item in value])


def float_of(path: str, value: float) -> float:
    """Return a number as a float. Raises ObservationError for a whole number that no float holds."""
    try:
        return float(value)
    except OverflowError as error:
        raise ObservationError(
            f"'{escaped(path)}' must hold only numbers, got {shown(value)}", "bad-state"
        ) from error


def _flat(path: str, value: Array) -> Array:
    """Return (n,) float64 of an array of one axis, or with others of length 1."""
    if value.size > STATE_NUMBERS or (value.ndim > 1 and value.size != max(value.shape)):
        raise ObservationError(
            f"'{escaped(path)}' must be a list of at most {STATE_NUMBERS} numbers, got an array of shape {value.shape}",
            "bad-state",
        )
    return value.reshape(-1).astype(np.float64)


def _name(key: Any) -> str:
    name = key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
    if len(name) > KEY_CHARACTERS:
        raise ObservationError(
            f"a key must have at most {KEY_CHARACTERS} characters, got {escaped(name)}", "bad-body"
        )
    return name
