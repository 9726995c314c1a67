# SPDX-License-Identifier: Apache-2.0
"""What the client sends: checked before it is sent, pixels as JPEG where an encoder is installed and raw where none is."""

from __future__ import annotations

import base64
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from scripted_server import replies, scripted

from reflex_client import InvalidObservationError, Policy
from reflex_client.request import encoded, fields_of

PIXELS = np.full((24, 32, 3), (200, 40, 90), np.uint8)


@pytest.mark.parametrize(
    ("state", "slug", "sentence"),
    [
        ([0.0, float("nan")], "state-not-finite", "got nan at index 1"), ([float("-inf")], "state-not-finite", "got -inf at index 0"),
        ([[0.0]], "bad-state", r"shape \(1, 1\)"), (["x"], "bad-state", "only numbers"), (1.0, "bad-state", r"shape \(\)"),
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_is_refused_before_anything_is_sent(
    state: Any, slug: str, sentence: str
) -> None:
    with (
        scripted(replies(200)) as server,
        Policy(server.url) as policy,
        pytest.raises(InvalidObservationError, match=sentence) as raised,
    ):
        policy.act(state=state)
    assert raised.value.slug == slug
    assert server.received == []


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (PIXELS.astype(np.float32), "uint8 from 0 to 255, got float32"), (np.zeros((3, 24, 32), np.uint8), "shape"),
        (np.zeros((0, 32, 3), np.uint8), "shape"), (b"GIF89a", "JPEG or PNG"), (np.zeros(5, np.uint8), "shape"),
    ],
)  # fmt: skip
def test_an_image_that_is_none_is_refused_by_its_camera_s_name(image: Any, sentence: str) -> None:
    with pytest.raises(InvalidObservationError, match=f"'wrist'.*{sentence}"):
        fields_of({"wrist": image}, None, "go")


def test_what_json_does_not_have_is_refused() -> None:
    for value in (float("nan"), object()):
        with pytest.raises(InvalidObservationError, match="written as JSON"):
            encoded(fields_of(None, None, "go", extra=value))
    with pytest.raises(InvalidObservationError, match="instruction must be a string"):
        fields_of(None, None, 5)  # type: ignore[arg-type]


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("missing", [(), ("cv2",)])
def test_pixels_are_encoded_where_an_encoder_is_installed(
    missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, *missing)
    data = base64.b64decode(fields_of(PIXELS, None, "go")["image"])
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert np.abs(decoded.astype(int) - PIXELS).max() <= 3


@pytest.mark.parametrize("quality", [None, 95])
def test_pixels_are_raw_where_none_is_or_where_they_are_to_be(
    quality: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if quality is not None:
        without(monkeypatch, "cv2", "PIL", "PIL.Image")
    flipped = PIXELS[:, ::-1]  # no row of it lies in memory as it is sent
    value = fields_of({"base": flipped}, None, "go", quality)["images"]["base"]
    assert (value["encoding"], value["height"], value["width"]) == ("rgb8", 24, 32)
    assert base64.b64decode(value["data"]) == flipped.tobytes()


def test_files_and_base64_are_sent_as_they_are() -> None:
    png = cv2.imencode(".png", PIXELS)[1].tobytes()
    text = base64.b64encode(png).decode()
    assert fields_of({"a": png, "b": text}, None, "go")["images"] == {"a": text, "b": text}


def test_grey_and_transparent_pixels_have_their_own_encodings() -> None:
    fields = fields_of({"grey": PIXELS[:, :, 0], "alpha": np.zeros((2, 3, 4), np.uint8)}, None, "go")
    assert [fields["images"][name]["encoding"] for name in ("grey", "alpha")] == ["mono8", "rgba8"]


def test_what_is_left_out_is_not_sent() -> None:
    assert fields_of(None, None, "go", seed=None, elapsed_rows=0.0) == {
        "instruction": "go",
        "elapsed_rows": 0.0,
    }
    assert fields_of(None, np.array([0, 1], np.int8), "go")["state"] == [0.0, 1.0]
