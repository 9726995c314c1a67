# SPDX-License-Identifier: Apache-2.0
"""Without OpenCV, as the wheel of pure Python is installed, pictures are the same bytes; what cannot be is refused."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from repository import ROOT

from reflex_core.errors import ObservationError
from reflex_core.images import colours, png, raw_encodings, resize, scaling
from reflex_core.images.png_chunks import MAGIC
from reflex_core.images.resize import AREA, resized
from reflex_core.values import Frame

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its colour type
KINDS = [
    (0, 1),
    (0, 2),
    (0, 4),
    (0, 8),
    (0, 16),
    (2, 8),
    (2, 16),
    (3, 1),
    (3, 4),
    (3, 8),
    (4, 8),
    (4, 16),
    (6, 8),
    (6, 16),
]
TRANSPARENT = {0: struct.pack(">H", 1), 2: struct.pack(">HHH", 1, 2, 3), 3: bytes([0, 128])}
SIDES = st.integers(1, 150)
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


@pytest.fixture
def lacking_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (colours, png, raw_encodings, resize, scaling):
        monkeypatch.setattr(module, "opencv", lambda: None)


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def without_opencv(filtered: Callable[..., Any], pixels: Any, height: int, width: int) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "opencv", lambda: None)
        return filtered(pixels, height, width)


@given(rows=SIDES, columns=SIDES, height=SIDES, width=SIDES, colour=st.booleans())
def test_filters_give_the_same_bytes_without_opencv(
    rows: int, columns: int, height: int, width: int, colour: bool
) -> None:
    pixels = noise(rows, columns, 3, seed=rows) if colour else noise(rows, columns, seed=rows)
    filters = [scaling.area_averaged, scaling.bilinear, *([partial(resized, how=AREA)] if colour else [])]
    for filtered in filters:
        np.testing.assert_array_equal(
            without_opencv(filtered, pixels, height, width), filtered(pixels, height, width)
        )


@pytest.mark.parametrize("size", [(96, 96), (48, 64), (240, 320), (120, 160), (8, 8), (224, 224)])
def test_a_camera_is_averaged_to_the_same_bytes_without_opencv(size: tuple[int, int]) -> None:
    pixels = noise(480, 640, 3)
    np.testing.assert_array_equal(
        without_opencv(scaling.area_averaged, pixels, *size), scaling.area_averaged(pixels, *size)
    )


@given(rows=SIDES, columns=SIDES, height=SIDES, width=SIDES)
def test_averages_of_fractions_agree_to_a_rounding(rows: int, columns: int, height: int, width: int) -> None:
    pixels = noise(rows, columns, seed=columns).astype(np.float32) / 3
    found = without_opencv(scaling.area_averaged, pixels, height, width)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scaling.area_averaged(pixels, height, width), atol=1e-4)


def test_colours_are_the_same_bytes_without_opencv(lacking_opencv: None) -> None:
    pixels = np.concatenate(
        [noise(400, 300, 3), np.zeros((1, 300, 3), np.uint8), np.full((1, 300, 3), 255, np.uint8)]
    )
    expected = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV))
    for found, plane in zip(colours.hue_saturation_value(pixels), expected, strict=True):
        np.testing.assert_array_equal(found, plane)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def picture(
    colour_type: int, depth: int, *, interlaced: bool, transparent: bool, width: int = 33, height: int = 21
) -> bytes:
    """A PNG of noise, every filter among its rows."""
    generator = np.random.default_rng(depth)

    def rows(columns: int, count: int) -> bytes:
        size = (columns * CHANNELS[colour_type] * depth + 7) // 8
        return b"".join(bytes([row % 5]) + generator.bytes(size) for row in range(count)) if columns else b""

    passes = [(len(range(x, width, dx)), len(range(y, height, dy))) for x, y, dx, dy in ADAM7]
    data = b"".join(rows(*size) for size in passes) if interlaced else rows(width, height)
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced))]
    if colour_type == 3:
        parts.append(chunk(b"PLTE", generator.bytes(3 << depth)))
    if transparent and colour_type in TRANSPARENT:
        parts.append(chunk(b"tRNS", TRANSPARENT[colour_type]))
    return MAGIC + b"".join(parts) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(("colour_type", "depth"), KINDS)
def test_a_png_has_the_same_pixels_without_opencv(
    colour_type: int, depth: int, transparent: bool, interlaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = picture(colour_type, depth, interlaced=interlaced, transparent=transparent)
    expected = png.KIND.decode(data)
    monkeypatch.setattr(png, "opencv", lambda: None)
    np.testing.assert_array_equal(png.KIND.decode(data), expected)


def test_a_damaged_png_is_refused_without_opencv(lacking_opencv: None) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    for data in (b"", zlib.compress(b"\0" * 20), b"no deflated data"):
        with pytest.raises(ObservationError, match="the image is a damaged PNG"):
            png.KIND.decode(MAGIC + header + chunk(b"IDAT", data) + chunk(b"IEND"))


@pytest.mark.parametrize(("encoding", "size"), [("bayer_rggb8", 64), ("yuyv", 128), ("nv12", 96)])
def test_what_opencv_alone_reads_is_refused_with_what_to_do(
    lacking_opencv: None, encoding: str, size: int
) -> None:
    frame = Frame(bytes(size), encoding, 8, 8)
    with pytest.raises(
        ObservationError, match=f"a {encoding} image needs OpenCV, .* pip install opencv-python-headless"
    ):
        raw_encodings.rgb(frame)


def test_a_bayer_image_in_a_png_is_refused_with_what_to_do(lacking_opencv: None) -> None:
    data = picture(0, 8, interlaced=False, transparent=False)
    with pytest.raises(ObservationError, match="a Bayer image in a PNG needs OpenCV"):
        png.KIND.decode_grey(data)


@pytest.mark.parametrize(
    ("source", "lacks"),
    [
        # opencv-python, without -headless, in a container without a display
        ("raise ImportError('libGL.so.1: cannot open shared object file')", "libGL.so.1"),
        ("import cv2.gapi", "No module named 'cv2.gapi'"),
        ("", "module 'cv2' has no attribute 'setNumThreads'"),  # an uninstall left its folder
    ],
)
def test_an_opencv_that_cannot_be_imported_is_named_with_what_it_lacks(
    tmp_path: Path, source: str, lacks: str
) -> None:
    (tmp_path / "cv2.py").write_text(source)
    code = "from reflex_core.images.opencv import opencv\nopencv()"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"reflex_core.errors.ConfigurationError: OpenCV is installed and cannot be imported ({lacks}"
    )
    assert last.endswith("pip install --force-reinstall opencv-python-headless, or uninstall it")
