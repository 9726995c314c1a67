# SPDX-License-Identifier: Apache-2.0
"""Decode JPEG files with simplejpeg, after repairing the faults of webcams."""

from __future__ import annotations

import numpy as np
import simplejpeg

from reflex_core.errors import ObservationError
from reflex_core.images import jpeg_repair
from reflex_core.images.file_kind import FileHeader, FileKind
from reflex_core.values import Pixels

NAME = "jpeg"
# of a progressive JPEG; real ones have about ten, and every one costs a pass over all pixels
MOST_SCANS = 100
SCAN = b"\xff\xda"  # their marker
LARGE_BYTES = 1 << 20


def _header(data: bytes | memoryview) -> FileHeader:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError) as error:  # KeyError: a header that names no subsampling
        raise ObservationError(f"the image is a damaged JPEG: {error}", "bad-image") from error
    if _scans(bytes(data)) > MOST_SCANS:
        raise ObservationError(f"the image is a JPEG of more than {MOST_SCANS} scans", "bad-image")
    return FileHeader(NAME, height, width, {"Gray": 1, "CMYK": 4, "YCCK": 4}.get(colours, 3))


def _scans(data: bytes) -> int:
    """Return how many scan headers a file has. numpy takes a seventh of the time of bytes.count, and memory."""
    if len(data) > LARGE_BYTES:
        return data.count(SCAN)
    values = np.frombuffer(data, dtype=np.uint8)
    return int(np.count_nonzero((values[:-1] == SCAN[0]) & (values[1:] == SCAN[1])))


def _decode(data: bytes | memoryview, colorspace: str = "RGB") -> Pixels:
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace=colorspace)
    except ValueError as error:
        pixels = jpeg_repair.decode_mended(bytes(data), str(error), colorspace)
    return pixels


KIND = FileKind(NAME, "JPEG", b"\xff\xd8", _header, _decode, lambda data: _decode(data, "GRAY"))
