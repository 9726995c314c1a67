# SPDX-License-Identifier: Apache-2.0
"""Place an image in the network's input, and scale it with the filter of training.

A policy has seen one filter in training: another one moves its actions by tenths of a radian, so each is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.images.opencv import opencv
from reflex_core.images.scaling import area_averaged, bilinear
from reflex_core.values import Pixels

LETTERBOX, LETTERBOX_TOP_LEFT, STRETCH = "letterbox", "letterbox_top_left", "stretch"
RESIZES = (LETTERBOX, LETTERBOX_TOP_LEFT, STRETCH)
BILINEAR, BILINEAR_ANTIALIAS, AREA = "bilinear", "bilinear_antialias", "area"
FILTERS = (BILINEAR, BILINEAR_ANTIALIAS, AREA)

_LARGE = 640 * 480  # pixels: smaller images are averaged by OpenCV's own bytes, which costs little
_ROWS = 64  # output rows that the bilinear filter makes at a time, so that they stay in the processor's cache
_SHORT = 1 << 15  # pixels: OpenCV's map of places has 16-bit numbers
_BLOCK = 16  # output pixels that share one matrix product of the antialiased filter
_FIXED_POINT = 1 << 22  # Pillow's weights are whole numbers of this part


@dataclass(frozen=True, slots=True)
class Box:
    """The part of the network's input that the image covers; bars cover the rest."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """Rows of the input that the image covers."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """Columns of the input that the image covers."""
        return slice(self.left, self.left + self.width)


def placed(rows: int, columns: int, height: int, width: int, resize: str) -> Box:
    """Return where an image of rows x columns is in an input of height x width.

    letterbox: centred, an odd pixel of the bars at the bottom or right (openpi; pi0 and pi0.5 in LeRobot).
    letterbox_top_left: the bars are at the left and top (SmolVLA and X-VLA in LeRobot). stretch: everywhere.
    The sizes are rounded as both libraries round them.
    """
    if resize == STRETCH or (rows, columns) == (height, width):
        return Box(0, 0, height, width)
    ratio = max(columns / width, rows / height)
    inner_height, inner_width = max(1, int(rows / ratio)), max(1, int(columns / ratio))
    free_height, free_width = height - inner_height, width - inner_width
    if resize == LETTERBOX_TOP_LEFT:
        return Box(free_height, free_width, inner_height, inner_width)
    return Box(free_height // 2, free_width // 2, inner_height, inner_width)


def resized(pixels: Pixels, height: int, width: int, how: str) -> NDArray[Any]:
    """Scale to (height, width, 3) of values 0..255: float32 where the filter makes fractions, else uint8.

    An image that has this size already is returned as it is.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    if how == AREA:
        return _area(pixels, height, width)
    return (_antialiased if how == BILINEAR_ANTIALIAS else _bilinear)(pixels, height, width)


def _bilinear(pixels: Pixels, height: int, width: int) -> NDArray[np.float32]:
    """Scale as torch.nn.functional.interpolate: bilinear, align_corners False, antialias False, of a float32 image."""
    cv2 = opencv()
    gathered = cv2 is not None and pixels.flags.c_contiguous and max(*pixels.shape, height, width) < _SHORT
    if gathered and pixels.shape[1] >= 2 * width:  # else most columns are read, and gathering them costs more
        return _bilinear_gathered(cv2, pixels, height, width)
    above, below, down = _neighbours(pixels.shape[0], height)
    left, right, along = _neighbours(pixels.shape[1], width)
    found = np.empty((height, width, 3), dtype=np.float32)
    for start in range(0, height, _ROWS):
        rows = slice(start, start + _ROWS)
        strip, next_row = pixels[above[rows]].astype(np.float32), pixels[below[rows]].astype(np.float32)
        next_row -= strip
        next_row *= down[rows, None, None]
        strip += next_row
        part, next_column = strip.take(left, axis=1), strip.take(right, axis=1)
        next_column -= part
        next_column *= along[:, None]
        np.add(part, next_column, out=found[rows])
    return found


def _bilinear_gathered(cv2: Any, pixels: Pixels, height: int, width: int) -> NDArray[np.float32]:
    """Return what _bilinear does, to the bit: bytes are gathered by OpenCV, and only those that are read become float32."""
    down, along = _neighbours(pixels.shape[0], height)[2], _neighbours(pixels.shape[1], width)[2].repeat(3)
    found = np.empty((height, width * 3), dtype=np.float32)
    for start, places in _corners(*pixels.shape[:2], height, width):
        rows = slice(start, start + len(places) // 4)
        # axes: above and below, left and right, row, values of the row
        four = cv2.remap(pixels, places, None, cv2.INTER_NEAREST).reshape(2, 2, -1, width * 3)
        upper = four[0].reshape(-1, width * 3)
        sides = cv2.subtract(four[1].reshape(-1, width * 3), upper, dtype=cv2.CV_32F)
        halves = sides.reshape(2, -1, width * 3)
        halves *= down[rows, None]
        left, right = cv2.add(sides, upper, sides, dtype=cv2.CV_32F).reshape(2, -1, width * 3)
        right -= left
        right *= along
        np.add(left, right, out=found[rows])
    return found.reshape(height, width, 3)


@lru_cache(maxsize=8)  # of 16 bytes for each pixel made
def _corners(rows: int, columns: int, height: int, width: int) -> tuple[tuple[int, NDArray[np.int16]], ...]:
    """Return for each block of output rows its first, and (4 x rows, width, 2) places of the four pixels around each one made.

    A place is (column, row). First all that are above and left, then above and right, below and left, below and right.
    """
    above, below, _ = _neighbours(rows, height)
    left, right, _ = _neighbours(columns, width)
    made = []
    for start in range(0, height, _ROWS):
        block = slice(start, start + _ROWS)
        places = np.empty((2, 2, len(above[block]), width, 2), dtype=np.int16)
        places[..., 0] = np.stack([left, right])[None, :, None]
        places[..., 1] = np.stack([above[block], below[block]])[:, None, :, None]
        places.flags.writeable = False
        made.append((start, places.reshape(-1, width, 2)))
    return tuple(made)


@lru_cache(maxsize=64)
def _neighbours(have: int, want: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return for each of `want` pixels the two of `have` it is between, and how far it is from the first.

    torch computes the position in float32 with one rounding (a fused multiply-add); on a large image a more exact
    position would differ from it in the fourth digit.
    """
    scale = float(np.float32(have) / np.float32(want))
    place = np.maximum((scale * (np.arange(want) + 0.5) - 0.5).astype(np.float32), np.float32(0))
    first = np.minimum(place.astype(np.intp), have - 1)
    return first, np.minimum(first + 1, have - 1), place - first.astype(np.float32)


def _antialiased(pixels: Pixels, height: int, width: int) -> Pixels:
    """Scale as Pillow's Image.resize with BILINEAR: a triangle as wide as the shrinking, columns first, rounded twice.

    To the bit where the image keeps its shape; Pillow 13 takes rows first for one more than twice as tall as wide.
    """
    return _weighted(_weighted(pixels, width).transpose(1, 0, 2), height).transpose(1, 0, 2)


def _weighted(pixels: Pixels, want: int) -> Pixels:
    """Filter (rows, columns, 3) to (rows, want, 3)."""
    rows, columns = pixels.shape[:2]
    if columns == want:
        return pixels
    found = np.empty((rows, want, 3), dtype=np.uint8)
    for start in range(0, want, _BLOCK):
        first, weights = _triangles(columns, want, start)
        part = pixels[:, first : first + len(weights)].transpose(0, 2, 1).astype(np.float64)
        # whole numbers below 2**53: exact, as Pillow's own fixed point is
        sums = np.floor((part @ weights + _FIXED_POINT / 2) / _FIXED_POINT)
        found[:, start : start + _BLOCK] = sums.transpose(0, 2, 1)
    return found


@lru_cache(maxsize=512)
def _triangles(have: int, want: int, start: int) -> tuple[int, NDArray[np.float64]]:
    """Return the first pixel that a block of output pixels reads, and (pixels read, pixels made) weights."""
    centre = (np.arange(start, min(start + _BLOCK, want)) + 0.5) * have / want
    support = max(have / want, 1.0)
    first = max(int(centre[0] - support), 0)
    read = np.arange(first, min(int(centre[-1] + support) + 1, have))[:, None]
    weights = np.maximum(1.0 - np.abs((read - centre + 0.5) / support), 0.0)
    return first, np.floor(weights / weights.sum(axis=0) * _FIXED_POINT + 0.5)


def _area(pixels: Pixels, height: int, width: int) -> Pixels:
    """Scale as OpenCV: area averaging where both sides shrink, its bilinear filter where the image grows.

    A large image of even sides that does not shrink by whole numbers is first halved as often as it stays no smaller than wanted,
    which takes OpenCV an eighth of the time of other averaging; what is left is less than a half, for which its bilinear filter
    leaves no pixel out.
    """
    rows, columns = pixels.shape[:2]
    if rows < height or columns < width:
        return bilinear(pixels, height, width)
    if rows * columns < _LARGE or (rows % height == 0 and columns % width == 0):
        return area_averaged(pixels, height, width)
    halved = pixels
    while not (rows % 2 or columns % 2) and rows >= 2 * height and columns >= 2 * width:
        rows, columns = rows // 2, columns // 2
        halved = area_averaged(halved, rows, columns)
    # where it was not halved, or one side is still twice too long, pixels would be left out
    left_out = halved is pixels or rows >= 2 * height or columns >= 2 * width
    return (area_averaged if left_out else bilinear)(halved, height, width)
