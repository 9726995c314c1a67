# SPDX-License-Identifier: Apache-2.0
"""A webcam's JPEG is mended exactly or refused; a picture is never turned, and never decoded when it is too large."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import simplejpeg
from broken_jpegs import (
    HEAD,
    MANY,
    MENDED,
    PARTS,
    PICTURE,
    PLAIN,
    WHOLE,
    after,
    edited,
)
from webcams import (
    png_claiming,
    progressive,
    put_together,
    turned,
    without_tables,
)

from reflex_core.errors import ObservationError
from reflex_core.images import jpeg_repair
from reflex_core.images.file_kind import check_pixels
from reflex_core.images.file_kinds import file_header
from reflex_core.images.raw_encodings import encoded_size, rgb
from reflex_core.metrics.counters import pictures_mended
from reflex_core.metrics.metrics import Metrics
from reflex_core.text.rate_limit import RateLimit
from reflex_core.values import Frame, Pixels

AVI1 = b"\xff\xe0\x00\x10AVI1" + bytes(10)

FINE_AS_IT_IS: dict[str, bytes] = {
    "zeros behind the end": WHOLE + bytes(1000),
    "another picture behind the end": WHOLE + WHOLE,
    "Motion JPEG without tables": without_tables(PLAIN),
    "Motion JPEG out of an AVI": PLAIN[:2] + AVI1 + without_tables(PLAIN)[2:],
}
REFUSED: dict[str, bytes] = {
    "cut off": WHOLE[:-300],
    "cut off a little": WHOLE[:-20],
    "cut off at a restart marker": put_together(HEAD, PARTS[:-2]),
    "cut off at a restart marker without an end": put_together(HEAD, PARTS[:-2], b""),
    "cut off and ended": WHOLE[:-300] + b"\xff\xd9",
    "cut off without restarts": PLAIN[:-300],
    "cut off without restarts and ended": PLAIN[:-300] + b"\xff\xd9",
    "cut off, progressive": progressive(PICTURE)[:-300],
    "cut off, with zeros before a restart marker": put_together(HEAD, after([3], bytes(20)))[:-300],
    "cut off and ended, with zeros": put_together(HEAD, after([3], bytes(20)))[:-300] + b"\xff\xd9",
    "an interval lost": put_together(HEAD, [*PARTS[:3], *PARTS[4:]]),
    "half an interval lost": put_together(HEAD, [*PARTS[:3], PARTS[3][:20], *PARTS[4:]]),
    "half an interval lost, and zeros": put_together(
        HEAD, [*PARTS[:2], PARTS[2] + bytes(20), PARTS[3][:20], *PARTS[4:]]
    ),
    "only a header": HEAD,
    "a header that says another length": edited(PLAIN, 4, 0xFF, 0xF0),
}


def of(data: bytes) -> Pixels:
    return rgb(Frame(memoryview(data), "jpeg"))


@pytest.mark.parametrize("name", list(MENDED | FINE_AS_IT_IS))
def test_a_jpeg_that_lacks_nothing_gives_every_pixel(name: str) -> None:
    data = (MENDED | FINE_AS_IT_IS)[name]
    plain = data.startswith(PLAIN[:300]) or "AVI" in name or "tables" in name
    whole = PLAIN if plain else progressive(PICTURE) if "progressive" in name else WHOLE
    np.testing.assert_array_equal(of(data), simplejpeg.decode_jpeg(whole))


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_jpeg_whose_data_end_too_early_is_refused(name: str) -> None:
    with pytest.raises(ObservationError, match="damaged JPEG") as caught:
        of(REFUSED[name])
    assert caught.value.slug == "bad-image"
    assert str(caught.value).isprintable()


def test_what_was_mended_is_counted_and_spoken_of_seldom(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jpeg_repair, "_log_line", RateLimit(3600.0))
    before = pictures_mended.total
    for _ in range(5):
        of(MENDED["zeros before a restart marker"])
        of(WHOLE)
    assert pictures_mended.total == before + 5
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "extraneous bytes before marker" in caplog.text
    assert f"reflex_pictures_mended_total {before + 5}.0".encode() in Metrics().exposition()


def test_mending_a_large_picture_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    strictly = jpeg_repair._strictly
    monkeypatch.setattr(
        jpeg_repair, "_strictly", lambda data, colours: (tried.append(len(data)), strictly(data, colours))[1]
    )
    monkeypatch.setattr(jpeg_repair, "MOST_PIXELS_TRIED", 0)
    with pytest.raises(ObservationError):
        of(put_together(HEAD, after(MANY, b"\x12\x34" * 6)))
    assert len(tried) <= 3 + jpeg_repair.LEAST_ATTEMPTS


AS_FILE: dict[str, Callable[[Pixels], bytes]] = {
    "jpeg": lambda picture: bytes(simplejpeg.encode_jpeg(picture, quality=95)),
    "png": lambda picture: bytes(cv2.imencode(".png", picture[:, :, ::-1])[1]),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("encoding", list(AS_FILE))
def test_no_picture_is_turned(encoding: str, orientation: int) -> None:
    """PIL.Image.open, which training reads pictures with, does not turn them either."""
    plain = AS_FILE[encoding](PICTURE)
    file = turned(plain, orientation)
    assert encoded_size(file) == (encoding, 96, 128)
    np.testing.assert_array_equal(rgb(Frame(file, encoding)), rgb(Frame(plain, encoding)))


BOMBS: dict[str, bytes] = {
    "a tiny png that claims 200000x200000": png_claiming(200_000, 200_000),
    "a png of 20000x20000": png_claiming(20_000, 20_000, bytes(48_000)),
    "a png as wide as numbers go": png_claiming(2**31 - 1, 1),
    "a jpeg that claims 65500x65500": edited(PLAIN, PLAIN.index(b"\xff\xc0") + 5, 0xFF, 0xDC, 0xFF, 0xDC),
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_the_size_of_a_bomb_is_seen_without_decoding_it(name: str) -> None:
    found = file_header(BOMBS[name])
    with pytest.raises(ObservationError, match="at most 25000000 pixels are accepted") as caught:
        check_pixels(found.height, found.width, 25_000_000)
    assert caught.value.slug == "image-too-large"


def test_what_opencv_itself_refuses_is_the_callers_mistake() -> None:
    with pytest.raises(ObservationError, match="damaged PNG"):
        rgb(Frame(png_claiming(200_000, 200_000), "png"))


LOOKS_LIKE_ONE_SCAN = PLAIN[2 : PLAIN.index(b"\xff\xda") + 14]


def comment(text: bytes) -> bytes:
    return b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text


def skipped_over(marker: bytes) -> bytes:
    """A marker and comments; who takes the 0xfffe after the marker for its length goes on in the middle of the second one."""
    begin = marker + comment(bytes(1000))
    return begin + comment(bytes(0xFFFE + 2 - len(begin) - 4) + LOOKS_LIKE_ONE_SCAN)


@pytest.mark.parametrize("before", [
    b"", b"\xff\xfe\x00\x00", b"\xff\xfe\x00\x01", comment(LOOKS_LIKE_ONE_SCAN),
    *(skipped_over(marker) for marker in (b"\xff\xd0", b"\xff\x01", b"\xff\xff", b"\xff\x00")),
])  # fmt: skip
def test_a_jpeg_of_thousands_of_scans_is_refused(before: bytes) -> None:
    whole = progressive(PICTURE)
    whole = whole[:2] + before + whole[2:]
    scan = whole.rindex(b"\xff\xda")
    with pytest.raises(ObservationError, match=r"more than 100 scans|damaged JPEG"):
        encoded_size(whole[:scan] + whole[scan:-2] * 400 + b"\xff\xd9")


@pytest.mark.parametrize("depth", [8, 16])
def test_a_png_of_sixteen_bits_gives_its_high_byte(depth: int) -> None:
    deep = PICTURE[:, :, ::-1].astype(np.uint16) * 257 if depth == 16 else PICTURE[:, :, ::-1]
    data = bytes(cv2.imencode(".png", deep)[1])
    np.testing.assert_array_equal(rgb(Frame(data, "png")), PICTURE)
