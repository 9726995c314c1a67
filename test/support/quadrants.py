# SPDX-License-Identifier: Apache-2.0
"""A picture of four colours, and what a sensor behind a colour filter sees of a picture."""

from __future__ import annotations

import numpy as np

from reflex_core.values import Pixels

RED, GREEN, BLUE, GREY = (230, 20, 40), (30, 210, 60), (25, 35, 220), (128, 128, 128)


def scene(height: int = 12, width: int = 16) -> Pixels:
    """Four quadrants of different colours: neither a flip nor a channel swap maps it onto itself."""
    picture = np.empty((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    picture[:top, :left], picture[:top, left:] = RED, GREEN
    picture[top:, :left], picture[top:, left:] = BLUE, GREY
    return picture


BAYER = {
    "bayer_rggb8": ("RG", "GB"),
    "bayer_bggr8": ("BG", "GR"),
    "bayer_gbrg8": ("GB", "RG"),
    "bayer_grbg8": ("GR", "BG"),
}


def mosaic(picture: Pixels, pattern: tuple[str, str]) -> Pixels:
    """What a sensor behind that colour filter sees."""
    sensor = np.empty(picture.shape[:2], np.uint8)
    for row, letters in enumerate(pattern):
        for column, letter in enumerate(letters):
            sensor[row::2, column::2] = picture[row::2, column::2, "RGB".index(letter)]
    return sensor
