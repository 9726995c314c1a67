# SPDX-License-Identifier: Apache-2.0
"""Under which keys, and in which form, observations leave for other servers."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import simplejpeg

from reflex_core.errors import ObservationError, SettingError
from reflex_core.values import Frame
from reflex_ros.sidecar.outgoing_keys import outgoing_keys
from reflex_ros.sidecar.outgoing_pictures import OutgoingPictures

PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
STATE = np.array([1, 2, 3], np.float32)


def test_without_keys_an_observation_is_as_libero_sends_it() -> None:
    keys = outgoing_keys(()).for_cameras(["front", "wrist", "top"])
    made = keys.message(dict.fromkeys(("front", "wrist", "top"), PIXELS), STATE, "go")
    assert set(made) == {
        "observation/image", "observation/wrist_image", "observation/top", "observation/state", "prompt",
    }  # fmt: skip


def test_a_server_of_this_kind_gets_the_names_that_it_knows() -> None:
    keys = outgoing_keys(()).for_cameras(["front"], own=True)
    assert set(keys.message({"front": PIXELS}, STATE, "go")) == {"front", "state", "prompt"}


def test_the_state_is_divided_among_its_keys() -> None:
    keys = outgoing_keys(("state=joints+gripper",)).for_cameras([])
    made = keys.message({}, STATE, "go")
    assert made["joints"].tolist() == [1, 2]
    assert made["gripper"].tolist() == [3]
    with pytest.raises(ObservationError, match="1 numbers"):
        keys.message({}, STATE[:1], "go")


def test_maps_colours_and_axes_are_as_the_entry_says() -> None:
    made = (
        outgoing_keys(("front=images.high:bgr:chw", "instruction=task"))
        .for_cameras(["front"])
        .message({"front": PIXELS}, None, "go")
    )
    assert made["images"]["high"].tolist() == PIXELS[..., ::-1].transpose(2, 0, 1).tolist()
    assert made["task"] == "go"


@pytest.mark.parametrize(
    "entries",
    [("front",), ("front=",), ("=a",), ("front=a", "front=b"), ("front=a", "top=a"), ("front=prompt",)],
)
def test_keys_that_make_no_sense_are_refused(entries: tuple[str, ...]) -> None:
    with pytest.raises(SettingError, match="remote_keys"):
        outgoing_keys(entries)


def test_files_go_as_they_came_and_raw_pixels_as_is_set() -> None:
    jpeg = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    assert base64.b64decode(OutgoingPictures().document(Frame(jpeg, "jpeg", 8, 8))) == jpeg
    raw = Frame(PIXELS, "rgb8", 2, 2)
    assert base64.b64decode(OutgoingPictures().document(raw))[:2] == b"\xff\xd8"
    sent = OutgoingPictures(raw=True).document(raw)
    assert base64.b64decode(sent.pop("data")) == PIXELS.tobytes()
    assert sent == {"encoding": "rgb8", "height": 2, "width": 2}


def test_larger_pictures_are_scaled_with_bars_and_smaller_ones_are_not() -> None:
    wide = Frame(np.full((10, 40, 3), 200, np.uint8), "rgb8", 10, 40)
    made = OutgoingPictures(20).pixels(wide)
    assert made.shape == (20, 20, 3)
    assert (made[0, 0, 0], made[10, 10, 0]) == (0, 200)
    assert OutgoingPictures(40).pixels(wide).shape == (10, 40, 3)
    jpeg = simplejpeg.encode_jpeg(np.zeros((64, 64, 3), np.uint8))
    small = base64.b64decode(OutgoingPictures(16).document(Frame(jpeg, "jpeg", 64, 64)))
    assert simplejpeg.decode_jpeg(small).shape == (16, 16, 3)
