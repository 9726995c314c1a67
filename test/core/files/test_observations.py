# SPDX-License-Identifier: Apache-2.0
"""Observations as files, with those before them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from reflex_core.errors import ObservationError
from reflex_core.files.observations import read_observation
from reflex_core.images.raw_encodings import rgb


def written(folder: Path, **fields: Any) -> Path:
    for shade in (10, 20):
        cv2.imwrite(str(folder / f"{shade}.png"), np.full((4, 4, 3), shade, np.uint8))
    path = folder / "desk-1.json"
    document = {"instruction": "reach", "state": [2.0], "images": {"camera": "20.png"}}
    path.write_text(json.dumps(document | fields))
    return path


def test_an_observation_may_bring_those_before_it(tmp_path: Path) -> None:
    found = read_observation(written(tmp_path, history=[{"state": [1.0], "images": {"camera": "10.png"}}]))
    (before,) = found.history
    assert [int(rgb(one.frames["camera"])[0, 0, 0]) for one in (before, found)] == [10, 20]
    assert before.state is not None
    assert (before.state.tolist(), before.instruction) == ([1.0], "reach")
    assert read_observation(written(tmp_path)).history == ()


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("yesterday", "'history' must be a list of objects, got \"yesterday\""),
        ([3], "'history[0]' must be an object, got 3"),
        ([{"images": ["10.png"]}], "'history[0].images' must be an object of camera name to file name"),
        ([{"state": "x"}], "'history[0].state' must be a list of finite numbers"),
        ([{"images": {"camera": "30.png"}}], "30.png: No such file or directory"),
    ],
)
def test_what_is_no_observation_before_is_refused(tmp_path: Path, history: object, message: str) -> None:
    with pytest.raises(ObservationError) as caught:
        read_observation(written(tmp_path, history=history))
    assert message in str(caught.value)
