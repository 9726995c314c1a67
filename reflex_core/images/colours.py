# SPDX-License-Identifier: Apache-2.0
"""RGB as hue, saturation and value, with and without OpenCV the same bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reflex_core.images.opencv import opencv
from reflex_core.values import Pixels

_BITS = 12  # of the fixed point that OpenCV divides in
_HALF = 1 << (_BITS - 1)
_WHOLE = np.arange(1, 256)
_PER_VALUE = np.concatenate([[0], np.rint((255 << _BITS) / _WHOLE)]).astype(np.int64)
_PER_SPREAD = np.concatenate([[0], np.rint((180 << _BITS) / (6.0 * _WHOLE))]).astype(np.int64)


def hue_saturation_value(pixels: Pixels) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Convert (height, width, 3) uint8 RGB to three (height, width) uint8: hue in units of 2 degrees, the others 0..255.

    Source: OpenCV's COLOR_RGB2HSV (modules/imgproc/src/color_hsv.simd.hpp).
    """
    cv2 = opencv()
    if cv2 is not None:
        hue, saturation, value = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV))
        return hue, saturation, value
    red, green, blue = (pixels[:, :, channel].astype(np.int64) for channel in range(3))
    highest = pixels.max(axis=2).astype(np.int64)
    spread = highest - pixels.min(axis=2)
    degrees = np.where(
        highest == red,
        green - blue,
        np.where(highest == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    turned = (degrees * _PER_SPREAD[spread] + _HALF) >> _BITS
    saturated = (spread * _PER_VALUE[highest] + _HALF) >> _BITS
    return (
        np.where(turned < 0, turned + 180, turned).astype(np.uint8),
        saturated.astype(np.uint8),
        highest.astype(np.uint8),
    )
