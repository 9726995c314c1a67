# SPDX-License-Identifier: Apache-2.0
"""JPEG and PNG files as pixels, as they lie in the file.

An EXIF orientation is not followed, in neither kind: policies were trained on pictures as PIL.Image.open gives them
(LeRobot) or as arrays (openpi), which do not turn either.
"""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

from reflex_core.errors import ObservationError
from reflex_core.images import jpeg_repair
from reflex_core.images.png_chunks import pixel_chunks
from reflex_core.values import Pixels

_AS_STORED = cv2.IMREAD_IGNORE_ORIENTATION


def decode_jpeg(data: bytes | memoryview) -> Pixels:
    """Return (height, width, 3) uint8 RGB. What webcams get wrong is mended; ObservationError for what is damaged."""
    return _jpeg(data, "RGB")


def decode_png(data: bytes | memoryview) -> Pixels:
    """Return (height, width, 3) uint8 RGB; of 16 bits the high byte. Raises ObservationError."""
    return np.asarray(cv2.cvtColor(_png(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def decode_grey(data: bytes | memoryview, encoding: str) -> Pixels:
    """Return (height, width, 1) uint8 of a grey file, as a Bayer mosaic is sent. Raises ObservationError."""
    if encoding == "jpeg":
        return _jpeg(data, "GRAY")
    return np.asarray(_png(data, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)[:, :, None]


def _jpeg(data: bytes | memoryview, colorspace: str) -> Pixels:
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace=colorspace)
    except ValueError as error:
        pixels = jpeg_repair.decode_mended(bytes(data), str(error), colorspace)
    return pixels


def _png(data: bytes | memoryview, colours: int) -> Pixels:
    flat = np.frombuffer(pixel_chunks(data), dtype=np.uint8)
    try:
        pixels = cv2.imdecode(flat, colours | _AS_STORED)
    except cv2.error:  # its own limit of pixels, which is larger than ours
        pixels = None
    if pixels is None:
        raise ObservationError("the image is a damaged PNG", "bad-image")
    return np.asarray(pixels, dtype=np.uint8)
