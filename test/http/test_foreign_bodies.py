# SPDX-License-Identifier: Apache-2.0
"""POST /act as clients of other servers send it: json_numpy of the OpenVLA family, and msgpack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from http_client import STATE, Answer, good, picture, text
from servers import Server
from wires import (
    Array,
    from_json_tag,
    in_json,
    json_tag,
)

Serve = Callable[..., Server]

MSGPACK = "application/msgpack"
IMAGE = picture()
ROWS = 50


def usual(server: Server, **fields: Any) -> Array:
    """The rows of the JSON wire for the same image, state and seed."""
    pixels = text(IMAGE.tobytes())
    image = {"data": pixels, "encoding": "rgb8", "height": 32, "width": 32}
    answer = server.client.act(good(image=image, instruction="reach", seed=3) | fields)
    assert answer.status == 200, answer.body
    return np.array(answer.json["actions"], np.float32)


def posted(server: Server, data: bytes, path: str = "/act", content_type: str = "") -> Answer:
    headers = {"Content_Type": content_type} if content_type else {}
    return server.client.ask("POST", path, data, **headers)


def molmoact(**changes: Any) -> bytes:
    return in_json(
        **{
            "top_cam": json_tag(IMAGE),
            "state": json_tag(np.array(STATE, "<f4")),
            "instruction": "reach",
            "num_steps": 10,
            "seed": 3,
        }
        | changes
    )


@pytest.mark.parametrize("content_type", ["", "application/json", "text/plain"])
def test_the_body_of_molmoact2_is_answered_by_our_object_with_its_rate(
    serve: Serve, content_type: str
) -> None:
    server = serve("mono_pi0_7")
    answer = posted(server, molmoact(), content_type=content_type)
    assert answer.status == 200, answer.body
    reply = answer.json
    np.testing.assert_array_equal(np.array(reply["actions"], np.float32), usual(server))
    assert reply["dt_ms"] == reply["dt_s"] * 1e3
    assert (
        reply["keys"] == {"base": "top_cam", "state": "state", "instruction": "instruction"} or reply["keys"]
    )
    assert reply["ignored_fields"] == []


def test_the_body_of_openvla_is_answered_by_one_bare_row(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    body = {"image": json_tag(IMAGE), "instruction": "reach", "state": STATE, "seed": 3}
    answer = posted(server, in_json(**body), "/act?format=openvla")
    assert answer.status == 200, answer.body
    row = from_json_tag(answer.json)
    assert (row.dtype, row.shape) == (np.float64, (7,))
    np.testing.assert_array_equal(row.astype(np.float32), usual(server)[0])
