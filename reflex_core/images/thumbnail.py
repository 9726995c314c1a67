# SPDX-License-Identifier: Apache-2.0
"""A small JPEG of a frame: decoded and encoded again, so that no byte of an untrusted file goes further."""

from __future__ import annotations

import numpy as np
import simplejpeg

from reflex_core.images.raw_encodings import rgb
from reflex_core.images.scaling import area_averaged
from reflex_core.values import Frame, Pixels

QUALITY = 75


def thumbnail(frame: Frame, longest_side: int) -> bytes:
    """Return a JPEG of at most `longest_side` squared. Raises ObservationError for a frame that cannot be decoded."""
    pixels = _decoded(frame, longest_side)
    height, width = pixels.shape[:2]
    scale = longest_side / max(height, width)
    if scale < 1.0:
        pixels = area_averaged(pixels, max(round(height * scale), 1), max(round(width * scale), 1))
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=QUALITY)
    return data


def _decoded(frame: Frame, longest_side: int) -> Pixels:
    """Return the frame's pixels; a JPEG is decoded at the reduced size a thumbnail needs, four times cheaper."""
    if frame.encoding != "jpeg" or frame.decoder is not None:
        return rgb(frame)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            frame.data, colorspace="RGB", min_height=longest_side, min_width=longest_side
        )
    except ValueError:  # what webcams get wrong is mended there
        return rgb(frame)
    return pixels
