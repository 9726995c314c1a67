# SPDX-License-Identifier: Apache-2.0
"""JSON on POST /act: the wire of README and of --cloud-fallback."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from reflex_core.errors import ObservationError
from reflex_core.files.json_fields import is_whole
from reflex_core.images.file_kind import check_pixels
from reflex_core.images.file_kinds import KINDS
from reflex_core.images.raw_encodings import ENCODINGS, check_raw, encoded_size
from reflex_core.reports import Document
from reflex_core.text.base64_bytes import decoded
from reflex_core.text.untrusted import shown
from reflex_core.values import Frame
from reflex_ros.sidecar.ignored_fields import find_ignored_fields
from reflex_ros.sidecar.problems import BodyError, Problem, TooLargeError
from reflex_ros.sidecar.wires import fields, json_numpy
from reflex_ros.sidecar.wires.reply_fields import observed_fields, reply_fields
from reflex_ros.sidecar.wires.wire import Answered, DecodedRequest, Observed, Readable

LENIENT_BYTES = 4 << 20
# a list or an object that is empty takes 3 bytes of a body and 64 of memory, and its place in a list 8
MOST_VALUES = 2 << 20
VALUE_BYTES = 72
UNCOUNTED_BYTES = 1 << 20  # a shorter body has no room for many values
LOOKED_AT_BYTES = 1 << 20

_URL_SAFE = str.maketrans("-_", "+/")


class JsonWire:
    """One JSON object each way."""

    name = "json"
    route = "/act"
    content_types = ("application/json",)
    content_type = "application/json"

    def decode(self, data: bytearray, readable: Readable) -> DecodedRequest:
        """Decode the request of a JSON body. Raises BodyError, ObservationError, StalledError."""
        if size := values_bytes(data):
            readable.reserve(size)
        found, with_arrays = document(data), json_numpy.has_arrays(data)
        data.clear()  # its texts are as large as the pictures, and so is this
        return _decode_arrays(found, readable) if with_arrays else decode_object(found, readable)

    def encode(self, answered: Answered) -> bytes:
        """Return a reply with every promised field; times in ms unless the name ends otherwise."""
        fields = reply_fields(answered)
        if answered.form:
            return json_numpy.encode(answered, fields)
        return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)

    def observed(self, observed: Observed) -> bytes:
        """Return how many observations of the episode are kept."""
        return orjson.dumps(observed_fields(observed))

    def problem(self, problem: Problem) -> bytes:
        """Return `{"error": slug, "message": sentence, "request_id": id}`, and the problem's further fields."""
        return orjson.dumps(problem.document())


def values_bytes(data: bytes | bytearray) -> int:
    """Return how much the lists, objects and numbers of this JSON take beyond its text. Raises TooLargeError."""
    if len(data) <= UNCOUNTED_BYTES:
        return 0
    values = 0
    for start in range(0, len(data), LOOKED_AT_BYTES):
        values += sum(data.count(mark, start, start + LOOKED_AT_BYTES) for mark in b",[{")
        if values > MOST_VALUES:
            raise TooLargeError(f"the body must hold at most {MOST_VALUES} values, lists and objects")
    return values * VALUE_BYTES


def document(body: bytes | bytearray) -> Document:
    """Return the JSON object of a body. Raises BodyError, or ObservationError for JSON that is no object."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        found = _with_nan(body, error)
    if not isinstance(found, dict):
        raise ObservationError("the body must be a JSON object", "bad-body")
    return found


def _with_nan(body: bytes | bytearray, error: orjson.JSONDecodeError) -> Any:
    """Parse JSON with NaN, which Python's json writes, so that the error names the field."""
    if len(body) <= LENIENT_BYTES and (b"NaN" in body or b"Infinity" in body):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            pass
    raise BodyError(
        f"the body is not JSON: {_other_form(body) or f'{error.msg} at byte {error.pos}'}"
    ) from error


def _other_form(body: bytes | bytearray) -> str:
    """Return what a body that is not JSON looks like and how to send it; '' where it looks like nothing known."""
    if body.startswith(b"\x1f\x8b"):
        return "it looks gzip-compressed; compress it once and send Content-Encoding: gzip, or send it uncompressed"
    if body.startswith((b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{")):
        return "it looks like UTF-16; send UTF-8"
    if body.startswith(b"\xef\xbb\xbf"):
        return "it begins with a byte order mark; send UTF-8 without one"
    return ""


def decode_object(found: Document, readable: Readable) -> DecodedRequest:
    """Return the request that a JSON object makes. Raises ObservationError naming the field, what it takes and what it got.

    Pictures are not decoded here; their size is read from their first bytes and checked.
    """
    request_id = fields.request_id(found) or ""
    try:
        frames = _frames(found, readable)
        entries = fields.history_of(found, readable.observation_steps)
        earlier = [_frames(entry, readable, f"history[{number}].") for number, entry in enumerate(entries)]
        return fields.decode_fields(found, frames, readable, find_ignored_fields(found), earlier)
    except ObservationError as error:
        error.request_id = request_id
        raise


def _decode_arrays(found: Document, readable: Readable) -> DecodedRequest:
    """Return the request of an object in which other servers' clients put arrays. Raises BodyError, ObservationError."""
    inner = json_numpy.unwrapped(found)
    packed = inner is not found
    own, tagged = json_numpy.parted(inner)
    if not json_numpy.holds_arrays(tagged):  # a text that looks like a tag, or our own body in a string
        decoded = decode_object(dict(inner), readable)
        return (
            replace(decoded, form=json_numpy.form_of(json_numpy.OBJECT, packed=packed)) if packed else decoded
        )
    return json_numpy.decode(own, tagged, _frames(own, readable), readable, packed=packed)


def _frames(found: Mapping[str, Any], readable: Readable, where: str = "") -> dict[str, Frame]:
    """Return the images of a request, or of one of its earlier observations. where: before their names in refusals."""
    frames: dict[str, Frame] = {}
    for camera, field, value in _pictures(found, readable.cameras):
        if camera in frames:
            raise ObservationError(
                f"'{where}{field}': camera '{camera}' has two images in this request", "bad-image"
            )
        frames[camera] = _frame(f"{where}{field}", value, readable.max_pixels)
    return frames


def _pictures(fields: Mapping[str, Any], cameras: tuple[str, ...]) -> list[tuple[str, str, object]]:
    """Return (camera, field, value) of every image in the request. An empty string or null is no image."""
    found: list[tuple[str, str, object]] = []
    for position, field in enumerate(("image", "image_wrist")):
        value = fields.get(field)
        if value is None or value == "":
            continue
        if position >= len(cameras):
            raise ObservationError(
                f"'{field}' is camera number {position + 1}; there are {len(cameras)}: {_named(cameras)}",
                "unknown-camera",
            )
        found.append((cameras[position], field, value))
    named = fields.get("images") or {}
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
    data = _decoded(field, _data(field, value) if isinstance(value, dict) else value)
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
    frame = Frame(_decoded(field, _data(field, value)), encoding, height, width, step)
    try:
        check_raw(frame)
    except ObservationError as error:
        raise ObservationError(f"'{field}': {error}", error.slug) from error
    return frame


def _pixel_count(field: str, value: Document, key: str) -> int:
    number = value.get(key, 0 if key == "step" else None)
    if not is_whole(number, 0, 2**31 - 1):
        raise ObservationError(f"'{field}.{key}' must be a whole number, got {shown(number)}", "bad-image")
    return number


def _data(field: str, value: Document) -> object:
    if value.get("data") is None:
        raise ObservationError(f"'{field}' has no image: 'data' is missing from the object", "bad-image")
    return value["data"]


def _decoded(field: str, value: object) -> bytes:
    """Decode base64, standard or URL-safe, with or without a data: prefix, line breaks and padding."""
    if not isinstance(value, str):
        raise ObservationError(f"'{field}' must be a base64 string, got {shown(value)}", "bad-base64")
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return decoded(text)
    except ValueError:
        pass  # not plain base64: perhaps one of the other spellings
    text = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return decoded(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise ObservationError(f"'{field}' is not base64", "bad-base64") from error
