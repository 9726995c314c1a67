# SPDX-License-Identifier: Apache-2.0
"""Arrays and image files of a request become frames. Arrays of 8 bits in rows are taken as they are, without a copy."""

from __future__ import annotations

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.images.file_kind import check_pixels
from reflex_core.images.raw_encodings import encoded_size
from reflex_core.values import Frame
from reflex_ros.sidecar.wires.numpy_tags import Array

BAD_IMAGE = "bad-image"
ENCODINGS = {1: "mono8", 3: "rgb8", 4: "rgba8"}
SWAPPED = {"mono8": "mono8", "rgb8": "bgr8", "rgba8": "bgra8"}


def frame_of_file(field: str, data: bytes, max_pixels: int) -> Frame:
    """Return the frame of a JPEG or PNG file; only its header is read. Raises ObservationError."""
    try:
        encoding, height, width = encoded_size(data)
    except ObservationError as error:
        raise ObservationError(f"'{field}': {error}", error.slug) from error
    check_pixels(height, width, max_pixels, f"'{field}'")
    return Frame(data, encoding, height, width)


def frame_of_array(field: str, array: Array, max_pixels: int, *, bgr: bool = False) -> Frame:
    """Return the frame of (height, width, channels) or (channels, height, width), axes of length 1 before them left out.

    array: uint8, or floats in 0 to 1, which become 0 to 255 by truncation as openpi does it. bgr: its channels are blue,
    green, red. Raises ObservationError.
    """
    picture = array
    while picture.ndim > 3 and picture.shape[0] == 1:
        picture = picture[0]
    if picture.ndim != 3:
        raise ObservationError(
            f"'{field}': an image must be an array of shape (height, width, channels), got {array.shape}",
            BAD_IMAGE,
        )
    if _channels_first(picture.shape):
        picture = picture.transpose(1, 2, 0)
    height, width, channels = picture.shape
    if channels not in ENCODINGS:
        raise ObservationError(
            f"'{field}': an image must have 1, 3 or 4 channels, got {array.shape}", BAD_IMAGE
        )
    check_pixels(height, width, max_pixels, f"'{field}'")
    pixels = _bytes_of(field, picture)
    encoding = ENCODINGS[channels]
    return Frame(pixels, SWAPPED[encoding] if bgr else encoding, height, width, width * channels)


def _channels_first(shape: tuple[int, ...]) -> bool:
    """Return whether the first axis holds the channels: openpi's rule, where the last one cannot."""
    return shape[0] in ENCODINGS and shape[2] not in ENCODINGS


def _bytes_of(field: str, picture: Array) -> memoryview:
    if picture.dtype.kind == "f":
        if not (np.isfinite(picture).all() and picture.min() >= 0.0 and picture.max() <= 1.0):
            raise ObservationError(
                f"'{field}': an image of floats must be within 0 to 1; send one of 0 to 255 as uint8",
                BAD_IMAGE,
            )
        picture = (picture * 255).astype(np.uint8)
    elif picture.dtype != np.uint8:
        raise ObservationError(
            f"'{field}': an image must be uint8, or floats in 0 to 1, got {picture.dtype.str}", BAD_IMAGE
        )
    return np.ascontiguousarray(picture).data.cast("B")
