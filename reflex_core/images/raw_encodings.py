# SPDX-License-Identifier: Apache-2.0
"""Camera frames become RGB pixels: the usual raw encodings through a strided view, the rest through OpenCV."""

from __future__ import annotations

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.images.file_kinds import KINDS, file_header
from reflex_core.images.opencv import lacking, opencv
from reflex_core.text.untrusted import escaped
from reflex_core.values import Frame, Pixels

# channels, and the order in which a channel index takes them to RGB (None: as they are)
_STRIDED: dict[str, tuple[int, slice | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, slice(None, None, -1)),
    "rgba8": (4, slice(0, 3)),
    "bgra8": (4, slice(2, None, -1)),
    "mono8": (1, None),
    "8UC3": (3, slice(None, None, -1)),
    "8UC1": (1, None),
}

# OpenCV names a Bayer pattern by the second row, ROS by the first
_CONVERTED: dict[str, tuple[int, str]] = {
    "bayer_rggb8": (1, "COLOR_BayerBG2RGB"),
    "bayer_bggr8": (1, "COLOR_BayerRG2RGB"),
    "bayer_gbrg8": (1, "COLOR_BayerGR2RGB"),
    "bayer_grbg8": (1, "COLOR_BayerGB2RGB"),
    "yuv422": (2, "COLOR_YUV2RGB_UYVY"),
    "uyvy": (2, "COLOR_YUV2RGB_UYVY"),
    "yuv422_yuy2": (2, "COLOR_YUV2RGB_YUYV"),
    "yuyv": (2, "COLOR_YUV2RGB_YUYV"),
}

_PLANAR: dict[str, str] = {"nv12": "COLOR_YUV2RGB_NV12", "nv21": "COLOR_YUV2RGB_NV21"}
MONO16 = "mono16"

ENCODINGS = (*KINDS, *_STRIDED, *_CONVERTED, *_PLANAR, MONO16)


def needs_conversion(encoding: str) -> bool:
    """Return True for encodings that a strided view cannot read (Bayer, YUV, 16 bit)."""
    return encoding not in _STRIDED and encoding not in KINDS


def rgb(frame: Frame) -> Pixels:
    """Return HxWx3 uint8 RGB of a frame; a view of its bytes for raw 8-bit encodings, row step honoured.

    Raises ObservationError for an unknown encoding, bytes that do not fit the size, or a damaged file.
    """
    if frame.decoder is not None:
        return frame.decoder(frame)
    if (kind := KINDS.get(frame.encoding)) is not None:
        return kind.decode(frame.data)
    strided = _STRIDED.get(frame.encoding)
    if strided is None:
        return _converted(frame)
    channels, order = strided
    pixels = _rows(frame, frame.height, frame.width, channels)
    if channels == 1:
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return pixels if order is None else pixels[:, :, order]


def encoded_size(data: bytes | memoryview) -> tuple[str, int, int]:
    """Read (encoding, height, width) from the header of an image file, without decoding it. Raises ObservationError."""
    found = file_header(data)
    return found.encoding, found.height, found.width


def check_raw(frame: Frame) -> None:
    """Raise ObservationError for raw pixels whose bytes do not fit their size, or of an unknown encoding."""
    channels = _STRIDED.get(frame.encoding) or _CONVERTED.get(frame.encoding)
    if channels is not None:
        _rows(frame, frame.height, frame.width, channels[0])
    elif frame.encoding in _PLANAR:
        _rows(frame, frame.height * 3 // 2, frame.width, 1)
    elif frame.encoding == MONO16:
        _rows(frame, frame.height, frame.width, 2)
    elif frame.encoding not in KINDS:
        raise _unknown(frame.encoding)


def big_endian_grey(frame: Frame) -> Pixels:
    """Return the RGB of a mono16 frame whose high byte comes first."""
    high = _rows(frame, frame.height, frame.width, 2)[:, :, 0:1]
    return np.broadcast_to(high, (*high.shape[:2], 3))


def demosaiced(mosaic: Pixels, encoding: str) -> Pixels:
    """Return the RGB of a (height, width, 1) uint8 Bayer mosaic; encoding: ROS's name of the pattern, `bayer_rggb8`.

    Raises ObservationError.
    """
    height, width = mosaic.shape[:2]
    return _in_colour(Frame(b"", encoding, height, width), mosaic, _CONVERTED[encoding][1])


def _rows(frame: Frame, height: int, width: int, channels: int) -> Pixels:
    """Return a (height, width, channels) view of raw rows that may be padded."""
    row = width * channels
    step = frame.step or row
    flat = np.frombuffer(frame.data, dtype=np.uint8)
    if height <= 0 or width <= 0 or step < row:
        raise ObservationError(
            f"a {frame.encoding} image of {width}x{height} cannot have rows of {step} bytes", "bad-image"
        )
    needed = step * (height - 1) + row  # some drivers leave the padding of the last row out
    if flat.size < needed:
        raise ObservationError(
            f"a {frame.encoding} image of {width}x{height} with step {frame.step} needs {needed} bytes or more,"
            f" got {flat.size}",
            "bad-image",
        )
    if flat.size > step * height:  # pixels of another kind under this name, or several pictures
        raise ObservationError(
            f"a {frame.encoding} image of {width}x{height} with step {step} has {step * height} bytes, got {flat.size}:"
            " is it of another encoding or size?",
            "bad-image",
        )
    return np.lib.stride_tricks.as_strided(
        flat, shape=(height, width, channels), strides=(step, channels, 1), writeable=False
    )


def _in_colour(frame: Frame, packed: Pixels, conversion: str) -> Pixels:
    wrong = f"a {frame.encoding} image cannot be {frame.width}x{frame.height}: neighbouring pixels share their colour"
    if frame.encoding.startswith("bayer") and min(frame.height, frame.width) < 3:  # OpenCV would answer black
        raise ObservationError(wrong, "bad-image")
    cv2 = opencv()
    if cv2 is None:
        raise lacking(f"a {frame.encoding} image")
    try:
        return np.asarray(cv2.cvtColor(packed, getattr(cv2, conversion)), dtype=np.uint8)
    except cv2.error as error:
        raise ObservationError(wrong, "bad-image") from error


def _converted(frame: Frame) -> Pixels:
    if frame.encoding in _CONVERTED:
        channels, conversion = _CONVERTED[frame.encoding]
        packed = np.ascontiguousarray(_rows(frame, frame.height, frame.width, channels))
        return _in_colour(frame, packed, conversion)
    if frame.encoding in _PLANAR:
        conversion = _PLANAR[frame.encoding]
        planes = np.ascontiguousarray(_rows(frame, frame.height * 3 // 2, frame.width, 1))
        return _in_colour(frame, planes, conversion)
    if frame.encoding == MONO16:  # little-endian: the high byte is the eight bits that a policy sees
        high = _rows(frame, frame.height, frame.width, 2)[:, :, 1:2]
        return np.broadcast_to(high, (*high.shape[:2], 3))
    raise _unknown(frame.encoding)


def _unknown(encoding: str) -> ObservationError:
    return ObservationError(
        f"image encoding '{escaped(encoding, 40)}' is not supported; known: {', '.join(ENCODINGS)}",
        "bad-image",
    )
