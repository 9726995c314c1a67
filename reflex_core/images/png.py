# SPDX-License-Identifier: Apache-2.0
"""PNG files, through OpenCV or, where there is none, Pillow; of 16 bits the high byte."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.images.file_kind import FileHeader, FileKind
from reflex_core.images.opencv import lacking, opencv
from reflex_core.images.png_chunks import pixel_chunks
from reflex_core.values import Pixels

NAME = "png"
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette becomes colour
_DAMAGED = "the image is a damaged PNG"


def _header(data: bytes | memoryview) -> FileHeader:
    head = bytes(data[:26])
    if len(head) < 26:
        raise ObservationError("the image is a damaged PNG: it ends inside its header", "bad-image")
    width, height, _, colour = struct.unpack(">IIBB", head[16:26])
    return FileHeader(NAME, height, width, _CHANNELS.get(colour, 3))


def _decode(data: bytes | memoryview) -> Pixels:
    chunks, cv2 = pixel_chunks(data), opencv()
    if cv2 is None:
        return _with_pillow(chunks)
    return np.asarray(
        cv2.cvtColor(_with_opencv(cv2, chunks, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8
    )


def _decode_grey(data: bytes | memoryview) -> Pixels:
    cv2 = opencv()
    if cv2 is None:
        raise lacking("a Bayer image in a PNG")
    return _with_opencv(cv2, pixel_chunks(data), cv2.IMREAD_GRAYSCALE)[:, :, None]


def _with_opencv(cv2: Any, data: bytes | memoryview, colours: int) -> Pixels:
    """Decode with OpenCV, which releases the interpreter lock: the better one for a server."""
    flat = np.frombuffer(data, dtype=np.uint8)
    try:
        pixels = cv2.imdecode(flat, colours | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # its own limit of pixels, which is larger than ours
        pixels = None
    if pixels is None:
        raise ObservationError(_DAMAGED, "bad-image")
    return np.asarray(pixels, dtype=np.uint8)


def _with_pillow(data: bytes | memoryview) -> Pixels:
    """Decode to the same pixels without OpenCV."""
    from PIL import PngImagePlugin  # only here: it is not needed with OpenCV

    try:
        # not Image.open: it knows other formats, and a limit of pixels that is larger than ours
        picture = PngImagePlugin.PngImageFile(io.BytesIO(data))
        picture.load()
    except Exception as error:  # its parser meets damage with whatever it happens to raise
        raise ObservationError(_DAMAGED, "bad-image") from error
    if picture.mode.startswith("I"):  # 16 bits of grey: the high byte, which convert() would not take
        return np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    coloured = (
        picture.convert("RGBA") if picture.mode == "P" else picture
    )  # else Pillow warns of transparency
    return np.asarray(coloured.convert("RGB"), dtype=np.uint8)


KIND = FileKind(NAME, "PNG", b"\x89PNG\r\n\x1a\n", _header, _decode, _decode_grey)
