# SPDX-License-Identifier: Apache-2.0
"""Make thumbnails of the frames that inference consumed."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import simplejpeg

from reflex_core.errors import ObservationError
from reflex_core.images.raw_encodings import rgb
from reflex_core.images.scaling import area_averaged
from reflex_core.values import Frame, Pixels

LONGEST_SIDE = 320
QUALITY = 75

log = logging.getLogger(__name__)


def thumbnails(frames: Mapping[str, Frame]) -> list[dict[str, Any]]:
    """Return `camera`, `width`, `height` and base64 `jpeg` of each frame; `problem` instead where it cannot be shown."""
    return [_document(camera, frame) for camera, frame in frames.items()]


def thumbnail(frame: Frame) -> bytes:
    """Return a JPEG of at most 320x320. Raises ObservationError for a frame that cannot be decoded."""
    pixels = _decoded(frame)
    height, width = pixels.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1.0:
        pixels = area_averaged(pixels, max(round(height * scale), 1), max(round(width * scale), 1))
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=QUALITY)
    return data


def _decoded(frame: Frame) -> Pixels:
    """Return the frame's pixels; a JPEG is decoded at the reduced size a thumbnail needs, four times cheaper."""
    if frame.encoding != "jpeg" or frame.decoder is not None:
        return rgb(frame)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            frame.data, colorspace="RGB", min_height=LONGEST_SIDE, min_width=LONGEST_SIDE
        )
    except ValueError:  # what webcams get wrong is mended there
        return rgb(frame)
    return pixels


def _document(camera: str, frame: Frame) -> dict[str, Any]:
    try:
        jpeg = thumbnail(frame)
    except ObservationError as error:
        return {"camera": camera, "problem": str(error)}
    except Exception:
        log.exception("no thumbnail of camera '%.60s'", camera)
        return {"camera": camera, "problem": "no thumbnail; the log has the reason"}
    return {"camera": camera, "jpeg": base64.b64encode(jpeg).decode("ascii"), "bytes": len(jpeg)}
