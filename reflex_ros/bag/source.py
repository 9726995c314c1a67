# SPDX-License-Identifier: Apache-2.0
"""Read a recorded bag back as the requests that a replay runs. Needs rosbags, and no ROS."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError

from reflex_core.errors import ObservationError
from reflex_core.files.json_fields import is_whole
from reflex_core.records.trace.hashing import base64_text, encoded, text_hash
from reflex_core.records.trace.parse import Recorded, RecordedImage, TraceError, check_version, recorded
from reflex_core.records.trace.schema import HEADER, REQUEST
from reflex_ros.bag.topic_types import CONSUMED, CONSUMED_BEFORE, FULL_RATE, STRING, TRACE
from reflex_ros.messages.raw import (
    COMPRESSED_IMAGE,
    IMAGE,
    RawMessage,
    header_stamp_ns,
    image_frame,
    string_data,
)

IMAGES_KEPT = (
    8  # per topic and observation; a record follows its images closely, so only the newest can be meant
)

MOST_STEPS = 64  # of observations that a policy sees
MESSAGE_LENGTH = 300

Document = dict[str, Any]


def _is_at(image: RawMessage, place: Mapping[str, Any]) -> bool:
    """Return whether a place means this image: in simulated time several may come at the same moment."""
    stamp_ns = header_stamp_ns(image.raw)  # 0 where the driver leaves it empty
    return image.received_ns == place.get("received_ns") and stamp_ns in (0, place.get("stamp_ns", stamp_ns))


def unreadable(path: Path, error: Exception) -> TraceError:
    """Return the error in one sentence. rosbags' parsers raise arbitrary exceptions on damaged files."""
    message = error if isinstance(error, ReaderError | OSError) else f"{type(error).__name__}: {error}"
    what = " ".join(str(message).split())[:MESSAGE_LENGTH].rstrip(".")
    return TraceError(
        f"{path}: cannot be read as a bag: {what}; `reflex bag reindex DIR` mends one that was cut off"
    )


class BagSource:
    """One bag, as a directory or as one of its files. Iterate once: it yields a Recorded per request.

    The images of a record are those that inference consumed, as files: JPEG and PNG as they were sent, raw frames as the
    PPM that a trace would have kept. header: that of the trace inside. warnings: what was wrong but could be read
    around; damage: those of them that mean that something is missing. Raises TraceError, in the constructor and while
    iterating.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.damage: list[str] = []
        self._read = 0
        self._stack = ExitStack()
        try:
            self._open(path)
        except BaseException:
            self.close()
            raise

    def _open(self, path: Path) -> None:
        try:
            self._reader = self._stack.enter_context(Reader(path))
            connections = self._reader.connections
            self._trace = [c for c in connections if c.msgtype == STRING and c.topic.endswith(f"/{TRACE}")]
            cameras = [c for c in connections if c.msgtype in (IMAGE, COMPRESSED_IMAGE)]
            self._connections = [*cameras, *self._trace]
            self._total = sum(connection.msgcount for connection in self._connections)
            self.header: Mapping[str, Any] = self._header()
        except FileNotFoundError as error:
            raise TraceError(
                f"{path}: holds no metadata.yaml: a bag that was cut off, `reflex bag reindex {path}` makes it whole"
            ) from error
        except TraceError:
            raise
        except Exception as error:
            raise unreadable(path, error) from error

    def __enter__(self) -> BagSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    @property
    def fraction(self) -> float:
        """The fraction of the bag that has been read, 0 to 1; valid while iterating."""
        return self._read / self._total if self._total else 1.0

    def __iter__(self) -> Iterator[Recorded]:
        images: dict[str, deque[RawMessage]] = {}
        steps = self.header.get("observation_steps", 1)
        most = IMAGES_KEPT * (steps if is_whole(steps, 1, MOST_STEPS) else 1)
        try:
            consumed = self._consumed() if self.full_rate else None
            for connection, time_ns, raw in self._reader.messages(self._connections):
                self._read += 1
                if connection.msgtype != STRING:
                    if consumed is not None and time_ns not in consumed.get(connection.topic, ()):
                        continue
                    kept = images.setdefault(connection.topic, deque(maxlen=most))
                    kept.append(RawMessage(connection.topic, connection.msgtype, raw, 0, time_ns))
                    continue
                where, document = self._document(connection, time_ns, raw)
                if document.get("kind") == REQUEST:
                    yield self._recorded(document, where, images)
        except TraceError:
            raise
        except Exception as error:
            raise unreadable(self.path, error) from error

    @property
    def full_rate(self) -> bool:
        """True where every message of the sensors was recorded, not only those that inference consumed."""
        settings = self.header.get("settings")
        return isinstance(settings, dict) and settings.get("record_bag_streams") == FULL_RATE

    def _consumed(self) -> dict[str, set[int]]:
        """Return when the images were received that inference consumed, by topic; from a reading of its own.

        Any number of others may lie between an image and the record of its answer, and must not have to be kept.
        """
        found: dict[str, set[int]] = {}
        for _, document in self.notes(REQUEST):
            before = document.get(CONSUMED_BEFORE)
            for places in (document.get(CONSUMED), *(before if isinstance(before, list) else ())):
                for place in places.values() if isinstance(places, dict) else ():
                    if isinstance(place, dict) and isinstance(place.get("received_ns"), int):
                        found.setdefault(str(place.get("topic")), set()).add(place["received_ns"])
        return found

    def notes(self, *kinds: str) -> Iterator[tuple[str, Document]]:
        """Yield (where, record) of every record of these kinds in the trace inside, in order; instead of iterating."""
        try:
            for connection, time_ns, raw in self._reader.messages(self._trace):
                where, document = self._document(connection, time_ns, raw)
                if document.get("kind") in kinds:
                    yield where, document
        except TraceError:
            raise
        except Exception as error:
            raise unreadable(self.path, error) from error

    @property
    def topics(self) -> dict[str, str]:
        """Return type by topic of everything that was a message, without the trace inside."""
        inside = {connection.topic for connection in self._trace}
        return {c.topic: c.msgtype for c in self._reader.connections if c.topic not in inside}

    def is_own(self, topic: str) -> bool:
        """Return True for topics that the recorded node published under its own name, as `~/action_chunk`."""
        return any(topic.startswith(each.topic.removesuffix(TRACE)) for each in self._trace)

    def messages(self, kinds: Container[str]) -> Iterator[tuple[str, int, bytes]]:
        """Yield (topic, time in ns, CDR bytes) of every message of these types, in order. Instead of iterating."""
        connections = [c for c in self._reader.connections if c.msgtype in kinds]
        self._total, self._read = sum(connection.msgcount for connection in connections), 0
        try:
            for connection, time_ns, raw in self._reader.messages(connections):
                self._read += 1
                yield connection.topic, time_ns, raw
        except Exception as error:
            raise unreadable(self.path, error) from error

    def definition(self, kind: str) -> str:
        """Return the definition of a type as the bag has it. Raises TraceError where it has none."""
        for connection in self._reader.connections:
            if connection.msgtype == kind:
                return str(connection.msgdef.data)
        raise TraceError(f"{self.path}: holds no message of type {kind}")

    def record(self, topic: str, time_ns: int, raw: bytes) -> Document | None:
        """Return the record that a message of the trace inside is; None for any other message."""
        connection = next((c for c in self._trace if c.topic == topic), None)
        return None if connection is None else self._document(connection, time_ns, raw)[1]

    def request(self, topic: str, time_ns: int, raw: bytes) -> Recorded | None:
        """Return the request that a message of the trace inside holds, without its images; None for any other message."""
        connection = next((c for c in self._trace if c.topic == topic), None)
        if connection is None:
            return None
        where, document = self._document(connection, time_ns, raw)
        return recorded(document, where) if document.get("kind") == REQUEST else None

    def _header(self) -> Document:
        for connection, time_ns, raw in self._reader.messages(self._trace) if self._trace else ():
            where, document = self._document(connection, time_ns, raw)
            if document.get("kind") == HEADER:
                return document
            break
        raise TraceError(
            f"{self.path}: has no topic that ends with /{TRACE} and begins with a header: only bags that"
            " --record-bag wrote say which messages inference consumed"
        )

    def _document(self, connection: Connection, time_ns: int, raw: bytes) -> tuple[str, Document]:
        where = f"{self.path}: {connection.topic} at {time_ns}"
        try:
            document = orjson.loads(string_data(raw))
        except ValueError as error:
            raise TraceError(f"{where}: the message is not JSON: {str(error)[:100]}") from error
        if not isinstance(document, dict):
            raise TraceError(f"{where}: must be a JSON object, got {type(document).__name__}")
        check_version(document, where)
        return where, document

    def _recorded(self, document: Document, where: str, images: Mapping[str, deque[RawMessage]]) -> Recorded:
        found = recorded(document, where)
        before = document.get(CONSUMED_BEFORE) or []
        if not isinstance(before, list) or len(before) > len(found.history):
            raise TraceError(
                f"{where}: {CONSUMED_BEFORE} must be a list of at most {len(found.history)} objects"
            )
        history = [
            replace(one, images=self._images(places, where, images))
            for one, places in zip(found.history, before, strict=False)
        ]
        own = self._images(document.get(CONSUMED), where, images)
        return replace(found, images=own, history=tuple(history))

    def _images(
        self, places: object, where: str, images: Mapping[str, deque[RawMessage]]
    ) -> dict[str, RecordedImage]:
        """Return the images at these places in the bag, by camera; one that is not there is damage."""
        if not isinstance(places, dict) or not all(isinstance(place, dict) for place in places.values()):
            raise TraceError(f"{where}: {CONSUMED} must be an object of objects")
        found: dict[str, RecordedImage] = {}
        for camera, place in places.items():
            arrival = next((a for a in images.get(str(place.get("topic")), ()) if _is_at(a, place)), None)
            if arrival is None:
                self._damaged(f"{where}: the image of camera '{camera}' is not in the bag")
                continue
            try:
                text = base64_text(encoded(image_frame(arrival)))
            except ObservationError as error:
                raise TraceError(f"{where}: {error}") from error
            found[camera] = RecordedImage(text_hash(text), text)
        return found

    def _damaged(self, message: str) -> None:
        self.damage.append(message)
        self.warnings.append(message)
