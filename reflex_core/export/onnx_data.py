# SPDX-License-Identifier: Apache-2.0
"""Which files an ONNX graph keeps its weights in, read from the protobuf itself: serving has no onnx library.

Only lengths are read of what holds no names, so a graph of 2 GB costs as many steps as it has nodes and tensors.
Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# message -> field -> message of what lies in it; only the ways to a tensor
_WAYS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA = 13
_MOST_DEPTH = 64


def external_data(graph: Path) -> tuple[str, ...]:
    """Return the locations that the tensors of a graph name, as they are written; () for what is no ONNX file.

    Raises OSError. A truncated file gives what is before the cut: onnxruntime refuses it with its own message.
    """
    with graph.open("rb") as stream:
        if not stream.seek(0, 2):
            return ()
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found: dict[str, None] = {}
            try:
                for name in _locations(data, 0, len(data), "model", _MOST_DEPTH):
                    found[name] = None
            except (IndexError, UnicodeDecodeError, ValueError):
                pass
            return tuple(found)


def _locations(data: mmap.mmap, at: int, end: int, message: str, depth: int) -> Iterator[str]:
    if depth == 0:
        return
    ways = _WAYS.get(message, {})
    for field, start, stop in _fields(data, at, end):
        if message == "tensor":
            if field == _EXTERNAL_DATA:
                key, value = _entry(data, start, stop)
                if key == "location":
                    yield value
        elif field in ways:
            yield from _locations(data, start, stop, ways[field], depth - 1)


def _entry(data: mmap.mmap, at: int, end: int) -> tuple[str, str]:
    """Parse a StringStringEntryProto."""
    texts = {1: "", 2: ""}
    for field, start, stop in _fields(data, at, end):
        if field in texts:
            texts[field] = data[start:stop].decode()
    return texts[1], texts[2]


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number, begin, end) of every length-delimited field between `at` and `end`. Raises ValueError for other bytes."""
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _varint(data, at)
            if at + size > end:
                raise ValueError("a field reaches beyond its message")
            yield tag >> 3, at, at + size
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"no protobuf: wire type {kind}")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Return (value, where the next field begins)."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("no protobuf: a number of more than ten bytes")
