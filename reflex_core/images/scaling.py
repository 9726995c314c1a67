# SPDX-License-Identifier: Apache-2.0
"""The two filters of OpenCV's cv2.resize that policies, caches and thumbnails are made with, with and without OpenCV.

Without it numpy gives the same bytes, slower by a factor of ten (test/ compares them): an export trained on one gives the
same actions on a machine that has the other. Formulas: modules/imgproc/src/resize.cpp of OpenCV 4 and 5.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.images.opencv import opencv

_LEAST_SHARE = 1e-3  # of a pixel: OpenCV leaves out what a cell covers less of
_ONE = np.float32(2048)  # 1.0 as the bilinear filter's fixed point has it

Array = NDArray[Any]
Places = tuple[NDArray[np.intp], NDArray[np.float32]]


def area_averaged(pixels: Array, height: int, width: int) -> Array:
    """Average (rows, columns) or (rows, columns, channels) of uint8 or float32 to height x width; INTER_AREA.

    Without OpenCV the bytes of uint8 are the same, float32 agrees to a rounding.
    """
    cv2 = opencv()
    if cv2 is not None:
        return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))
    rows, columns = pixels.shape[:2]
    if rows < height or columns < width:
        return _interpolated(pixels, _cells(rows, height), _cells(columns, width))
    if pixels.dtype == np.uint8 and rows % height == 0 and columns % width == 0:
        return _block_means(pixels, height, width)
    return _weighted_means(pixels, height, width)


def bilinear(pixels: Array, height: int, width: int) -> Array:
    """Interpolate uint8 pixels, shaped as for area_averaged, to height x width; INTER_LINEAR."""
    cv2 = opencv()
    if cv2 is not None:
        return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR))
    rows, columns = pixels.shape[:2]
    return _interpolated(pixels, _centres(rows, height), _centres(columns, width))


def _block_means(pixels: Array, height: int, width: int) -> Array:
    """Average where every cell is an integer number of pixels: integer sums, rounded once."""
    down, along = pixels.shape[0] // height, pixels.shape[1] // width
    sums: Array = pixels.reshape(height, down, width, along, -1).sum(axis=(1, 3), dtype=np.int64)
    share = np.float32(1) / np.float32(down * along)
    # a half is rounded up where four pixels make one, else to the even number
    means: Array = (sums + 2) >> 2 if (down, along) == (2, 2) else np.rint(sums.astype(np.float32) * share)
    return means.astype(np.uint8).reshape(height, width, *pixels.shape[2:])


def _weighted_means(pixels: Array, height: int, width: int) -> Array:
    """Average columns first, then rows, in float32 and in OpenCV's order of additions, rounded at the end."""
    rows, columns = pixels.shape[:2]
    values = pixels.reshape(rows, columns, -1).astype(np.float32)
    for axis, (have, want) in ((1, (columns, width)), (0, (rows, height))):
        shape = list(values.shape)
        shape[axis] = want
        means = np.zeros(shape, dtype=np.float32)
        for covered, share in zip(*_shares(have, want), strict=True):
            means += values.take(covered, axis) * np.expand_dims(share, (1, 2) if axis == 0 else (0, 2))
        values = means
    return _as_type(values, pixels).reshape(height, width, *pixels.shape[2:])


@lru_cache(maxsize=64)
def _shares(have: int, want: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return (most pixels in a cell, want) each: which pixels a cell covers, and what share of it each has."""
    scale = have / want
    cells = [_cell(place * scale, scale, have) for place in range(want)]
    most = max(map(len, cells))
    covered, shares = np.zeros((most, want), dtype=np.intp), np.zeros((most, want), dtype=np.float32)
    for place, cell in enumerate(cells):
        for number, (pixel, share) in enumerate(cell):
            covered[number, place], shares[number, place] = pixel, share
    return covered, shares


def _cell(start: float, scale: float, have: int) -> list[tuple[int, float]]:
    """Return (pixel, share) of the cell that covers [start, start + scale) of `have` pixels."""
    end, size = start + scale, min(scale, have - start)
    last = min(math.floor(end), have - 1)
    first = min(math.ceil(start), last)
    cell = [(first - 1, (first - start) / size)] if first - start > _LEAST_SHARE else []
    cell += [(pixel, 1.0 / size) for pixel in range(first, last)]
    if end - last > _LEAST_SHARE:
        cell.append((last, min(end - last, 1.0, size) / size))
    return cell


def _centres(have: int, want: int) -> Places:
    """Return the pixel before the centre of each of `want` pixels, and how far behind it that centre is."""
    place = ((np.arange(want) + 0.5) * (1.0 / (want / have)) - 0.5).astype(np.float32)
    before = np.floor(place).astype(np.intp)
    return before, place - before.astype(np.float32)


def _cells(have: int, want: int) -> Places:
    """Return the same for INTER_AREA where the image grows: pixels stay blocks, only their borders are mixed."""
    growth = want / have
    places = np.arange(want)
    before = np.floor(places * (1.0 / growth)).astype(np.intp)
    behind = ((places + 1) - (before + 1) * growth).astype(np.float32)
    return before, np.where(behind <= 0, np.float32(0), behind - np.floor(behind))


def _interpolated(pixels: Array, down: Places, along: Places) -> Array:
    """Interpolate between two columns, then between two rows: uint8 in fixed point, each factor of 11 bits, float32 as it is."""
    rows, columns = pixels.shape[:2]
    whole = pixels.dtype == np.uint8
    values: Array = pixels.reshape(rows, columns, -1).astype(np.int32 if whole else np.float32)
    left, behind = along
    behind = np.where((left < 0) | (left >= columns - 1), np.float32(0), behind)
    near, far = _factors(behind, whole)
    mixed: Any = (
        values[:, left.clip(0, columns - 1)] * near[:, None]
        + values[:, (left + 1).clip(0, columns - 1)] * far[:, None]
    )
    above, below = down
    near, far = (factor[:, None, None] for factor in _factors(below, whole))
    first, second = above.clip(0, rows - 1), (above + 1).clip(0, rows - 1)
    if whole:
        mixed = mixed >> 4
        found: Array = ((near * mixed[first] >> 16) + (far * mixed[second] >> 16) + 2) >> 2
    else:
        found = near * mixed[first] + far * mixed[second]
    return found.astype(pixels.dtype).reshape(len(above), len(left), *pixels.shape[2:])


def _factors(behind: NDArray[np.float32], whole: bool) -> tuple[Array, Array]:
    """Return the weights of the pixel before and of the one behind."""
    near, far = np.float32(1) - behind, behind
    return (
        (np.rint(near * _ONE).astype(np.int32), np.rint(far * _ONE).astype(np.int32))
        if whole
        else (near, far)
    )


def _as_type(values: NDArray[np.float32], pixels: Array) -> Array:
    return np.rint(values).clip(0, 255).astype(np.uint8) if pixels.dtype == np.uint8 else values
