# SPDX-License-Identifier: Apache-2.0
"""Camera frames of every encoding become the colours that the camera saw."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest
import simplejpeg
from quadrants import BAYER, mosaic, scene

from reflex_core.errors import ObservationError
from reflex_core.images.raw_encodings import ENCODINGS, encoded_size, needs_conversion, rgb
from reflex_core.values import Frame, Pixels


def luma(picture: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def raw(encoding: str, picture: Pixels) -> Pixels:
    """The rows of a raw 8-bit image message, written out by hand."""
    alpha = np.full((*picture.shape[:2], 1), 77, np.uint8)
    rows: dict[str, Pixels] = {
        "rgb8": picture,
        "bgr8": picture[:, :, [2, 1, 0]],
        "8UC3": picture[:, :, [2, 1, 0]],
        "rgba8": np.concatenate([picture, alpha], axis=2),
        "bgra8": np.concatenate([picture[:, :, [2, 1, 0]], alpha], axis=2),
    }
    return np.ascontiguousarray(rows[encoding])


def padded(rows: Pixels, padding: int) -> tuple[bytes, int]:
    """Rows followed by `padding` bytes of rubbish each, and their step."""
    flat = rows.reshape(rows.shape[0], -1)
    rubbish = np.full((len(flat), padding), 255, np.uint8)
    return np.concatenate([flat, rubbish], axis=1).tobytes(), flat.shape[1] + padding


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "8UC3", "rgba8", "bgra8"])
@pytest.mark.parametrize("padding", [0, 1, 7, 64])
def test_raw_colours_arrive_and_row_padding_is_left_out(encoding: str, padding: int) -> None:
    picture = scene()
    data, step = padded(raw(encoding, picture), padding)
    np.testing.assert_array_equal(rgb(Frame(data, encoding, 12, 16, step)), picture)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
@pytest.mark.parametrize("padding", [0, 5])
def test_grey_becomes_three_equal_channels(encoding: str, padding: int) -> None:
    grey = luma(scene())
    data, step = padded(grey, padding)
    np.testing.assert_array_equal(rgb(Frame(data, encoding, 12, 16, step)), np.stack([grey] * 3, axis=2))


def test_the_last_row_may_come_without_its_padding() -> None:
    data, step = padded(raw("bgr8", scene()), 9)
    np.testing.assert_array_equal(rgb(Frame(data[:-9], "bgr8", 12, 16, step)), scene())


def test_sixteen_bit_grey_gives_its_high_byte() -> None:
    deep = (np.arange(12 * 16, dtype="<u2").reshape(12, 16) * 257).astype("<u2")
    found = rgb(Frame(deep.tobytes(), "mono16", 12, 16, 32))
    np.testing.assert_array_equal(
        found, np.stack([np.arange(192, dtype=np.uint8).reshape(12, 16)] * 3, axis=2)
    )


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: array("B", data)])
def test_any_buffer_will_do(kind: type) -> None:
    np.testing.assert_array_equal(rgb(Frame(kind(scene().tobytes()), "rgb8", 12, 16, 48)), scene())


def test_raw_pixels_are_not_copied() -> None:
    picture = scene()
    assert np.shares_memory(rgb(Frame(picture, "bgr8", 12, 16, 48)), picture)


# what ROS calls the pattern -> the colour filter over the first two rows (REP 118: named by the first row)


@pytest.mark.parametrize("encoding", list(BAYER))
@pytest.mark.parametrize("padding", [0, 3])
def test_bayer_patterns_give_the_colours_of_the_scene(encoding: str, padding: int) -> None:
    picture = scene(32, 48)
    data, step = padded(mosaic(picture, BAYER[encoding]), padding)
    found = rgb(Frame(data, encoding, 32, 48, step)).astype(int)
    for row, column in ((8, 12), (8, 36), (24, 12), (24, 36)):  # the middle of each quadrant
        np.testing.assert_allclose(found[row, column], picture[row, column], atol=2)


def studio_yuv(picture: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """(Y, U, V) of ITU-R BT.601 in studio range: black is Y 16, white is Y 235."""
    red, green, blue = (picture[:, :, channel].astype(float) for channel in range(3))
    planes = (
        16 + 0.257 * red + 0.504 * green + 0.098 * blue,
        128 - 0.148 * red - 0.291 * green + 0.439 * blue,
        128 + 0.439 * red - 0.368 * green - 0.071 * blue,
    )
    y, u, v = (np.clip(np.rint(plane), 0, 255).astype(np.uint8) for plane in planes)
    return y, u, v


def packed_yuv(picture: Pixels, order: str) -> Pixels:
    y, u, v = studio_yuv(picture)
    quads = {"y": y[:, 0::2], "Y": y[:, 1::2], "u": u[:, 0::2], "v": v[:, 0::2]}
    return np.stack([quads[letter] for letter in order], axis=2)


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvY"), ("uyvy", "uyvY"), ("yuv422_yuy2", "yuYv"), ("yuyv", "yuYv")]
)
@pytest.mark.parametrize("padding", [0, 6])
def test_packed_yuv_gives_the_colours_of_the_scene(encoding: str, order: str, padding: int) -> None:
    picture = scene(12, 16)
    data, step = padded(packed_yuv(picture, order), padding)
    np.testing.assert_allclose(rgb(Frame(data, encoding, 12, 16, step)).astype(int), picture, atol=4)


@pytest.mark.parametrize(("encoding", "order"), [("nv12", "uv"), ("nv21", "vu")])
@pytest.mark.parametrize("padding", [0, 8])
def test_planar_yuv_gives_the_colours_of_the_scene(encoding: str, order: str, padding: int) -> None:
    picture = scene(12, 16)
    y, u, v = studio_yuv(picture)
    planes = {"u": u[::2, ::2], "v": v[::2, ::2]}
    chroma = np.stack([planes[letter] for letter in order], axis=2).reshape(6, 16)
    data, step = padded(np.concatenate([y, chroma]), padding)
    np.testing.assert_allclose(rgb(Frame(data, encoding, 12, 16, step)).astype(int), picture, atol=4)


def as_jpeg(picture: Pixels) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=98, colorsubsampling="444"))


def as_png(picture: Pixels) -> bytes:
    return bytes(cv2.imencode(".png", picture[:, :, ::-1])[1])


def test_a_jpeg_keeps_its_colours() -> None:
    found = rgb(Frame(as_jpeg(scene(32, 48)), "jpeg")).astype(int)
    np.testing.assert_allclose(found, scene(32, 48), atol=12)


def test_a_grey_jpeg_becomes_three_channels() -> None:
    grey = np.ascontiguousarray(luma(scene(32, 48))[:, :, None])
    found = rgb(Frame(simplejpeg.encode_jpeg(grey, colorspace="GRAY", quality=98), "jpeg"))
    assert found.shape == (32, 48, 3)
    np.testing.assert_allclose(found[:, :, 0].astype(int), grey[:, :, 0], atol=12)


def test_a_png_keeps_its_colours_exactly() -> None:
    np.testing.assert_array_equal(rgb(Frame(as_png(scene()), "png")), scene())


def test_a_png_with_alpha_keeps_its_colours() -> None:
    bgra = np.dstack([scene()[:, :, ::-1], np.full((12, 16), 255, np.uint8)])
    np.testing.assert_array_equal(rgb(Frame(bytes(cv2.imencode(".png", bgra)[1]), "png")), scene())


@pytest.mark.parametrize(("encode", "name"), [(as_jpeg, "jpeg"), (as_png, "png")])
def test_the_size_of_a_picture_is_known_without_decoding_it(encode: object, name: str) -> None:
    assert callable(encode)
    assert encoded_size(encode(scene(32, 48))) == (name, 32, 48)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd8\xff\xe0junk"])
def test_what_is_no_picture_has_no_size(data: bytes) -> None:
    with pytest.raises(ObservationError) as caught:
        encoded_size(data)
    assert caught.value.slug == "bad-image"


DAMAGED = {
    "an empty jpeg": Frame(b"", "jpeg"),
    "half a jpeg": Frame(as_jpeg(scene(64, 64))[:400], "jpeg"),
    "a jpeg that is text": Frame(b"hello, this is no picture", "jpeg"),
    "an empty png": Frame(b"", "png"),
    "half a png": Frame(
        as_png(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[:4000], "png"
    ),
    "a png that is text": Frame(b"hello, this is no picture", "png"),
    "raw without a byte": Frame(b"", "rgb8", 12, 16, 48),
    "raw one byte short": Frame(bytes(12 * 48 - 1), "rgb8", 12, 16, 48),
    "raw one byte long": Frame(bytes(12 * 48 + 1), "rgb8", 12, 16, 48),
    "colours as grey": Frame(bytes(12 * 48), "mono8", 12, 16),
    "floats as colours": Frame(bytes(4 * 12 * 48), "rgb8", 12, 16),
    "three pictures joined": Frame(bytes(3 * 12 * 48), "bgr8", 12, 16, 48),
    "padded rows and one more": Frame(bytes(13 * 50), "rgb8", 12, 16, 50),
    "nv12 with a picture more": Frame(bytes(2 * 18 * 16), "nv12", 12, 16, 16),
    "yuv with a picture more": Frame(bytes(2 * 12 * 32), "uyvy", 12, 16, 32),
    "deep grey as colours": Frame(bytes(12 * 48), "mono16", 12, 16),
    "raw with a step too small": Frame(bytes(4096), "rgb8", 12, 16, 47),
    "raw without a height": Frame(bytes(4096), "rgb8", 0, 16, 48),
    "raw without a width": Frame(bytes(4096), "rgb8", 12, 0, 48),
    "raw with a negative size": Frame(bytes(4096), "rgb8", -4, -4, 48),
    "raw with a negative step": Frame(bytes(4096), "rgb8", 12, 16, -48),
    "a bayer frame cut short": Frame(bytes(100), "bayer_rggb8", 12, 16, 16),
    "a bayer frame of one pixel": Frame(bytes(100), "bayer_rggb8", 1, 1, 1),
    "yuv of an odd width": Frame(bytes(4096), "uyvy", 12, 15, 30),
    "nv12 of an odd height": Frame(bytes(4096), "nv12", 11, 16, 16),
    "nv12 without its colours": Frame(bytes(12 * 16), "nv12", 12, 16, 16),
    "depth": Frame(bytes(4096), "32FC1", 4, 4, 16),
    "no encoding": Frame(bytes(4096), "", 4, 4, 16),
}


@pytest.mark.parametrize("frame", list(DAMAGED.values()), ids=list(DAMAGED))
def test_a_damaged_frame_is_the_callers_mistake_in_one_sentence(frame: Frame) -> None:
    with pytest.raises(ObservationError) as caught:
        rgb(frame)
    assert caught.value.slug == "bad-image"
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


def test_truncated_raw_data_says_what_it_needs_and_what_came() -> None:
    with pytest.raises(
        ObservationError, match=r"rgb8 image of 16x12 with step 48 needs 576 bytes or more, got 575"
    ):
        rgb(Frame(bytes(575), "rgb8", 12, 16, 48))


def test_too_many_bytes_are_named_with_what_belongs_there() -> None:
    with pytest.raises(
        ObservationError, match=r"rgb8 image of 16x12 with step 48 has 576 bytes, got 2304: is it of"
    ):
        rgb(Frame(bytes(2304), "rgb8", 12, 16))


def test_padded_truncated_data_names_a_need_that_is_more_than_what_came() -> None:
    with pytest.raises(ObservationError, match=r"step 100 needs 1148 bytes or more, got 1100"):
        rgb(Frame(bytes(1100), "rgb8", 12, 16, 100))


def test_an_unknown_encoding_is_named_with_the_known_ones() -> None:
    with pytest.raises(ObservationError, match="'bayer_rggb16' is not supported; known: jpeg, png, rgb8"):
        rgb(Frame(bytes(64), "bayer_rggb16", 4, 4, 8))


def test_an_outside_decoder_wins() -> None:
    frame = Frame(b"anything", "bayer_rggb16", 12, 16, 0, decoder=lambda _: scene())
    np.testing.assert_array_equal(rgb(frame), scene())


def test_only_bayer_yuv_and_deep_encodings_need_conversion() -> None:
    plain = {"jpeg", "png", "rgb8", "bgr8", "rgba8", "bgra8", "mono8", "8UC3", "8UC1"}
    assert {encoding for encoding in ENCODINGS if not needs_conversion(encoding)} == plain
