# SPDX-License-Identifier: Apache-2.0
"""Schema version 1 of the trace, read: records of this package and of every other writer of version 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reflex_core.errors import ObservationError, ReflexError
from reflex_core.files.json_fields import JsonFields, is_whole
from reflex_core.files.json_lines import floats
from reflex_core.records.trace.hashing import frame_from
from reflex_core.records.trace.schema import SCHEMA_VERSION, Failure
from reflex_core.reports import NOT_CACHED
from reflex_core.text.base64_bytes import decoded
from reflex_core.values import Floats, Frame

SINGLE_CAMERA = "image"  # other writers keep one image and no camera name


class TraceError(ReflexError):
    """A trace that cannot be read: one sentence with file, line, expected and actual value."""

    slug = "bad-trace"


@dataclass(frozen=True, slots=True)
class RecordedImage:
    """One camera of one request. `text` is its file in base64, None where only the hash was recorded."""

    sha256: str
    text: str | None

    def data(self) -> bytes | None:
        """Return the image file. Raises TraceError when the text is not base64."""
        if self.text is None:
            return None
        try:
            return decoded(self.text)
        except ValueError as error:
            raise TraceError(f"the recorded image {self.sha256} is not base64: {error}") from error

    def frame(self) -> Frame | None:
        """Return the frame as the policy takes it, not yet decoded. Raises TraceError when it is no known kind of file."""
        data = self.data()
        try:
            return None if data is None else frame_from(data)
        except ObservationError as error:
            raise TraceError(f"the recorded image {self.sha256}: {error}") from error


@dataclass(frozen=True, slots=True)
class RecordedObservation:
    """One of the observations before a request's own, for a policy that sees several."""

    state: Floats | None
    images: Mapping[str, RecordedImage]
    stamp_ns: int = 0


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request of a trace. What its writer did not record is None or empty.

    actions, raw_actions: (num_actions, action_dim) float32, bit for bit; raw_actions are those before the guard.
    seed: the start noise was drawn from it. total_ms: 0.0 for a request that failed. document: all that was written.
    history: the observations before it, oldest first. batch_size: requests that shared the run of the network.
    """

    seq: int
    timestamp: str
    instruction: str
    state: Floats | None
    images: Mapping[str, RecordedImage]
    actions: Floats
    raw_actions: Floats
    total_ms: float
    stages_ms: Mapping[str, float | None]
    denoise_steps: int
    max_steps: int | None
    mode: str
    cache_status: str
    episode_id: str | None
    request_id: str
    stamp_ns: int
    seed: int | None
    slot: str
    source: str
    start_index: int
    dt_s: float | None
    names: tuple[str, ...]
    model_version: str
    error: Failure | None
    document: Mapping[str, Any]
    history: tuple[RecordedObservation, ...] = ()
    batch_size: int = 1


def check_version(document: Mapping[str, Any], where: str) -> None:
    """Raise TraceError for a record of another schema version."""
    version = document.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise TraceError(
            f"{where}: schema_version {_shown(version)} is not known; this reader knows {SCHEMA_VERSION}"
        )


def recorded(document: Mapping[str, Any], where: str) -> Recorded:
    """Read one request record. Raises TraceError naming the field that violates the schema."""

    def refuse(key: str, expected: str, got: object) -> TraceError:
        return TraceError(f"{where}: {key} must be {expected}, got {_shown(got)}")

    read = JsonFields(document, refuse)
    request, response = read.fields("request"), read.fields("response")
    noise, routing, error, latency, denoise, cache = (
        read.fields(name, optional=True)
        for name in ("noise", "routing", "error", "latency", "denoise", "cache")
    )
    actions = _matrix(response.get("actions"), f"{where}: response.actions")
    raw = response.get("raw_actions")
    state = request.get("state")
    return Recorded(
        seq=read.whole("seq", 0),
        timestamp=str(document.get("timestamp") or ""),
        instruction=str(request.get("instruction") or ""),
        state=None if state is None else _vector(state, f"{where}: request.state"),
        images=_images(request, f"{where}: request"),
        actions=actions,
        raw_actions=actions if raw is None else _matrix(raw, f"{where}: response.raw_actions"),
        total_ms=_number(latency, "total_ms", 0.0),
        stages_ms=latency["stages"] if isinstance(latency.get("stages"), dict) else {},
        denoise_steps=_whole(denoise, "steps_used") or 0,
        max_steps=_whole(read, "max_steps"),
        mode=str(document.get("mode") or ""),
        cache_status=str(cache.get("status") or NOT_CACHED),
        episode_id=None if request.get("episode_id") is None else str(request["episode_id"]),
        request_id=str(request.get("request_id") or ""),
        stamp_ns=_whole(request, "stamp_ns") or 0,
        seed=_whole(noise, "seed"),
        slot=str(document.get("slot") or routing.get("slot") or "prod"),
        source=str(response.get("source") or "policy"),
        start_index=_whole(response, "start_index") or 0,
        dt_s=_number(response, "dt_s", None),
        names=response.names("names") if response.get("names") else (),
        model_version=str(document.get("model_version") or ""),
        error=Failure(str(error.get("slug")), str(error.get("message"))) if error else None,
        document=document,
        history=_history(request, where),
        batch_size=_whole(read, "batch_size") or 1,
    )


def _history(request: Mapping[str, Any], where: str) -> tuple[RecordedObservation, ...]:
    entries = request.get("history") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TraceError(f"{where}: request.history must be a list of objects, got {_shown(entries)}")
    return tuple(
        _earlier(entry, f"{where}: request.history[{number}]") for number, entry in enumerate(entries)
    )


def _earlier(entry: Mapping[str, Any], where: str) -> RecordedObservation:
    state, stamp_ns = entry.get("state"), entry.get("stamp_ns") or 0
    if not is_whole(stamp_ns):
        raise TraceError(f"{where}.stamp_ns must be a whole number, got {_shown(stamp_ns)}")
    return RecordedObservation(
        None if state is None else _vector(state, f"{where}.state"), _images(entry, where), stamp_ns
    )


def _number(block: JsonFields, name: str, default: Any) -> Any:
    """Read a number, which may be NaN: other writers leave it bare."""
    value = block.get(name)
    if value is None:
        return default
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise block.refusal(name, "a number")
    return value


def _whole(block: JsonFields, name: str) -> int | None:
    return None if block.get(name) is None else block.whole(name)


def _images(observation: Mapping[str, Any], where: str) -> dict[str, RecordedImage]:
    """Return the images of a request, or of an observation before it. where: file, line and field."""
    cameras = observation.get("cameras") or {}
    if not isinstance(cameras, dict) or not all(isinstance(block, dict) for block in cameras.values()):
        raise TraceError(f"{where}.cameras must be an object of objects, got {_shown(cameras)}")
    primary = str(observation.get("camera") or SINGLE_CAMERA)
    blocks = [(primary, observation, where)]
    blocks += [(name, block, f"{where}.cameras.{name}") for name, block in cameras.items() if name != primary]
    images = ((name, _image(block, field)) for name, block, field in blocks)
    return {name: image for name, image in images if image is not None}


def _image(block: Mapping[str, Any], where: str) -> RecordedImage | None:
    digest, text = block.get("image_sha256"), block.get("image_b64")
    if digest is None and text is None:
        return None
    if not isinstance(digest, str) or not isinstance(text, (str, type(None))):
        raise TraceError(
            f"{where}: image_sha256 and image_b64 must be text, got {_shown(digest)}, {_shown(text)}"
        )
    return RecordedImage(digest, text)


def _vector(value: Any, where: str) -> Floats:
    array = _array(value, where)
    if array.ndim != 1:
        raise TraceError(f"{where} must be a list of numbers, got {_shown(value)}")
    return array


def _matrix(value: Any, where: str) -> Floats:
    array = _array(value, where)
    if array.size == 0 and array.ndim <= 2:
        return array.reshape(0, 0)
    if array.ndim != 2:
        raise TraceError(f"{where} must be a list of rows of equal length, got {_shown(value)}")
    return array


def _array(value: Any, where: str) -> Floats:
    if not isinstance(value, list):
        raise TraceError(f"{where} must be a list, got {_shown(value)}")
    try:
        return floats(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise TraceError(f"{where} must hold numbers in rows of equal length: {str(error)[:100]}") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
