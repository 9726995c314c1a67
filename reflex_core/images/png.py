# SPDX-License-Identifier: Apache-2.0
"""PNG files, through OpenCV; of 16 bits the high byte."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.images.file_kind import FileHeader, FileKind
from reflex_core.images.png_chunks import pixel_chunks
from reflex_core.values import Pixels

NAME = "png"
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette becomes colour
_AS_STORED = cv2.IMREAD_IGNORE_ORIENTATION


def _header(data: bytes | memoryview) -> FileHeader:
    head = bytes(data[:26])
    if len(head) < 26:
        raise ObservationError("the image is a damaged PNG: it ends inside its header", "bad-image")
    width, height, _, colour = struct.unpack(">IIBB", head[16:26])
    return FileHeader(NAME, height, width, _CHANNELS.get(colour, 3))


def _decode(data: bytes | memoryview) -> Pixels:
    return np.asarray(cv2.cvtColor(_read(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _decode_grey(data: bytes | memoryview) -> Pixels:
    return np.asarray(_read(data, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)[:, :, None]


def _read(data: bytes | memoryview, colours: int) -> Pixels:
    flat = np.frombuffer(pixel_chunks(data), dtype=np.uint8)
    try:
        pixels = cv2.imdecode(flat, colours | _AS_STORED)
    except cv2.error:  # its own limit of pixels, which is larger than ours
        pixels = None
    if pixels is None:
        raise ObservationError("the image is a damaged PNG", "bad-image")
    return np.asarray(pixels, dtype=np.uint8)


KIND = FileKind(NAME, "PNG", b"\x89PNG\r\n\x1a\n", _header, _decode, _decode_grey)
