# SPDX-License-Identifier: Apache-2.0
"""Decode JPEG files with simplejpeg, after repairing the faults of webcams."""

from __future__ import annotations

import simplejpeg

from reflex_core.errors import ObservationError
from reflex_core.images import jpeg_repair
from reflex_core.images.file_kind import FileHeader, FileKind
from reflex_core.values import Pixels

NAME = "jpeg"
# of a progressive JPEG; real ones have about ten, and every one costs a pass over all pixels
MOST_SCANS = 100
SCAN = b"\xff\xda"  # their marker
_SOFS = (0xC0, 0xC1)  # sequential JPEG: a decoder reads each of its components once
# what may follow 0xff without a length of two bytes
_WITHOUT_LENGTH = frozenset((0x00, 0x01, *range(0xD0, 0xDA), 0xFF))


def _header(data: bytes | memoryview) -> FileHeader:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError) as error:  # KeyError: a header that names no subsampling
        raise ObservationError(f"the image is a damaged JPEG: {error}", "bad-image") from error
    whole = bytes(data)
    if not _one_scan(whole) and whole.count(SCAN) > MOST_SCANS:
        raise ObservationError(f"the image is a JPEG of more than {MOST_SCANS} scans", "bad-image")
    return FileHeader(NAME, height, width, {"Gray": 1, "CMYK": 4, "YCCK": 4}.get(colours, 3))


def _one_scan(data: bytes) -> bool:
    """Return True only where the first scan of a sequential JPEG has all components: libjpeg reads no other one then.

    As in most files. It takes a fifth of the time that counting does, and no other thread gets its turn in between.
    """
    place, components = 2, 0
    while place + 10 <= len(data) and data[place] == 0xFF and data[place + 1] not in _WITHOUT_LENGTH:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == SCAN[1]:
            return 0 < components == data[place + 4]
        if marker in _SOFS:
            components = data[place + 9]
        place += 2 + length
    return False


def _decode(data: bytes | memoryview, colorspace: str = "RGB") -> Pixels:
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace=colorspace)
    except ValueError as error:
        pixels = jpeg_repair.decode_mended(bytes(data), str(error), colorspace)
    return pixels


KIND = FileKind(NAME, "JPEG", b"\xff\xd8", _header, _decode, lambda data: _decode(data, "GRAY"))
