# SPDX-License-Identifier: Apache-2.0
"""JPEG and PNG files as cameras, phones and attackers make them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import cv2
import numpy as np

from reflex_core.values import Pixels

RESTARTS = range(0xD0, 0xD8)


def scene(height: int = 96, width: int = 128) -> Pixels:
    """Smooth colours, different everywhere; neither a turn nor a channel swap maps them onto themselves."""
    small = np.random.default_rng(3).integers(0, 255, (7, 9, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def restarting(picture: Pixels, every: int = 4) -> bytes:
    """A JPEG with a restart marker after every few units, as USB webcams send."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 85, cv2.IMWRITE_JPEG_RST_INTERVAL, every]
    return bytes(cv2.imencode(".jpg", picture[:, :, ::-1], options)[1])


def progressive(picture: Pixels) -> bytes:
    return bytes(cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1])


def taken_apart(jpeg: bytes) -> tuple[bytes, list[bytes]]:
    """(everything up to the entropy-coded data, the data between the restart markers)."""
    scan = jpeg.index(b"\xff\xda")
    begin = scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big")
    data, parts, start = jpeg[begin:-2], [], 0
    for at in range(len(data) - 1):
        if data[at] == 0xFF and data[at + 1] in RESTARTS:
            parts.append(data[start:at])
            start = at + 2
    return jpeg[:begin], [*parts, data[start:]]


def put_together(head: bytes, parts: Sequence[bytes], end: bytes = b"\xff\xd9") -> bytes:
    marked = [parts[0]]
    for index, part in enumerate(parts[1:]):
        marked += [bytes((0xFF, RESTARTS[index % 8])), part]
    return head + b"".join(marked) + end


def without_tables(jpeg: bytes) -> bytes:
    """Motion JPEG leaves the Huffman tables out: everybody knows them."""
    kept, at = [jpeg[:2]], 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] != 0xC4:
            kept.append(jpeg[at:end])
        at = end
    return b"".join([*kept, jpeg[at:]])


def block(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header says that size, whatever follows."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", head) + block(b"IDAT", data) + block(b"IEND", b"")


def _exif(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">H", orientation) + bytes(6)


def turned(file: bytes, orientation: int) -> bytes:
    """The same pixels with an EXIF orientation, 1 to 8."""
    if file.startswith(b"\xff\xd8"):
        body = b"Exif\0\0" + _exif(orientation)
        return file[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + file[2:]
    return file[:33] + block(b"eXIf", _exif(orientation)) + file[33:]
