# SPDX-License-Identifier: Apache-2.0
"""What a CompressedImage's `format` says is believed: mosaics become colours, depth and video are refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import simplejpeg
from bags import CAMERA, COMPRESSED, START_NS, arrival, compressed, header, image
from quadrants import BAYER, mosaic
from quadrants import scene as quadrants
from sensor_msgs.msg import CompressedImage
from webcams import png_claiming, turned

from reflex_core.errors import ObservationError
from reflex_core.images.raw_encodings import rgb
from reflex_core.values import Pixels
from reflex_ros.messages.images import frame
from reflex_ros.messages.raw import image_frame
from reflex_ros.node.observation_buffer import Gates, ObservationBuffer

SCENE = quadrants(32, 48)
MIDDLES = ((8, 12), (8, 36), (24, 12), (24, 36))  # of its quadrants
GATES = Gates(max_age_ms=1e9, max_skew_ms=1e9)


def png(pixels: Pixels) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1])


def jpeg(picture: Pixels) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=98, colorsubsampling="444"))


def of(format_: str, data: bytes) -> Pixels:
    message = CompressedImage(header=header(1), format=format_)
    message.data.frombytes(data)
    return rgb(frame(arrival(COMPRESSED, message, 1)))


def shows_the_scene(found: Pixels) -> None:
    for row, column in MIDDLES:
        np.testing.assert_allclose(found[row, column].astype(int), SCENE[row, column], atol=6)


COLOURS = SCENE[:, :, ::-1]  # as OpenCV writes them
FORMATS: dict[str, tuple[str, bytes]] = {
    "nothing": ("", jpeg(SCENE)),
    "jpeg": ("jpeg", jpeg(SCENE)),
    "png": ("png", png(COLOURS)),
    "jpeg that is png": ("jpeg", png(COLOURS)),
    "rgb8 encoded as bgr8": ("rgb8; jpeg compressed bgr8", jpeg(SCENE)),
    "bgr8 encoded as bgr8": ("bgr8; png compressed bgr8", png(COLOURS)),
    "bgr8 without a target": ("bgr8; jpeg compressed ", jpeg(SCENE)),
    "rgb8 encoded as rgb8, jpeg": ("rgb8; jpeg compressed rgb8", jpeg(COLOURS)),
    "rgb8 encoded as rgb8, png": ("RGB8; PNG compressed RGB8", png(SCENE)),
    "rgb16 encoded as bgr16": ("rgb16; png compressed bgr16", png(COLOURS.astype(np.uint16) * 257)),
    "8UC3": ("8UC3; jpeg compressed ", jpeg(SCENE)),
    "yuv422": ("yuv422; jpeg compressed bgr8", jpeg(SCENE)),
    "a mosaic that was made colours": ("bayer_rggb8; jpeg compressed bgr8", jpeg(SCENE)),
}


@pytest.mark.parametrize("name", list(FORMATS))
def test_colours_arrive_whatever_the_format_says(name: str) -> None:
    shows_the_scene(of(*FORMATS[name]))


@pytest.mark.parametrize("pattern", list(BAYER))
@pytest.mark.parametrize("bits", [8, 16])
def test_a_compressed_mosaic_becomes_colours(pattern: str, bits: int) -> None:
    sensor = mosaic(SCENE, BAYER[pattern])
    deep = sensor.astype(np.uint16) * 257 if bits == 16 else sensor
    shows_the_scene(of(f"{pattern.removesuffix('8')}{bits}; png compressed ", png(deep)))


def test_a_mosaic_may_be_a_jpeg() -> None:
    sensor = mosaic(np.full((32, 48, 3), (90, 120, 150), np.uint8), BAYER["bayer_rggb8"])
    grey = simplejpeg.encode_jpeg(np.ascontiguousarray(sensor[:, :, None]), quality=100, colorspace="GRAY")
    found = of("bayer_rggb8; jpeg compressed ", grey).astype(int)
    np.testing.assert_allclose(found[10:20, 10:30].mean((0, 1)), (90, 120, 150), atol=6)


@pytest.mark.parametrize(
    ("format_", "depth"), [("mono8; jpeg compressed ", 8), ("mono16; png compressed mono16", 16), ("png", 16)]
)
def test_grey_becomes_three_equal_channels(format_: str, depth: int) -> None:
    grey = np.full((32, 48), 120, np.uint8)
    data = png(grey.astype(np.uint16) * 256) if depth == 16 else png(grey)
    np.testing.assert_array_equal(of(format_, data), np.full((32, 48, 3), 120))


REFUSED = {
    "16UC1; compressedDepth": "depth, not colours",
    "16UC1; compressedDepth png": "depth, not colours",
    "32FC1; compressedDepth rvl": "depth, not colours",
    "16UC1; png compressed ": "depth, not colours",
    "bayer_xxxx8; png compressed ": "a Bayer pattern that is not known; known: bayer_rggb8",
    "h264": "a video stream",
    "bgr8; tiff compressed bgr8": r"neither JPEG nor PNG \(its format is 'bgr8; tiff compressed bgr8'\)",
    "a\n[ERROR] fake\u202e": r"neither JPEG nor PNG \(its format is 'a\\n\[ERROR\] fake\\u202e'\)",
}


@pytest.mark.parametrize("format_", list(REFUSED))
def test_what_is_no_colour_picture_is_refused_in_one_sentence(format_: str) -> None:
    data = b"II*\0" + bytes(40) if "JPEG" in REFUSED[format_] else png(np.zeros((8, 8), np.uint16))
    with pytest.raises(ObservationError, match=REFUSED[format_]) as caught:
        of(format_, data)
    assert caught.value.slug == "bad-image"
    assert str(caught.value).startswith(f"{COMPRESSED}: ")
    assert str(caught.value).isprintable()


def test_a_picture_from_a_topic_is_not_turned_either() -> None:
    np.testing.assert_array_equal(of("png", turned(png(COLOURS), 6)), SCENE)


BOMBS = {
    "claims 200000x200000": png_claiming(200_000, 200_000),
    "48 kB of 20000x20000": png_claiming(20_000, 20_000, bytes(48_000)),
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_a_bomb_from_a_topic_is_refused_undecoded_and_the_next_picture_is_taken(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: decoded.append(arguments))
    buffer = ObservationBuffer(("base",), (), needs_state=False)
    buffer.put_image("base", arrival(COMPRESSED, compressed(1, BOMBS[name]), 1))
    with pytest.raises(ObservationError, match="at most 25000000 pixels are accepted") as caught:
        buffer.take(START_NS, GATES)
    assert caught.value.slug == "image-too-large"
    assert buffer.peek(START_NS, GATES) is None
    buffer.put_image("base", arrival(COMPRESSED, compressed(2, png(COLOURS)), 2))
    assert buffer.take(START_NS, GATES).frames["base"].width == 48
    assert not decoded


def test_the_limit_of_pixels_holds_for_raw_and_compressed_topics() -> None:
    for message, topic in ((image(1), CAMERA), (compressed(1, jpeg(SCENE)), COMPRESSED)):
        frame(arrival(topic, message, 1), max_pixels=32 * 48)
        with pytest.raises(ObservationError, match="at most 1000 pixels are accepted"):
            frame(arrival(topic, message, 1), max_pixels=1000)


@pytest.mark.parametrize("big", [False, True])
def test_deep_grey_gives_its_high_byte_in_either_order(big: bool) -> None:
    message = image(1)
    message.encoding, message.step, message.is_bigendian = "mono16", 64, big
    del message.data[:]
    message.data.frombytes(np.full((32, 32), 0x5A01, ">u2" if big else "<u2").tobytes())
    np.testing.assert_array_equal(rgb(frame(arrival(CAMERA, message, 1))), np.full((32, 32, 3), 0x5A))


@pytest.mark.parametrize("length", [32 * 98, 32 * 98 - 2])
def test_padded_rows_of_a_topic_are_as_long_as_they_say(length: int) -> None:
    message = image(1)
    message.step = 98
    del message.data[:]
    message.data.frombytes(bytes(length))
    image_frame(arrival(CAMERA, message, 1))


@pytest.mark.parametrize(
    ("encoding", "length"), [("bgr8", 32 * 96 + 1), ("mono8", 32 * 96), ("bgr8", 4 * 32 * 96)]
)
def test_a_raw_topic_with_bytes_that_do_not_fit_is_refused(encoding: str, length: int) -> None:
    message = image(1)
    message.encoding, message.step = encoding, 96 if encoding == "bgr8" else 32
    del message.data[:]
    message.data.frombytes(bytes(length))
    with pytest.raises(ObservationError, match=f"got {length}") as caught:
        image_frame(arrival(CAMERA, message, 1))
    assert caught.value.slug == "bad-image"
