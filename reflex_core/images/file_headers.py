# SPDX-License-Identifier: Apache-2.0
"""Kind and size of a picture from its first bytes, so that a door may refuse it before any work is done."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import simplejpeg

from reflex_core.errors import ObservationError

JPEG, PNG = "jpeg", "png"
FILES = (JPEG, PNG)
MAX_PIXELS = 25_000_000  # where no setting says otherwise
MOST_SCANS = (
    100  # of a progressive JPEG; real ones have about ten, and every one costs a pass over all pixels
)

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette becomes colour


@dataclass(frozen=True, slots=True)
class FileHeader:
    """encoding: jpeg or png. channels: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha (or CMYK)."""

    encoding: str
    height: int
    width: int
    channels: int


def file_header(data: bytes | memoryview) -> FileHeader:
    """Return what the first bytes of a JPEG or PNG say; nothing is decoded. Raises ObservationError when it is neither."""
    head = bytes(data[:32])
    if head.startswith(_PNG_MAGIC):
        return _png(head)
    if head.startswith(b"\xff\xd8"):
        return _jpeg(data)
    raise ObservationError("the image is neither JPEG nor PNG", "bad-image")


def check_pixels(height: int, width: int, max_pixels: int, field: str = "") -> None:
    """Raise ObservationError for a picture without pixels, or with more than `max_pixels`; field: what it came in."""
    said = f"{field and field + ' is '}an image of {width}x{height} pixels"
    if height < 1 or width < 1:
        raise ObservationError(said, "bad-image")
    if height * width > max_pixels:
        raise ObservationError(f"{said}; at most {max_pixels} pixels are accepted", "image-too-large")


def _png(head: bytes) -> FileHeader:
    if len(head) < 26:
        raise ObservationError("the image is a damaged PNG: it ends inside its header", "bad-image")
    width, height, _, colour = struct.unpack(">IIBB", head[16:26])
    return FileHeader(PNG, height, width, _PNG_CHANNELS.get(colour, 3))


def _jpeg(data: bytes | memoryview) -> FileHeader:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError) as error:  # KeyError: a header that names no subsampling
        raise ObservationError(f"the image is a damaged JPEG: {error}", "bad-image") from error
    if bytes(data).count(b"\xff\xda") > MOST_SCANS:
        raise ObservationError(f"the image is a JPEG of more than {MOST_SCANS} scans", "bad-image")
    return FileHeader(JPEG, height, width, {"Gray": 1, "CMYK": 4, "YCCK": 4}.get(colours, 3))
