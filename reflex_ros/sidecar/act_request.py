# SPDX-License-Identifier: Apache-2.0
"""The body of a POST /act becomes an Observation. Lax where nothing can be misunderstood, else a sentence."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from reflex_core.engine.serving_state import Loaded
from reflex_core.errors import ObservationError
from reflex_core.images.file_kind import check_pixels
from reflex_core.images.file_kinds import KINDS
from reflex_core.images.raw_encodings import ENCODINGS, check_raw, encoded_size
from reflex_core.metrics.episodes import ID_CHARACTERS, usable_id
from reflex_core.robot.callers import require_robot_id
from reflex_core.text.untrusted import shown
from reflex_core.values import Floats, Frame, Observation
from reflex_ros.sidecar.ignored_fields import NOTHING_UNREAD, Unread, unread

INSTRUCTION_CHARACTERS = 10_000
STATE_NUMBERS = 4096
OTHER_NAMES = (
    "prompt",
    "task",
    "text",
    "command",
    "goal",
    "language",
    "language_instruction",
    "task_description",
)
SEED_LIMIT = 2**63
MOST_ROWS = 100_000
LENIENT_BYTES = 4 << 20

_URL_SAFE = str.maketrans("-_", "+/")

Document = Mapping[str, Any]


class BodyError(ObservationError):
    """The body is not JSON."""

    slug = "malformed-json"
    status = 400


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the client wrote it."""

    observation: Observation
    episode_id: str | None
    request_id: str | None
    seed: int | None
    robot_id: str | None = None
    elapsed_rows: float | None = None
    previous_request_id: str = ""
    unread: Unread = NOTHING_UNREAD


def cameras_of(loaded: Loaded) -> tuple[str, ...]:
    """The robot's cameras in its own order: `image` is the first, `image_wrist` the second."""
    if loaded.embodiment is not None:
        return tuple(camera.name for camera in loaded.embodiment.cameras)
    return tuple(dict.fromkeys(loaded.policy.fit.cameras.values()))


def largest_body(cameras: int, max_pixels: int) -> int:
    """Bytes of the largest body that makes sense: every camera as raw RGB in base64, 1 MiB for the rest."""
    return max(cameras, 1) * max_pixels * 4 + (1 << 20)


def document(body: bytes | bytearray) -> Document:
    """The JSON object of a body. Raises BodyError, or ObservationError for JSON that is no object."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        found = _with_nan(body, error)
    if not isinstance(found, dict):
        raise ObservationError("the body must be a JSON object", "bad-body")
    return found


def _with_nan(body: bytes | bytearray, error: orjson.JSONDecodeError) -> Any:
    """Python's json writes NaN, which is not JSON: read it, so that the complaint names the field."""
    if len(body) <= LENIENT_BYTES and (b"NaN" in body or b"Infinity" in body):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            pass
    raise BodyError(f"the body is not JSON: {error.msg} at byte {error.pos}") from error


def request_id(asked: Document) -> str | None:
    """The client's own id for this request. Raises ObservationError."""
    return _identifier(asked, "request_id")


def read(asked: Document, cameras: tuple[str, ...], max_pixels: int, reserved: str = "") -> Asked:
    """Everything the engine needs. Raises ObservationError naming the field, what it takes and what it got.

    reserved: a `robot_id` that nobody outside this process may have, "" where there is none.

    Pictures are not decoded here; their size is read from their first bytes and checked against `max_pixels`.
    """
    return Asked(
        observation=Observation(
            frames=_frames(asked, cameras, max_pixels),
            state=_state(asked.get("state")),
            instruction=_instruction(asked.get("instruction", "")),
        ),
        episode_id=_identifier(asked, "episode_id"),
        request_id=request_id(asked),
        seed=_seed(asked.get("seed")),
        robot_id=_robot_id(asked, reserved),
        elapsed_rows=_elapsed_rows(asked.get("elapsed_rows")),
        previous_request_id=_identifier(asked, "previous_request_id") or "",
        unread=unread(asked),
    )


def _instruction(value: object) -> str:
    if not isinstance(value, str):
        raise ObservationError(f"'instruction' must be a string, got {shown(value)}", "bad-instruction")
    if len(value) > INSTRUCTION_CHARACTERS:
        raise ObservationError(
            f"'instruction' must have at most {INSTRUCTION_CHARACTERS} characters, got {len(value)}",
            "bad-instruction",
        )
    return value


def misnamed_instruction(fields: Iterable[str]) -> str:
    """What to say of a request that says what to do under another name; "" where there is no such field."""
    for key in fields:
        plain = key.casefold().strip(" _-")
        if key != "instruction" and (plain in OTHER_NAMES or plain.rstrip("s") == "instruction"):
            return f"; this request has {shown(key)}"
    return ""


def _identifier(asked: Document, field: str) -> str | None:
    value = asked.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not usable_id(value):
        raise ObservationError(
            f"'{field}' must be a string of at most {ID_CHARACTERS} printable characters, got {shown(value)}",
            f"bad-{field.replace('_', '-')}",
        )
    return value


def _robot_id(asked: Document, reserved: str) -> str | None:
    name = _identifier(asked, "robot_id")
    if name is not None:
        require_robot_id(name, reserved)
    return name


def _seed(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < SEED_LIMIT:
        raise ObservationError(f"'seed' must be an integer in 0 to 2^63 - 1, got {shown(value)}", "bad-seed")
    return value


def _elapsed_rows(value: object) -> float | None:
    if value is None:
        return None
    # compared as it is: a whole number of 400 digits has no float
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_ROWS:
        raise ObservationError(
            f"'elapsed_rows' must be a number from 0 to {MOST_ROWS}, got {shown(value)}", "bad-elapsed-rows"
        )
    return float(value)


def _state(value: object) -> Floats | None:
    """(n,) float32; its length is checked by the policy, which knows the joints."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > STATE_NUMBERS:
        raise ObservationError(f"'state' must be a list of numbers, got {shown(value)}", "bad-state")
    if any(not isinstance(number, int | float | str) for number in value):
        raise ObservationError(f"'state' must hold only numbers, got {shown(value)}", "bad-state")
    try:
        numbers = np.array([float(number) for number in value], dtype=np.float64)
    except (ValueError, OverflowError) as error:
        raise ObservationError(f"'state' must hold only numbers, got {shown(value)}", "bad-state") from error
    with np.errstate(over="ignore"):
        state = numbers.astype(np.float32)
    finite = np.isfinite(state)
    if not finite.all():
        first = int(np.argmin(finite))
        raise ObservationError(
            f"'state' must be finite, got {numbers[first]} at index {first}", "state-not-finite"
        )
    return state


def _frames(asked: Document, cameras: tuple[str, ...], max_pixels: int) -> dict[str, Frame]:
    frames: dict[str, Frame] = {}
    for camera, field, value in _pictures(asked, cameras):
        if camera in frames:
            raise ObservationError(
                f"'{field}': camera '{camera}' has two images in this request", "bad-image"
            )
        frames[camera] = _frame(field, value, max_pixels)
    return frames


def _pictures(asked: Document, cameras: tuple[str, ...]) -> list[tuple[str, str, object]]:
    """(camera, field, value) of every image in the request. An empty string or null is no image."""
    found: list[tuple[str, str, object]] = []
    for position, field in enumerate(("image", "image_wrist")):
        value = asked.get(field)
        if value is None or value == "":
            continue
        if position >= len(cameras):
            raise ObservationError(
                f"'{field}' is camera number {position + 1}; there are {len(cameras)}: {_named(cameras)}",
                "unknown-camera",
            )
        found.append((cameras[position], field, value))
    named = asked.get("images") or {}
    if not isinstance(named, dict):
        raise ObservationError(f"'images' must be an object by camera name, got {shown(named)}", "bad-image")
    for camera, value in named.items():
        if camera not in cameras:
            raise ObservationError(
                f"'images': there is no camera {shown(camera)}; the cameras are {_named(cameras)}",
                "unknown-camera",
            )
        if value is not None and value != "":
            found.append((camera, f"images.{camera}", value))
    return found


def _named(cameras: tuple[str, ...]) -> str:
    return ", ".join(cameras) or "none"


def _frame(field: str, value: object, max_pixels: int) -> Frame:
    if isinstance(value, dict) and value.get("encoding") not in (None, *KINDS):
        return _raw_frame(field, value, max_pixels)
    data = _decoded(field, value.get("data") if isinstance(value, dict) else value)
    try:
        encoding, height, width = encoded_size(data)
    except ObservationError as error:
        raise ObservationError(f"'{field}': {error}", error.slug) from error
    check_pixels(height, width, max_pixels, f"'{field}'")
    return Frame(data, encoding, height, width)


def _raw_frame(field: str, value: Document, max_pixels: int) -> Frame:
    encoding = value["encoding"]
    if encoding not in ENCODINGS:
        raise ObservationError(
            f"'{field}.encoding' must be one of {', '.join(ENCODINGS)}, got {shown(encoding)}", "bad-image"
        )
    height, width, step = (_pixel_count(field, value, key) for key in ("height", "width", "step"))
    check_pixels(height, width, max_pixels, f"'{field}'")
    frame = Frame(_decoded(field, value.get("data")), encoding, height, width, step)
    try:
        check_raw(frame)
    except ObservationError as error:
        raise ObservationError(f"'{field}': {error}", error.slug) from error
    return frame


def _pixel_count(field: str, value: Document, key: str) -> int:
    number = value.get(key, 0 if key == "step" else None)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**31:
        raise ObservationError(f"'{field}.{key}' must be a whole number, got {shown(number)}", "bad-image")
    return number


def _decoded(field: str, value: object) -> bytes:
    """Base64, standard or URL-safe, with or without a data: prefix, line breaks and padding."""
    if not isinstance(value, str):
        raise ObservationError(f"'{field}' must be a base64 string, got {shown(value)}", "bad-base64")
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        pass  # not plain base64: perhaps one of the other spellings
    text = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ObservationError(f"'{field}' is not base64", "bad-base64") from error
