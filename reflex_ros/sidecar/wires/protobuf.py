# SPDX-License-Identifier: Apache-2.0
"""The few bytes of protobuf that LeRobot's messages have: an enumeration and a field of bytes. No protobuf library is needed."""

from __future__ import annotations

from reflex_ros.sidecar.problems import BodyError

VARINT, LENGTH, FIXED64, FIXED32 = 0, 2, 1, 5
MOST_VARINT_BYTES = 10


class ProtobufError(BodyError):
    """Bytes that are no message of protobuf."""

    slug = "malformed-protobuf"


def fields_of(message: bytes) -> dict[int, int | memoryview]:
    """Return the fields of a message by number, the last of each: an integer, or a view of bytes. Raises ProtobufError."""
    data, at = memoryview(message), 0
    found: dict[int, int | memoryview] = {}
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == VARINT:
            found[tag >> 3], at = _varint(data, at)
        elif kind in (LENGTH, FIXED64, FIXED32):
            size, at = _varint(data, at) if kind == LENGTH else (8 if kind == FIXED64 else 4, at)
            if size > len(data) - at:
                raise ProtobufError(f"the message announces {size} bytes and has {len(data) - at}")
            found[tag >> 3], at = data[at : at + size], at + size
        else:
            raise ProtobufError(f"the message has a field of kind {kind}, which protobuf has not")
    return found


def bytes_field(number: int, data: bytes) -> bytes:
    """Return a message with one field of bytes; empty where those are, as protobuf writes it."""
    if not data:
        return b""
    size, prefix = len(data), bytearray([number << 3 | LENGTH])
    while size > 0x7F:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + data


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for number in range(MOST_VARINT_BYTES):
        if at + number >= len(data):
            break
        byte = data[at + number]
        value |= (byte & 0x7F) << (7 * number)
        if byte < 0x80:
            return value, at + number + 1
    raise ProtobufError("the message is incomplete or damaged")
