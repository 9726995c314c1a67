# SPDX-License-Identifier: Apache-2.0
"""What the correction head observes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from guarded import MIDDLE
from heads import fit_of, observation, picture

from reflex_core.chunks.a2c2.features import Features, Moment, hues, robot_of, thumbnail, words
from reflex_core.errors import ObservationError
from reflex_core.values import Frame, Observation

ROBOT = robot_of(fit_of())
RED, YELLOW = (200, 20, 20), (220, 200, 20)


def vector(recipe: str, now: Observation, seen: Observation | None = None, **other: object) -> np.ndarray:
    features = Features(recipe, ROBOT)
    made = features.vector(Moment(now, now if seen is None else seen, **other))  # type: ignore[arg-type]
    assert made.shape == (features.dim,)
    assert made.dtype == np.float32
    return made


def test_state_and_previous_action_are_normalised_like_the_policy() -> None:
    now = observation(state=MIDDLE + np.float32(0.25))
    made = vector("state+previous", now, previous=MIDDLE - np.float32(0.5))
    np.testing.assert_allclose(made, [1.0] * 7 + [-2.0] * 7, atol=1e-5)


def test_what_has_changed_since_the_policy_looked_is_seen() -> None:
    seen = observation(picture(RED, 48, 30))
    now = observation(picture(RED, 48, 66), MIDDLE + np.float32(0.25))
    change = vector("state_change+hues12_change", now, seen)
    np.testing.assert_allclose(change[:7], 1.0, atol=1e-5)
    across, down = change[7 + 12 : 7 + 24], change[7 + 24 :]
    assert across[0] == pytest.approx(36 / 47.5, rel=0.03)  # 36 of 96 columns to the right
    assert np.abs(across[1:]).max() == 0
    assert np.abs(down).max() < 1e-6
    assert not vector("state_change+hues12_change", now).any()


def test_each_colour_is_found_where_it_is() -> None:
    found = hues(picture(YELLOW, 24, 72).data)
    assert int(found[:12].argmax()) == 2
    assert found[2] == pytest.approx(256 / 96**2)
    assert found[12 + 2] == pytest.approx(0.51, abs=0.03)
    assert found[24 + 2] == pytest.approx(-0.5, abs=0.03)
    assert not hues(np.full((30, 40, 3), 128, np.uint8)).any()


def test_of_the_colours_the_one_that_is_named_is_looked_at() -> None:
    now = replace(observation(picture(YELLOW, 24, 72)), instruction="touch the Yellow, not the red, cube")
    seen = replace(now, frames=observation(picture(YELLOW, 24, 36)).frames)
    made = vector("named_hue+named_hue_change", now, seen)
    every = vector("hues12+hues12_change", now, seen)
    np.testing.assert_array_equal(made, [*every[2:36:12], *every[36 + 2 :: 12]])
    assert made[0] > 0.02
    assert abs(made[4]) > 0.5
    for instruction in ("reach the cube", "reach the red cube"):  # none is named, or none is seen
        assert not vector(
            "named_hue+named_hue_change", *(replace(one, instruction=instruction) for one in (now, seen))
        ).any()


def test_a_thumbnail_is_the_mean_of_its_squares() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:2, 2:4] = (255, 0, 51)
    small = thumbnail(pixels).reshape(8, 8, 3)
    np.testing.assert_allclose(small[0, 1], [1.0, 0.0, 0.2])
    assert small.sum() == pytest.approx(1.2)


def test_words_count_whatever_their_case() -> None:
    np.testing.assert_array_equal(words("Reach the RED cube"), words("cube red reach the"))
    assert words("the the").max() == 2
    assert (words("red") != words("green")).any()


def test_the_default_has_a_place_for_everything() -> None:
    made = vector("runtime256", observation(state=MIDDLE + np.float32(0.25)), previous=MIDDLE)
    np.testing.assert_allclose(made[:7], 1.0, atol=1e-5)
    assert not made[7:64].any()
    assert made[64:].any()


def test_an_observation_that_lacks_something_is_an_error_and_not_zeros() -> None:
    with pytest.raises(ObservationError, match="needs a state of 7 numbers, got none"):
        vector("state", observation(state=None))
    with pytest.raises(ObservationError, match="no image"):
        vector("hues12", Observation({}, MIDDLE, ""))


@pytest.mark.parametrize(
    "recipe",
    ["state+hues12+hues12_change+words32", "named_hue", "named_hue_change", "state+words32", "runtime256"],
)
def test_an_image_that_was_decoded_once_gives_the_same_vector(recipe: str) -> None:
    encoded = cv2.imencode(".png", picture(YELLOW, 24, 72).data[..., ::-1])[1].tobytes()
    seen = observation(Frame(encoded, "png"))
    features = Features(recipe, ROBOT)
    decoded = features.decoded(seen)
    np.testing.assert_array_equal(
        features.vector(Moment(decoded, decoded)), features.vector(Moment(seen, seen))
    )
    assert (decoded is seen) == (recipe == "state+words32")  # which looks at no image
    assert all(frame.encoding == "rgb8" for frame in decoded.frames.values()) or decoded is seen


def test_nothing_is_decoded_where_there_is_no_image() -> None:
    blind = Observation({}, MIDDLE, "reach")
    assert Features("hues12", ROBOT).decoded(blind) is blind
