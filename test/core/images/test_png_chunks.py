# SPDX-License-Identifier: Apache-2.0
"""What of a PNG reaches libpng, which writes to stderr whatever it likes."""

from __future__ import annotations

import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from reflex_core.errors import ObservationError
from reflex_core.images.png import KIND
from reflex_core.images.png_chunks import MAGIC, MOST_CHUNKS, pixel_chunks

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
HEADER_ENDS = 33
EVIL = b"x\n[ERROR] [reflex]: the guard is off\x1b[31m"


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture(scope="module")
def plain() -> bytes:
    return bytes(cv2.imencode(".png", PIXELS[:, :, ::-1])[1])


def with_chunk(png: bytes, *chunks: bytes) -> bytes:
    return png[:HEADER_ENDS] + b"".join(chunks) + png[HEADER_ENDS:]


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", EVIL + b"\0\0" + zlib.compress(os.urandom(400))),
        chunk(b"sPLT", EVIL + b"\0\x05abc"),
        chunk(b"zTXt", EVIL + b"\0\x07"),
        chunk(b"tEXt", EVIL)[:-1] + b"?",
        chunk(b"gAMA", b"\0\0\0\0"),
    ],
)
def test_what_is_beside_the_pixels_of_a_png_writes_nothing(
    plain: bytes, extra: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    np.testing.assert_array_equal(KIND.decode(with_chunk(plain, extra)), PIXELS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda png: png[:-1], "before its last chunk"),
        (lambda png: png[:-12], "before its last chunk"),
        (lambda png: png[:60], "it ends inside a chunk"),
        (lambda png: png[:60] + b"\0\1\2" + png[63:], "a checksum is wrong"),
        (lambda png: with_chunk(png, chunk(b"ABCD")), "unknown kind"),
        (lambda png: with_chunk(png, chunk(b"\n[31")), "unknown kind"),
        (lambda png: with_chunk(png, *[chunk(b"tIME")] * MOST_CHUNKS), f"more than {MOST_CHUNKS} chunks"),
    ],
)
def test_a_damaged_png_is_refused_in_our_words(
    plain: bytes, damage: object, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert callable(damage)
    with pytest.raises(ObservationError, match=f"the image is a damaged PNG: .*{says}"):
        KIND.decode(damage(plain))
    assert capfd.readouterr() == ("", "")


def test_a_png_of_pixels_alone_is_not_copied(plain: bytes) -> None:
    assert pixel_chunks(plain) is plain
    assert pixel_chunks(with_chunk(plain, chunk(b"tEXt", b"a\0b")) + b"behind its end") == plain


def test_palettes_and_bayer_mosaics_keep_their_pixels() -> None:
    indices = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in indices))
    header = struct.pack(">IIBBBBB", 3, 2, 8, 3, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        chunk(b"PLTE", colours.tobytes()),
        chunk(b"bKGD", b"\0"),
        chunk(b"IDAT", rows),
    )
    np.testing.assert_array_equal(KIND.decode(MAGIC + b"".join(parts) + chunk(b"IEND")), colours[indices])
    mosaic = bytes(cv2.imencode(".png", PIXELS[:, :, 0])[1])
    np.testing.assert_array_equal(KIND.decode_grey(mosaic)[:, :, 0], PIXELS[:, :, 0])
