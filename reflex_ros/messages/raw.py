# SPDX-License-Identifier: Apache-2.0
"""Raw messages: the serialized bytes as received, fields and pixels read in place.

Most frames of a camera are never decoded, because inference takes the newest. Keeping the bytes costs less than
building a message, and a bag gets exactly what the sensor sent.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reflex_core.errors import ObservationError
from reflex_core.images.file_kind import MAX_PIXELS, check_pixels
from reflex_core.images.raw_encodings import ENCODINGS, MONO16, big_endian_grey, check_raw
from reflex_core.values import Frame
from reflex_ros.messages.compressed import compressed_frame

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_ENCAPSULATION = 4  # bytes before the data; what is aligned is aligned from there


@dataclass(frozen=True, slots=True, eq=False)
class RawMessage:
    """One received message. kind: its type, such as sensor_msgs/msg/Image. raw: CDR with its encapsulation header.

    stamp_ns: its sensor stamp, or its time of arrival for a sensor that leaves it empty. received_ns: on the robot's
    clock.
    """

    topic: str
    kind: str
    raw: bytes
    stamp_ns: int
    received_ns: int


@dataclass(frozen=True, slots=True)
class Consumed:
    """The messages that one observation was made of. images: by camera. history: those of the observations before it."""

    images: Mapping[str, RawMessage]
    states: Sequence[RawMessage]
    history: Sequence[Consumed] = ()


def kind_of(message_class: type) -> str:
    """Return the type name of a message class, such as `sensor_msgs/msg/Image`."""
    return f"{message_class.__module__.split('.')[0]}/msg/{message_class.__name__}"


def header_stamp_ns(raw: bytes) -> int:
    """Return the stamp of a serialized message that begins with std_msgs/Header, in nanoseconds."""
    seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, _ENCAPSULATION)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def image_frame(arrival: RawMessage, max_pixels: int = MAX_PIXELS) -> Frame:
    """Return the pixels of an Image or CompressedImage, not decoded and not copied.

    Raises ObservationError when it is damaged, or has more than `max_pixels`.
    """
    read = _compressed if arrival.kind == COMPRESSED_IMAGE else _raw_rows
    try:
        return read(arrival.raw, max_pixels)
    except ObservationError as error:
        raise ObservationError(f"{arrival.topic}: {error}", error.slug) from error
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ObservationError(
            f"a message of {len(arrival.raw)} bytes on {arrival.topic} is no {arrival.kind}: {error}",
            "bad-image",
        ) from error


def string_data(raw: bytes) -> str:
    """Return the text of a serialized std_msgs/String. Raises ValueError when damaged."""
    read = _Reading(raw)
    try:
        return read.sequence(read.uint32())[:-1].tobytes().decode()
    except struct.error as error:
        raise ValueError(f"a message of {len(raw)} bytes is no std_msgs/msg/String: {error}") from error


def _raw_rows(raw: bytes, max_pixels: int) -> Frame:
    read = _after_header(raw)
    height, width = read.uint32(), read.uint32()
    encoding = read.sequence(read.uint32())[:-1].tobytes().decode()
    big_endian = read.uint8()  # concerns 16-bit pixels only
    step = read.uint32()
    frame = Frame(read.sequence(read.uint32()), encoding, height, width, step)
    check_pixels(height, width, max_pixels)
    if encoding in ENCODINGS:  # of what only cv_bridge knows it checks the size
        check_raw(frame)
    if big_endian and encoding == MONO16:
        return replace(frame, encoding=f"{MONO16} big-endian", decoder=big_endian_grey)
    return frame


def _compressed(raw: bytes, max_pixels: int) -> Frame:
    read = _after_header(raw)
    format_ = read.sequence(read.uint32())[:-1].tobytes().decode(errors="replace")
    return compressed_frame(read.sequence(read.uint32()), format_, max_pixels)


def _after_header(raw: bytes) -> _Reading:
    read = _Reading(raw)
    read.uint32()
    read.uint32()
    read.sequence(read.uint32())
    return read


class _Reading:
    """A reader of CDR from front to back. Raises struct.error at its end."""

    def __init__(self, raw: bytes) -> None:
        self._data = memoryview(raw)[_ENCAPSULATION:]
        self._uint32 = "<I" if raw[1] & 1 else ">I"
        self._at = 0

    def uint8(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def uint32(self) -> int:
        self._at += -self._at % 4
        (value,) = struct.unpack_from(self._uint32, self._data, self._at)
        self._at += 4
        return int(value)

    def sequence(self, length: int) -> memoryview:
        """Return the next `length` bytes, in place."""
        end = self._at + length
        if end > len(self._data):
            raise struct.error(
                f"it says it has {length} bytes from {self._at} on, and has {len(self._data)} in all"
            )
        self._at, begin = end, self._at
        return self._data[begin:end]
