# SPDX-License-Identifier: Apache-2.0
"""Graphs with inputs of other shapes answer over HTTP, and refuse what they do not take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from http_client import raw

Serve = Callable[..., Any]


def two_cameras(height: int = 8, width: int = 12) -> dict[str, Any]:
    return {
        name: raw(height=height, width=width, colour=(shade, shade, shade))
        for name, shade in (("top", 40), ("wrist", 80))
    }


def test_stacked_cameras_a_state_of_three_axes_and_a_constant(serve: Serve) -> None:
    server = serve("of_other_shapes", embodiment="")
    answer = server.client.act({"images": two_cameras(), "state": [1.5, -2.0]})
    assert answer.json["actions"][0] == pytest.approx([40, 80, 1.5, -2.0, 3])
    effective = server.client.get("/config").json["effective"]
    assert (effective["observation_steps"], effective["batch"]) == (1, [1])


def test_a_picture_of_another_size_is_refused_with_both_sizes(serve: Serve) -> None:
    server = serve("of_other_shapes", embodiment="")
    answer = server.client.act({"images": two_cameras(width=16), "state": [1.5, -2.0]})
    assert (answer.status, answer.json["error"]) == (422, "image-size")
    assert "camera 'top' must give images of 12x8" in answer.json["message"]
    assert answer.json["message"].endswith("got 16x8")
