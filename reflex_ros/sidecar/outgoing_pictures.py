# SPDX-License-Identifier: Apache-2.0
"""Pictures on their way to another server: as they came, as JPEG, or as their bytes, scaled where that is set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg

from reflex_core.images.raw_encodings import rgb
from reflex_core.images.resize import BILINEAR_ANTIALIAS, LETTERBOX, placed, resized
from reflex_core.text.base64_bytes import encoded
from reflex_core.values import Frame, Pixels

JPEG_QUALITY = 95
RAW = "raw"


@dataclass(frozen=True, slots=True)
class OutgoingPictures:
    """How pictures are sent. size: side to which larger ones are scaled, with bars; 0: none is. raw: no JPEG is made."""

    size: int = 0
    raw: bool = False

    def document(self, frame: Frame) -> Any:
        """Return the value of a picture in a JSON request: base64, or an object for raw pixels.

        Raises ObservationError for a frame that cannot be decoded.
        """
        if not self._scales(frame) and _is_file(frame):
            return _text(frame.data)
        pixels = self.pixels(frame)
        if self.raw:
            height, width = pixels.shape[:2]
            return {"data": _text(pixels.tobytes()), "encoding": "rgb8", "height": height, "width": width}
        return _text(simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorspace="RGB"))

    def pixels(self, frame: Frame) -> Pixels:
        """Return (height, width, 3) uint8 RGB. Raises ObservationError for a frame that cannot be decoded."""
        pixels = rgb(frame)
        rows, columns = pixels.shape[:2]
        if self.size == 0 or max(rows, columns) <= self.size:
            return np.ascontiguousarray(pixels)
        box = placed(rows, columns, self.size, self.size, LETTERBOX)
        found = np.zeros((self.size, self.size, 3), np.uint8)
        found[box.rows, box.columns] = resized(pixels, box.height, box.width, BILINEAR_ANTIALIAS)
        return found

    def _scales(self, frame: Frame) -> bool:
        return 0 < self.size < max(frame.height, frame.width)


def _is_file(frame: Frame) -> bool:
    return frame.encoding in ("jpeg", "png") and frame.decoder is None


def _text(data: Any) -> str:
    return encoded(data)
