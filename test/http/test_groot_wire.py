# SPDX-License-Identifier: Apache-2.0
"""Messages of Isaac-GR00T's clients, decoded without a server."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import numpy as np
import pytest
from groot_client import LANGUAGE, flat, nested
from http_client import STATE, picture
from wires import msgpack_numpy_tag, npy_tag, packed, unpacked

from reflex_core.errors import NotReadyError, ObservationError
from reflex_core.images.raw_encodings import rgb
from reflex_ros.sidecar.problems import Problem
from reflex_ros.sidecar.wires.groot import GrootWire, ServerSide
from reflex_ros.sidecar.wires.msgpack_codec import MSGPACK_NUMPY, NPY
from reflex_ros.sidecar.wires.wire import DecodedRequest, DirectReply, Readable

READABLE = Readable(cameras=("front",), state_size=7)
SERVER_SIDE = ServerSide(None, lambda: "loading", lambda: None)


def decoded(message: Any, tag: Any = npy_tag, wire: GrootWire | None = None) -> Any:
    data = message if isinstance(message, bytes) else packed(message, tag)
    return (wire or GrootWire("session", SERVER_SIDE)).decode(bytearray(data), READABLE)


@pytest.mark.parametrize("observation", [{"observation": nested(), "options": None}, flat()])
@pytest.mark.parametrize(("tag", "form"), [(npy_tag, NPY), (msgpack_numpy_tag, MSGPACK_NUMPY)])
def test_pixels_state_and_instruction_are_read_from_both_shapes_and_tags(
    observation: Any, tag: Any, form: str
) -> None:
    found = decoded({"endpoint": "get_action", "data": observation}, tag)
    assert isinstance(found, DecodedRequest)
    np.testing.assert_array_equal(rgb(found.observation.frames["front"]), picture())
    np.testing.assert_allclose(found.observation.state, np.float32(STATE))
    assert found.observation.instruction == "reach the red cube"
    assert (found.episode_id, found.form, found.keys["instruction"]) == ("session", form, LANGUAGE)


def test_a_problem_is_what_the_clients_raise() -> None:
    reply = GrootWire("", SERVER_SIDE).problem(
        Problem(422, "state-length", "the state must be 7 numbers", "r1")
    )
    assert unpacked(reply) == {"error": "state-length: the state must be 7 numbers"}


def test_fields_of_ours_are_read_from_options_and_from_the_observation() -> None:
    options = {"episode_id": "e", "seed": 4, "num_steps": 3}
    found = decoded({"data": {"observation": nested(), "options": options}})
    assert (found.episode_id, found.seed) == ("e", 4)
    found = decoded({"data": flat() | {"reflex/episode_id": "e", "reflex/seed": 4}})
    assert (found.episode_id, found.seed) == ("e", 4)


@pytest.mark.parametrize("name", ["", "\n", 7, "x" * 1000])
def test_an_episode_whose_name_cannot_be_is_refused_and_the_one_before_goes_on(name: Any) -> None:
    wire = GrootWire("session", SERVER_SIDE)
    with pytest.raises(ObservationError, match="'episode_id' must be a string"):
        decoded({"endpoint": "reset", "data": {"options": {"episode_id": name}}}, wire=wire)
    assert decoded({"data": flat()}, wire=wire).episode_id == "session"


def test_a_ping_is_answered_while_observations_are() -> None:
    with pytest.raises(NotReadyError, match="state is 'loading'"):
        decoded({"endpoint": "ping"})
    serving = Readable(serving=object())
    reply = GrootWire("", SERVER_SIDE).decode(bytearray(packed({"endpoint": "ping"})), serving)
    assert isinstance(reply, DirectReply)


def test_messages_damaged_at_any_byte_or_value_are_refused_in_one_sentence() -> None:
    """Nothing else comes out of them, and the same connection decodes the next one."""
    chance, wire = random.Random(7), GrootWire("session", SERVER_SIDE)
    refusals: list[str] = []
    whole = [
        packed({"endpoint": "get_action", "data": data}, tag)
        for data in ({"observation": nested(picture(4, 4)), "options": {"seed": 1}}, flat(picture(4, 4)))
        for tag in (npy_tag, msgpack_numpy_tag)
    ]
    odd = [None, True, -1, 2**63, 1e308, "", b"", [], {}, [[]], {"observation": {}}, {b"nd": True}, "kill"]
    for number in range(4000):
        data = bytearray(chance.choice(whole))
        if number % 2:
            for _ in range(chance.randint(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        else:
            message = msgpack.unpackb(bytes(data))
            place: Any = message
            while True:
                key = chance.choice(list(place))
                if isinstance(place[key], dict) and place[key] and chance.random() < 0.8:
                    place = place[key]
                    continue
                place[key] = chance.choice(odd)
                break
            data = bytearray(msgpack.packb(message))
        try:
            wire.decode(data, READABLE)
        except (ObservationError, NotReadyError) as error:
            refusals.append(str(error))
    assert len(refusals) > 1000
    assert not [text for text in refusals if "\n" in text or len(text) > 1000]
    assert isinstance(decoded({"data": flat()}, wire=wire), DecodedRequest)
