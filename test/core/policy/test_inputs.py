# SPDX-License-Identifier: Apache-2.0
"""Pixels, words and joint values become the arrays that a graph takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from reflex_core.errors import ObservationError
from reflex_core.export.contract import StateSlot
from reflex_core.export.export import Affine
from reflex_core.export.image_slots import ImageSlot
from reflex_core.images.resize import placed, resized
from reflex_core.policy import inputs
from reflex_core.policy.inputs import (
    image_array,
    image_arrays,
    missing_image,
    state_array,
    state_words,
)
from reflex_core.values import Frame, Pixels

RED = np.array([255, 0, 0], np.uint8)


def slot(
    *, height: int | None = 8, width: int | None = 8, last: bool = False, resize: str = "stretch", low: float = 0.0,
    high: float = 1.0, mask: str | None = None, required: bool = True, camera: str = "front", bars: float = 0.0,
    how: str = "bilinear",
) -> ImageSlot:  # fmt: skip
    scale, offset = np.full(3, (high - low) / 255, np.float32), np.full(3, low, np.float32)
    return ImageSlot(
        camera, f"img_{camera}", mask, height, width, last, resize, how, scale, offset,
        np.full(3, bars, np.float32), low, required,
    )  # fmt: skip


def square(height: int, width: int, side: int = 16) -> Pixels:
    """A red square in the middle of a blue picture."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, :, 2] = 200
    top, left = (height - side) // 2, (width - side) // 2
    picture[top : top + side, left : left + side] = RED
    return picture


def frame(picture: Pixels, encoding: str = "rgb8") -> Frame:
    rows = picture if encoding == "rgb8" else np.ascontiguousarray(picture[:, :, ::-1])
    return Frame(rows, encoding, *picture.shape[:2])


def test_a_graph_that_takes_any_size_gets_the_size_of_the_camera() -> None:
    assert image_array(frame(square(24, 40)), slot(height=None, width=None)).shape == (1, 3, 24, 40)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
@pytest.mark.parametrize("resize", ["letterbox", "letterbox_top_left", "stretch"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("size", [(48, 64), (224, 224), (480, 640)])
def test_a_red_square_stays_red(encoding: str, resize: str, last: bool, size: tuple[int, int]) -> None:
    picture = square(*size, side=size[0] // 2)
    slot_ = slot(height=64, width=64, resize=resize, last=last)
    found = image_array(frame(picture, encoding), slot_)[0]
    pixels = found if last else found.transpose(1, 2, 0)
    assert pixels.shape == (64, 64, 3)
    box = placed(*size, 64, 64, resize)
    np.testing.assert_allclose(pixels[box.top + box.height // 2, 32], [1, 0, 0], atol=0.01)
    np.testing.assert_allclose(pixels[box.top + box.height // 2, 2], [0, 0, 200 / 255], atol=0.01)


def test_grey_pictures_can_be_resized() -> None:
    grey = Frame(np.full((48, 64), 51, np.uint8), "mono8", 48, 64)
    np.testing.assert_allclose(image_array(grey, slot()), np.full((1, 3, 8, 8), 0.2), atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)])
def test_black_and_white_reach_the_ends_of_the_range(low: float, high: float) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[0] = 255
    found = image_array(frame(picture), slot(low=low, high=high))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, :, 0], high, atol=1e-5)
    np.testing.assert_allclose(found[0, :, 1], low, atol=1e-5)


@pytest.mark.parametrize("last", [True, False])
def test_every_channel_has_its_own_mean_and_deviation(last: bool) -> None:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    plain = slot(last=last)
    scale, offset = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    imagenet = ImageSlot(
        "front", "img", None, 8, 8, last, "stretch", "bilinear", scale, offset, offset, 0.0, True
    )
    picture = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    expected = (picture / 255 - mean) / std
    found = image_array(frame(picture), imagenet)[0]
    np.testing.assert_allclose(found if last else found.transpose(1, 2, 0), expected, atol=1e-5)
    assert image_array(frame(picture), plain).shape == ((1, 8, 8, 3) if last else (1, 3, 8, 8))


def test_a_missing_camera_is_an_error_that_names_it_and_what_came() -> None:
    with pytest.raises(
        ObservationError, match=r"no image from camera 'top' \(got side, wrist\); the policy needs it"
    ) as caught:
        image_arrays((slot(),), {"wrist": frame(square(8, 8)), "side": frame(square(8, 8))}, {"front": "top"})
    assert caught.value.slug == "missing-image"


def test_a_missing_camera_is_named_when_nothing_came() -> None:
    with pytest.raises(ObservationError, match=r"no image from camera 'front' \(got none\)"):
        image_arrays((slot(),), {}, {})


def test_a_camera_that_may_be_missing_is_masked() -> None:
    wrist = slot(camera="wrist", low=-1.0, mask="mask_wrist", required=False)
    arrays = image_arrays((slot(mask="mask_front"), wrist), {"front": frame(square(8, 8, 4))}, {})
    assert arrays["mask_front"].tolist() == [True]
    assert arrays["mask_wrist"].tolist() == [False]
    assert (arrays["img_wrist"] == -1).all()
    assert arrays["img_wrist"].shape == arrays["img_front"].shape


def test_a_policy_that_sees_nothing_at_all_is_not_asked() -> None:
    """LeRobot raises as well: with every picture masked it would act blindly."""
    both = tuple(slot(camera=name, mask=f"mask_{name}", required=False) for name in ("front", "wrist"))
    message = r"no image from any of cameras 'front', 'wrist' \(got side\); the policy needs one"
    with pytest.raises(ObservationError, match=message) as caught:
        image_arrays(both, {"side": frame(square(8, 8))}, {})
    assert caught.value.slug == "missing-image"
    with pytest.raises(ObservationError, match="no image from any of cameras 'wrist'"):
        image_arrays(both[1:], {"front": frame(square(8, 8))}, {})


def test_a_camera_that_is_there_is_not_masked() -> None:
    wrist = slot(camera="wrist", mask="mask_wrist", required=False)
    assert image_arrays((wrist,), {"wrist": frame(square(8, 8, 4))}, {})["mask_wrist"].tolist() == [True]


@pytest.mark.parametrize("last", [True, False])
def test_the_image_for_a_missing_camera_has_the_shape_of_the_real_one(last: bool) -> None:
    there = image_array(frame(square(8, 8, 4)), slot(last=last))
    gone = missing_image(slot(last=last))
    assert (gone.shape, gone.dtype) == (there.shape, there.dtype)


STATISTICS = Affine(np.array([1.0, 2.0, 0.0]), np.array([0.5, 2.0, 1.0]))


def test_the_state_is_normalised_and_then_padded() -> None:
    row = state_array(np.array([1.5, 0.0, 3.0], np.float32), StateSlot("state", 5, 0, ()), STATISTICS)
    assert row.tolist() == [[1.0, -1.0, 3.0, 0.0, 0.0]]
    assert row.dtype == np.float32


def test_a_state_without_statistics_goes_in_as_it_is() -> None:
    row = state_array(np.array([1.5, 0.0], np.float32), StateSlot("state", 2, 0, ()), None)
    assert row.tolist() == [[1.5, 0.0]]


@pytest.mark.parametrize(
    ("normalised", "number"),
    [
        (-1.0, "0"),
        (-0.999, "0"),
        (-0.99, "1"),
        (0.0, "128"),
        (0.999, "255"),
        (1.0, "255"),
        (9.0, "255"),
        (-1.001, "-1"),  # as openpi and LeRobot write it
        (-9.0, "-1"),
    ],
)
def test_a_state_in_the_prompt_is_written_in_256_steps(normalised: float, number: str) -> None:
    plain = Affine(np.zeros(1), np.ones(1))
    assert state_words(np.array([normalised], np.float32), StateSlot(None, 1, 256, ()), plain) == number


def test_a_state_in_the_prompt_is_normalised_first() -> None:
    found = state_words(np.array([1.0, 2.0, 1.0], np.float32), StateSlot(None, 3, 4, ()), STATISTICS)
    assert found == "2 2 3"


def test_a_state_without_statistics_is_written_as_it_is() -> None:
    assert state_words(np.array([0.0, 2.0], np.float32), StateSlot(None, 32, 256, ()), None) == "128 255"


def test_a_state_may_be_padded_before_it_is_written() -> None:
    slot_ = StateSlot(None, 32, 256, (), pad=4)
    assert state_words(np.array([1.0, -1.0], np.float32), slot_, None) == "255 0 128 128"


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "letterbox_top_left"])
@pytest.mark.parametrize("how", ["area", "bilinear_antialias", "bilinear"])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
@pytest.mark.parametrize("size", [(64, 64), (48, 64), (64, 48), (101, 97)])
@pytest.mark.parametrize("imported", [cv2, None])
def test_a_table_gives_the_numbers_of_the_arithmetic(
    resize: str,
    how: str,
    whole: bool,
    encoding: str,
    size: tuple[int, int],
    imported: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inputs, "opencv_if_imported", lambda: imported)
    random = np.random.default_rng(len(resize) + size[0])
    plain = slot(height=64, width=64, resize=resize, how=how)
    scale = random.normal(size=3).astype(np.float32) / np.float32(100)
    offset, bars = random.normal(size=(2, 3)).astype(np.float32)
    made = replace(plain, scale=scale, offset=offset, bars=bars, whole_numbers=whole)
    picture = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    box = placed(*size, 64, 64, resize)
    expected = np.empty((1, 3, 64, 64), np.float32)
    expected[0] = bars[:, None, None]
    pixels = resized(picture, box.height, box.width, how).transpose(2, 0, 1)
    inside = expected[0, :, box.rows, box.columns]
    np.multiply(pixels, scale[:, None, None], out=inside)
    inside += offset[:, None, None]
    expected = np.rint(expected) if whole else expected
    np.testing.assert_array_equal(image_array(frame(picture, encoding), made), expected)
