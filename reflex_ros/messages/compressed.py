# SPDX-License-Identifier: Apache-2.0
"""Parse `format` of a CompressedImage as image_transport's plugins write it.

`ORIGINAL; CODEC compressed [TARGET]`, such as `bayer_rggb8; png compressed ` or `rgb8; jpeg compressed bgr8` (the
comment of sensor_msgs/msg/CompressedImage). Drivers that write only `jpeg`, `png` or nothing mean the usual file.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.images.file_kind import check_pixels
from reflex_core.images.file_kinds import KINDS, file_header
from reflex_core.images.raw_encodings import demosaiced, rgb
from reflex_core.text.untrusted import escaped
from reflex_core.values import Frame, Pixels

MOSAICS = {
    f"bayer_{order}{bits}": f"bayer_{order}8"
    for order in ("rggb", "bggr", "gbrg", "grbg")
    for bits in (8, 16)
}
NO_COLOURS = ("16uc1", "16sc1", "32fc1", "32sc1", "64fc1")  # depth, or numbers without a meaning as colours
VIDEO = ("h264", "h265", "hevc", "av1", "vp8", "vp9", "theora", "ffmpeg")


def compressed_frame(data: memoryview, format_: str, max_pixels: int) -> Frame:
    """Return the frame of a compressed image, not decoded. Raises ObservationError for anything but a colour image."""
    original, _, rest = format_.partition(";")
    original, rest = original.strip().lower(), rest.strip().lower()
    if "compresseddepth" in rest or original in NO_COLOURS:
        raise _refused(format_, "depth, not colours: subscribe to the colour camera")
    if original in VIDEO or any(codec in rest for codec in VIDEO):
        raise _refused(format_, "a video stream: republish it as raw or compressed images")
    try:
        found = file_header(data)
    except ObservationError as error:
        raise ObservationError(f"{error} (its format is '{escaped(format_)}')", error.slug) from error
    check_pixels(found.height, found.width, max_pixels)
    frame = Frame(data, found.encoding, found.height, found.width)
    if original.startswith("bayer_") and found.channels == 1:
        if original not in MOSAICS:
            raise _refused(format_, f"a Bayer pattern that is not known; known: {', '.join(MOSAICS)}")
        return Frame(
            data, f"{original} {found.encoding}", found.height, found.width,
            decoder=partial(_of_mosaic, found.encoding, MOSAICS[original]),
        )  # fmt: skip
    if found.channels >= 3 and _target(rest).startswith("rgb"):
        return Frame(
            data, f"rgb8 {found.encoding}", found.height, found.width, decoder=partial(_swapped, frame)
        )
    return frame


def _target(rest: str) -> str:
    """Return the pixel format that was handed to the encoder: `bgr8` of `jpeg compressed bgr8`; empty where absent."""
    return rest.partition("compressed")[2].strip()


def _refused(format_: str, why: str) -> ObservationError:
    return ObservationError(f"compressed images of format '{escaped(format_)}' are {why}", "bad-image")


def _of_mosaic(encoding: str, pattern: str, frame: Frame) -> Pixels:
    return demosaiced(KINDS[encoding].decode_grey(frame.data), pattern)


def _swapped(plain: Frame, _: Frame) -> Pixels:
    """Swap red and blue: the encoder takes blue first and was given red first, so that the file has them exchanged."""
    return np.ascontiguousarray(rgb(plain)[:, :, ::-1])
