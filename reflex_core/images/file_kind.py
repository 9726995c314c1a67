# SPDX-License-Identifier: Apache-2.0
"""One kind of image file, and how many pixels are accepted of any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reflex_core.errors import ObservationError
from reflex_core.values import Pixels

MAX_PIXELS = 25_000_000  # where no setting says otherwise


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The header of an image file.

    Attributes:
        encoding: The name of its kind.
        height: Rows.
        width: Columns.
        channels: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha (or CMYK).
    """

    encoding: str
    height: int
    width: int
    channels: int


@dataclass(frozen=True, slots=True)
class FileKind:
    """One kind of image file.

    Attributes:
        name: The encoding of its frames, in requests and traces: jpeg.
        title: Its name in messages: JPEG.
        begins_with: The first bytes of every such file.
        header: Size and channels from the first bytes, without decoding. Raises ObservationError.
        decode: (height, width, 3) uint8 RGB, in the file's own orientation: EXIF orientation is ignored. Policies were
            trained on images as PIL.Image.open gives them (LeRobot) or as arrays (openpi), which ignore it too. Raises
            ObservationError.
        decode_grey: (height, width, 1) uint8 of a grey file, as a Bayer mosaic is sent. Raises ObservationError.
    """

    name: str
    title: str
    begins_with: bytes
    header: Callable[[bytes | memoryview], FileHeader]
    decode: Callable[[bytes | memoryview], Pixels]
    decode_grey: Callable[[bytes | memoryview], Pixels]


def check_pixels(height: int, width: int, max_pixels: int, field: str = "") -> None:
    """Raise ObservationError for an image without pixels, or with more than `max_pixels`; field: what it came in."""
    message = f"{field and field + ' is '}an image of {width}x{height} pixels"
    if height < 1 or width < 1:
        raise ObservationError(message, "bad-image")
    if height * width > max_pixels:
        raise ObservationError(f"{message}; at most {max_pixels} pixels are accepted", "image-too-large")
