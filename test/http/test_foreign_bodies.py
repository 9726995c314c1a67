# SPDX-License-Identifier: Apache-2.0
"""POST /act as clients of other servers send it: json_numpy of the OpenVLA family, and msgpack."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from http_client import STATE, Answer, good, jpeg, picture, text
from servers import Server
from wires import (
    Array,
    from_json_tag,
    in_json,
    json_tag,
    msgpack_numpy_tag,
    openpi_tag,
    packed,
    unpacked,
    vla_eval_tag,
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


def heard(server: Server) -> list[Any]:
    """What the policy was asked, as it is asked."""
    seen: list[Any] = []
    server.engine.listen(lambda request, _: seen.append(request.observation))
    return seen


@pytest.mark.parametrize(
    "wire_keys", [[], ["instruction=instruction", "state=state"], ["instruction=prompt", "state=proprio"]]
)
def test_an_instruction_and_a_state_under_our_own_names_go_before_any_guess(
    serve: Serve, wire_keys: list[str]
) -> None:
    """A text or numbers beside them, for another server, are not what the robot is to do or where it is."""
    server = serve("mono_pi0_7", wire_keys=wire_keys)
    seen = heard(server)
    elsewhere = {"task": "libero_spatial", "robot": "widowx", "joint_position": json_tag(np.zeros(7, "<f4"))}
    answer = posted(server, molmoact(state=STATE, **elsewhere))
    assert answer.status == 200, answer.body
    assert seen[0].instruction == "reach"
    np.testing.assert_allclose(seen[0].state, STATE, rtol=1e-6)
    assert {"task", "robot", "joint_position"} <= set(answer.json["ignored_fields"])


def test_wire_keys_go_before_our_own_names_where_their_keys_are_there(serve: Serve) -> None:
    server = serve("mono_pi0_7", wire_keys=["instruction=task", "state=proprio"])
    seen = heard(server)
    body = molmoact(state=[0.0] * 7, task="reach the block", proprio=json_tag(np.array(STATE, "<f4")))
    assert posted(server, body).status == 200
    assert seen[0].instruction == "reach the block"
    np.testing.assert_allclose(seen[0].state, STATE, rtol=1e-6)


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
    assert reply["ignored_fields"] == ["num_steps"]


def test_the_body_of_openvla_is_answered_by_one_bare_row(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    body = {"image": json_tag(IMAGE), "instruction": "reach", "state": STATE, "seed": 3}
    answer = posted(server, in_json(**body), "/act?format=openvla")
    assert answer.status == 200, answer.body
    row = from_json_tag(answer.json)
    assert (row.dtype, row.shape) == (np.float64, (7,))
    np.testing.assert_array_equal(row.astype(np.float32), usual(server)[0])


@pytest.mark.parametrize(
    ("hz", "row"), [("5", 3), ("20", 0), ("100", 0), ("0.5", 39), ("0.1", 49), ("6.6667", 2)]
)
def test_a_client_of_one_row_gets_that_which_is_due_when_it_asks_again(
    serve: Serve, hz: str, row: int
) -> None:
    server = serve("mono_pi0_7")
    seen: list[Any] = []
    server.engine.listen(lambda _, served: seen.append(served))
    body = in_json(image=json_tag(IMAGE), instruction="reach", state=STATE)
    answer = posted(server, body, f"/act?format=openvla&hz={hz}")
    np.testing.assert_array_equal(from_json_tag(answer.json).astype(np.float32), seen[0].chunk.actions[row])
    for wrong in ("0", "-1", "x", "1e3", "nan", "99999"):
        answer = posted(server, body, f"/act?format=openvla&hz={wrong}")
        assert (answer.status, answer.json["error"]) == (422, "bad-hz")


def test_the_keys_of_openvla_alone_are_answered_by_one_bare_row(serve: Serve) -> None:
    """Its client cannot say ?format=, and takes nothing else."""
    server = serve("decomposed", embodiment="")
    for body in (
        {"image": json_tag(IMAGE), "instruction": "reach", "unnorm_key": "bridge_orig"},
        {"image": json_tag(IMAGE), "instruction": "reach"},
    ):
        answer = posted(server, in_json(**body))
        assert answer.status == 200, answer.body
        assert from_json_tag(answer.json).shape == (7,)
    whole = posted(server, in_json(image=json_tag(IMAGE), instruction="reach"), "/act?format=reflex")
    assert len(whole.json["actions"]) > 1


def test_a_body_in_a_string_is_answered_by_a_string(serve: Serve) -> None:
    server = serve("decomposed", embodiment="")
    inner = json.dumps({"image": json_tag(IMAGE), "instruction": "reach"})
    answer = posted(server, in_json(encoded=inner))
    assert answer.status == 200, answer.body
    assert isinstance(answer.json, str)
    assert from_json_tag(json.loads(answer.json)).shape == (7,)
    own = json.dumps(good(instruction="reach"))
    assert json.loads(posted(server, in_json(encoded=own)).json)["num_actions"] > 1
    for wrong, status in (("{", 400), ("[]", 422), ("3", 422)):
        assert posted(server, in_json(encoded=wrong)).status == status


def test_the_body_of_oft_is_answered_by_bare_rows(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    state = json_tag(np.array(STATE))
    answer = posted(server, in_json(full_image=json_tag(IMAGE), state=state, instruction="reach", seed=3))
    assert answer.status == 200, answer.body
    rows = np.stack([from_json_tag(row) for row in answer.json])
    np.testing.assert_array_equal(rows, usual(server))


def test_our_own_fields_and_images_go_with_arrays(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    seen: list[Any] = []
    server.engine.listen(lambda request, _: seen.append(request))
    body = {
        "image": jpeg(),
        "state": json_tag(np.array(STATE)),
        "instruction": "reach",
        "seed": json_tag(np.array(3)),
        "episode_id": "e-1",
        "request_id": "r-1",
        "robot_id": "arm 3",
    }
    answer = posted(server, in_json(**body))
    assert answer.status == 200, answer.body
    assert (answer.json["seed"], answer.json["episode_id"], answer.json["request_id"]) == (3, "e-1", "r-1")
    assert (seen[0].caller, seen[0].wire) == ("arm 3", "json_numpy")
    assert next(iter(seen[0].observation.frames.values())).encoding == "jpeg"


def test_a_text_that_looks_like_a_tag_is_a_text(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    answer = posted(server, in_json(**good(instruction='reach the "__numpy__" block')))
    assert answer.status == 200, answer.body
    assert "keys" not in answer.json
    assert answer.json["num_actions"] == ROWS


@pytest.mark.parametrize(
    ("changes", "status", "slug"),
    [
        ({"state": {"__numpy__": "!", "dtype": "<f4", "shape": [7]}}, 422, "bad-array"),
        ({"state": {"__numpy__": "", "dtype": "|O", "shape": [7]}}, 422, "bad-array"),
        ({"top_cam": {"__numpy__": "", "dtype": "|u1", "shape": [2**31, 2**31, 3]}}, 422, "bad-array"),
        ({"top_cam": json_tag(np.zeros((32, 32, 5), np.uint8))}, 422, "bad-image"),
        ({"state": json_tag(np.zeros(3))}, 422, "state-length"),
        ({"seed": json_tag(np.array(-1))}, 422, "bad-seed"),
        ({"history": [{"image": json_tag(IMAGE)}]}, 422, "bad-history"),
    ],
)
def test_arrays_that_lie_are_refused(serve: Serve, changes: dict[str, Any], status: int, slug: str) -> None:
    server = serve("mono_pi0_7")
    answer = posted(server, molmoact(**changes))
    assert (answer.status, answer.json["error"]) == (status, slug)
    assert posted(server, molmoact()).status == 200


def test_a_form_that_is_none_is_refused(serve: Serve) -> None:
    answer = posted(serve("mono_pi0_7"), molmoact(), "/act?format=pickle")
    assert (answer.status, answer.json["error"]) == (422, "bad-format")


@pytest.mark.parametrize("tag", [openpi_tag, msgpack_numpy_tag, vla_eval_tag])
def test_msgpack_has_the_fields_of_json_and_rows_tagged_as_the_request(serve: Serve, tag: Any) -> None:
    server = serve("mono_pi0_7")
    body = {"image": IMAGE, "state": np.array(STATE), "instruction": "reach", "seed": 3, "request_id": "r-1"}
    answer = posted(server, packed(body, tag), content_type=MSGPACK)
    assert answer.status == 200, answer.body
    assert (answer.headers["content-type"], answer.headers["x-request-id"]) == (MSGPACK, "r-1")
    reply = unpacked(answer.body)
    np.testing.assert_array_equal(reply["actions"], usual(server))
    in_json_ = server.client.act(good()).json
    assert set(in_json_) <= set(reply)
    assert reply["seed"] == 3


def test_msgpack_takes_image_files_as_bytes(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    data = base64.b64decode(jpeg())
    body = {"image": data, "state": STATE, "instruction": "reach", "seed": 3}
    answer = posted(server, packed(body), content_type=MSGPACK)
    assert answer.status == 200, answer.body
    expected = server.client.act(good(instruction="reach", seed=3)).json["actions"]
    np.testing.assert_array_equal(unpacked(answer.body)["actions"], np.array(expected, np.float32))


def test_a_history_in_msgpack_is_seen(serve: Serve) -> None:
    server = serve("two_observations", embodiment="")
    state = np.zeros(len(server.engine.description()["state_names"]) or 7)
    entry = {"image": IMAGE, "state": state}
    body = {**entry, "instruction": "reach", "history": [entry]}
    answer = posted(server, packed(body), content_type=MSGPACK)
    assert answer.status == 200, unpacked(answer.body)
    assert unpacked(answer.body)["history"]["given"] == 1
    answer = posted(server, packed({**body, "history": [entry] * 9}), content_type=MSGPACK)
    assert (answer.status, unpacked(answer.body)["error"]) == (422, "bad-history")


def test_msgpack_is_refused_in_msgpack_and_named_in_metrics(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    for data, status, slug in (
        (b"\xc1", 400, "malformed-msgpack"),
        (packed([1]), 422, "bad-body"),
        (packed({"image": IMAGE}), 422, "missing-instruction"),
        (packed({"image": IMAGE, "instruction": "reach"}), 422, "missing-state"),
    ):
        answer = posted(server, data, content_type=MSGPACK)
        assert (answer.status, unpacked(answer.body)["error"]) == (status, slug)
        assert answer.headers["content-type"] == MSGPACK
    lines = server.client.get("/metrics").body.decode().splitlines()
    counter = 'reflex_wire_requests_total{outcome="refused",wire="msgpack"}'
    refused = [line for line in lines if line.startswith(counter)]
    assert [line.rsplit(" ", 1)[1] for line in refused] == ["4.0"]


def test_without_the_package_msgpack_json_is_served_and_msgpack_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve("mono_pi0_7")
    monkeypatch.setitem(sys.modules, "msgpack", None)
    answer = posted(server, b"\x80", content_type=MSGPACK)
    assert (answer.status, answer.json["error"]) == (415, "msgpack-missing")
    assert "extra `openpi`" in answer.json["message"]
    assert server.client.act(good()).status == 200
