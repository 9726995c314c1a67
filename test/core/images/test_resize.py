# SPDX-License-Identifier: Apache-2.0
"""A picture reaches the network as the training code brought it there: side of the bars, filter, rounding."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from repository import FIXTURES

from reflex_core.images import resize
from reflex_core.images.resize import Box, placed, resized
from reflex_core.values import Pixels

WANTED = dict(np.load(FIXTURES / "lerobot" / "resize.npz"))
CASES = [tuple(map(tuple, case)) for case in WANTED["cases"].tolist()]


def noise_picture(seed: int, height: int, width: int) -> Pixels:
    """As in fixtures/lerobot/make_resize.py."""
    words = np.random.Philox(seed).random_raw(height * width * 3 // 8 + 1)
    return words.view(np.uint8)[: height * width * 3].reshape(height, width, 3)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{have}-{want}" for have, want in CASES])
@pytest.mark.parametrize(("how", "library", "allowed"), [
    ("bilinear", "torch", 1e-6),
    ("bilinear_antialias", "pillow", 0),
])  # fmt: skip
def test_each_filter_makes_what_the_training_library_makes(
    number: int, how: str, library: str, allowed: float
) -> None:
    have, want = CASES[number]
    found = resized(noise_picture(number, *have), *want, how)
    assert found.shape == (*want, 3)
    share = np.ascontiguousarray(found).reshape(-1)[:: int(WANTED["every"])]
    share = share / np.float32(255) if library == "torch" else share
    np.testing.assert_allclose(share, WANTED[f"{library}_{number}"], rtol=0, atol=allowed)


def test_area_averages_what_shrinks_and_nothing_else_does() -> None:
    picture = noise_picture(0, 96, 128)
    expected = cv2.resize(picture, (32, 24), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resized(picture, 24, 32, "area"), expected)
    for how in ("bilinear", "bilinear_antialias"):
        assert np.abs(resized(picture, 24, 32, how) - expected.astype(np.float32)).max() > 20
    grown = cv2.resize(picture, (256, 192), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resized(picture, 192, 256, "area"), grown)


def halved_slowly(picture: Any) -> Any:
    """Means of 2x2 pixels, a half rounded up."""
    sums = picture.astype(np.int64)
    sums = sums[::2, ::2] + sums[1::2, ::2] + sums[::2, 1::2] + sums[1::2, 1::2]
    return ((sums + 2) // 4).astype(np.uint8)


@pytest.mark.parametrize(("have", "want", "halvings"), [
    ((480, 640), (224, 224), 1),
    ((480, 640), (168, 224), 1),
    ((480, 640), (72, 96), 2),
    ((1080, 1920), (512, 512), 1),
])  # fmt: skip
def test_area_halves_what_is_even_and_takes_the_bilinear_filter_for_the_rest(
    have: tuple[int, int], want: tuple[int, int], halvings: int
) -> None:
    picture = noise_picture(3, *have)
    found, expected = resized(picture, *want, "area"), picture
    for _ in range(halvings):
        expected = halved_slowly(expected)
    np.testing.assert_array_equal(found, cv2.resize(expected, want[::-1], interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize(("have", "want"), [
    ((481, 640), (224, 224)),  # odd
    ((224, 224), (96, 96)),  # small
    ((320, 320), (224, 224)),  # less than twice as large
    ((96, 128), (24, 32)),  # by whole numbers
    ((448, 448), (224, 224)),
    ((480, 1600), (224, 200)),  # one side is still more than twice too long
])  # fmt: skip
def test_area_is_opencvs_where_nothing_can_be_halved_and_bilinear_would_leave_pixels_out(
    have: tuple[int, int], want: tuple[int, int]
) -> None:
    picture = noise_picture(4, *have)
    halved = halved_slowly(picture) if want == (224, 200) else picture
    expected = cv2.resize(halved, want[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resized(picture, *want, "area"), expected)


def test_area_stays_near_opencvs_on_a_cameras_picture() -> None:
    """Documented in docs/reference/image-preprocessing.md."""
    seen = camera_picture(480, 640)
    for want in ((224, 224), (168, 224), (96, 96), (84, 112)):
        exact = cv2.resize(seen, want[::-1], interpolation=cv2.INTER_AREA).astype(np.float64)
        difference = np.abs(resized(seen, *want, "area") - exact)
        assert 0 < difference.max() <= 6
        assert difference.mean() < 1.0


@pytest.mark.parametrize("have", [(480, 640), (720, 1280), (1080, 1920), (240, 320)])
def test_area_leaves_no_pixel_out(have: tuple[int, int]) -> None:
    """A white block of 4x4 pixels anywhere raises the sum by what it covers."""
    height, width = 84, 112
    share = 255 * 16 * (height / have[0]) * (width / have[1])
    for number in range(30):
        top, left = np.random.default_rng(number).integers(0, (have[0] - 4, have[1] - 4))
        picture = np.zeros((*have, 3), np.uint8)
        picture[top : top + 4, left : left + 4] = 255
        found = resized(picture, height, width, "area").astype(np.int64).sum() / 3
        assert abs(found - share) < 0.6 * share, (top, left)


def camera_picture(height: int, width: int) -> Pixels:
    """Smooth shapes and a little sensor noise."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 32 + 1, width // 32 + 1, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(smooth + random.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("how", ["bilinear", "bilinear_antialias", "area"])
def test_a_picture_of_the_right_size_is_taken_as_it_is(how: str) -> None:
    picture = noise_picture(0, 8, 8)
    assert resized(picture, 8, 8, how) is picture


@pytest.mark.parametrize("how", ["bilinear", "bilinear_antialias", "area"])
@pytest.mark.parametrize("view", [
    lambda picture: picture[:, :, ::-1],
    lambda picture: np.broadcast_to(picture[:, :, :1], picture.shape),
    lambda picture: picture[3:40, 5:50],
])  # fmt: skip
def test_views_of_a_cameras_rows_are_resized_like_copies(how: str, view: Any) -> None:
    seen = view(noise_picture(1, 48, 64))
    np.testing.assert_array_equal(resized(seen, 20, 30, how), resized(seen.copy(), 20, 30, how))


@pytest.mark.parametrize("have", [(480, 640), (1080, 1920), (7, 900), (600, 3), (1, 2)])
def test_bilinear_makes_the_same_bits_where_opencv_gathers_the_pixels(
    have: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = noise_picture(2, *have)
    for want in ((168, 224), (97, 1), (1, 31)):
        found = resized(picture, *want, "bilinear")
        with monkeypatch.context() as patch:
            patch.setattr(resize, "opencv", lambda: None)
            assert found.tobytes() == resized(picture, *want, "bilinear").tobytes(), want


@pytest.mark.parametrize(("rows", "columns", "side", "top_left", "centred"), [
    (480, 640, 512, Box(128, 0, 384, 512), Box(64, 0, 384, 512)),
    (640, 480, 512, Box(0, 128, 512, 384), Box(0, 64, 512, 384)),
    (480, 640, 224, Box(56, 0, 168, 224), Box(28, 0, 168, 224)),
    (101, 97, 224, Box(0, 9, 224, 215), Box(0, 4, 224, 215)),  # the odd pixel is at the right
    (97, 101, 224, Box(9, 0, 215, 224), Box(4, 0, 215, 224)),  # and at the bottom
    (333, 517, 224, Box(80, 0, 144, 224), Box(40, 0, 144, 224)),
    (100, 100, 224, Box(0, 0, 224, 224), Box(0, 0, 224, 224)),
    (224, 224, 224, Box(0, 0, 224, 224), Box(0, 0, 224, 224)),
    (1, 4000, 224, Box(223, 0, 1, 224), Box(111, 0, 1, 224)),
    (4000, 1, 224, Box(0, 223, 224, 1), Box(0, 111, 224, 1)),
])  # fmt: skip
def test_bars_are_where_the_family_puts_them(
    rows: int, columns: int, side: int, top_left: Box, centred: Box
) -> None:
    assert placed(rows, columns, side, side, "letterbox_top_left") == top_left
    assert placed(rows, columns, side, side, "letterbox") == centred
    assert placed(rows, columns, side, side, "stretch") == Box(0, 0, side, side)
