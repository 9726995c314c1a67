# SPDX-License-Identifier: Apache-2.0
"""The ZeroMQ port of Isaac-GR00T's clients, over real sockets, with messages as they send them."""

from __future__ import annotations

import importlib.util
import itertools
import json
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from exports import PANDA_MEAN
from groot_client import (
    LANGUAGE,
    MORE,
    PING,
    GrootClient,
    GrootError,
    flat,
    frame,
    nested,
    read_frame,
    read_reply,
    rows_in,
    shaken,
)
from http_client import STATE, Background, busy, good, in_flight, picture, text, wait_for
from servers import Server
from wires import msgpack_numpy_tag, npy_tag, packed, unpacked

from reflex_core.errors import ReflexError, SettingError
from reflex_core.values import Request
from reflex_ros.sidecar import groot_connections, groot_port
from reflex_ros.sidecar.server import Sidecar

Serve = Callable[..., Server]
Connect = Callable[..., GrootClient]

KEY = "a key that is long enough"
OK = {"status": "ok", "message": "Server is running"}


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve("mono_pi0_7", groot_port=0)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(server)`: a client, closed at the end."""
    clients: list[GrootClient] = []

    def make(server: Server, *arguments: Any, **more: Any) -> GrootClient:
        clients.append(GrootClient(server.sidecar.groot_port, *arguments, **more))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text(KEY)
    return str(path)


def usual(server: Server, **fields: Any) -> Any:
    """The rows of POST /act for the same observation."""
    image = {"data": text(picture().tobytes()), "encoding": "rgb8", "height": 32, "width": 32}
    answer = server.client.act(good(image=image) | fields)
    assert answer.status == 200, answer.body
    return np.array(answer.json["actions"], np.float32)


def requests(server: Server) -> list[Request]:
    """All requests to the engine from now on."""
    found: list[Request] = []
    act = server.engine.act

    def kept(request: Request) -> Any:
        found.append(request)
        return act(request)

    server.engine.act = kept  # type: ignore[method-assign]
    return found


def counted(server: Server) -> float:
    lines = server.client.get("/metrics").body.decode().splitlines()
    mine = [
        line for line in lines if line.startswith("reflex_wire_requests_total") and 'wire="groot"' in line
    ]
    return sum(float(line.rpartition(" ")[2]) for line in mine)


def unharmed(server: Server, connect: Connect) -> None:
    actions, _ = connect(server).act()
    assert actions["left_arm"].shape == (1, 50, 7)
    assert server.client.act(good()).status == 200


@pytest.mark.parametrize("tag", [npy_tag, msgpack_numpy_tag])
def test_an_observation_of_n1_6_has_the_actions_of_act_in_its_own_shape(
    server: Server, connect: Connect, tag: Any
) -> None:
    client = connect(server, tag=tag)
    client.send({"endpoint": "get_action", "data": {"observation": nested(), "options": {"seed": 3}}})
    raw = client.socket.recv()
    assert (b"as_npy" in raw, b"\xc4\x02nd" in raw) == (tag is npy_tag, tag is msgpack_numpy_tag)
    actions, info = unpacked(raw)
    assert list(actions) == ["left_arm"]
    assert (actions["left_arm"].dtype, actions["left_arm"].shape) == (np.float32, (1, 50, 7))
    np.testing.assert_array_equal(actions["left_arm"][0], usual(server, seed=3))
    keys = info["reflex"]["keys"]
    assert (keys["state"], keys["instruction"]) == ("state.left_arm", LANGUAGE)
    assert "video.ego_view" in keys.values()
    assert counted(server) == 1


@pytest.mark.parametrize("tag", [npy_tag, msgpack_numpy_tag])
def test_an_observation_of_n1_5_has_the_actions_of_act_in_its_own_shape(
    server: Server, connect: Connect, tag: Any
) -> None:
    actions = connect(server, tag=tag).call("get_action", flat() | {"reflex/seed": 3})
    assert list(actions) == ["action.single_arm"]
    assert actions["action.single_arm"].shape == (50, 7)
    np.testing.assert_array_equal(actions["action.single_arm"], usual(server, seed=3))


def test_flat_keys_of_n1_6_as_its_simulations_send_them_are_answered_by_flat_keys(
    server: Server, connect: Connect
) -> None:
    observation = {
        "video.ego_view": picture()[None, None],
        "state.left_arm": np.array(STATE, np.float32)[None, None],
        LANGUAGE: ("reach the red cube",),
    }
    actions, info = connect(server).act(observation)
    assert actions["action.left_arm"].shape == (1, 50, 7)
    assert "reflex" in info


def test_the_endpoint_may_be_left_out(server: Server, connect: Connect) -> None:
    assert "action.single_arm" in connect(server).ask({"data": flat()})


def test_groups_of_the_state_come_back_as_groups_of_the_actions(server: Server, connect: Connect) -> None:
    observation = nested()
    whole = observation["state"].pop("left_arm")
    observation["state"] = {"left_arm": whole[..., :5], "left_hand": whole[..., 5:]}
    actions, _ = connect(server).act(observation, {"seed": 3})
    assert {name: part.shape for name, part in actions.items()} == {
        "left_arm": (1, 50, 5), "left_hand": (1, 50, 2),
    }  # fmt: skip
    np.testing.assert_array_equal(rows_in(actions, ("left_arm", "left_hand"))[0], usual(server, seed=3))


def test_wire_keys_say_which_groups_are_the_state_and_which_image_is_the_camera(
    serve: Serve, connect: Connect
) -> None:
    keys = ("state=state.left_arm+state.left_hand", f"instruction={LANGUAGE}")
    server = serve("mono_pi0_7", groot_port=0, wire_keys=keys)
    state = np.array(STATE, np.float32)[None, None]
    observation = nested()
    observation["state"] = {"left_leg": state, "left_hand": state[..., 6:], "left_arm": state[..., :6]}
    client = connect(server)
    actions, info = client.act(observation, {"seed": 3})
    assert set(actions) == {"left_arm", "left_hand"}
    np.testing.assert_array_equal(rows_in(actions, ("left_arm", "left_hand"))[0], usual(server, seed=3))
    assert info["reflex"]["keys"]["state"] == "state.left_arm+state.left_hand"
    assert client.call("get_modality_config")["action"]["as_json"]["modality_keys"] == [
        "left_arm",
        "left_hand",
    ]


def test_a_group_that_is_a_gripper_is_counted_as_wire_keys_say(serve: Serve, connect: Connect) -> None:
    keys = ("state=state.arm+state.hand:closed",)
    server = serve("droid", groot_port=0, wire_keys=keys)
    arm, image = np.array(PANDA_MEAN, np.float32), nested()["video"]
    observation = nested() | {"state": {"arm": arm[None, None], "hand": np.full((1, 1, 1), 0.5, np.float32)}}
    actions, info = connect(server).act(observation | {"video": image}, {"seed": 3})
    expected = np.array(usual(server, seed=3, state=[*PANDA_MEAN, 0.0195]), np.float32)
    np.testing.assert_allclose(actions["arm"][0], expected[:, :7], atol=1e-5)
    np.testing.assert_allclose(actions["hand"][0, :, 0], 1 - expected[:, 7] / 0.039, atol=1e-5)
    assert info["reflex"]["keys"]["state"] == "state.arm+state.hand:closed"


def test_ping_reset_and_modality_config_are_answered(server: Server, connect: Connect) -> None:
    client = connect(server)
    assert client.ask(PING) == OK
    assert client.call("reset", {"options": None}) == {}
    config = client.ask({"endpoint": "get_modality_config"})
    assert set(config) == {"video", "state", "action", "language"}
    assert all(entry["__ModalityConfig_class__"] is True for entry in config.values())
    found = {name: entry["as_json"] for name, entry in config.items()}
    assert found["action"] == {"delta_indices": list(range(50)), "modality_keys": ["arm"]}
    assert found["state"] == {"delta_indices": [0], "modality_keys": ["arm"]}
    assert found["language"] == {"delta_indices": [0], "modality_keys": [LANGUAGE]}
    assert found["video"]["delta_indices"] == [0]
    camera = found["video"]["modality_keys"][0]
    observation = nested(group="arm")
    actions, info = client.act(observation | {"video": {camera: observation["video"]["ego_view"]}})
    assert list(actions) == ["arm"]
    assert info["reflex"]["keys"][camera] == f"video.{camera}"


def test_the_configuration_is_a_text_for_a_client_of_n1_5(server: Server, connect: Connect) -> None:
    client = connect(server)
    client.call("get_action", flat())
    entry = client.call("get_modality_config")["video"]["as_json"]
    assert json.loads(entry)["delta_indices"] == [0]


def test_kill_is_refused_and_the_server_lives_on(server: Server, connect: Connect) -> None:
    client = connect(server)
    with pytest.raises(GrootError, match=r"^kill-refused: clients do not end this server"):
        client.ask({"endpoint": "kill"})
    assert client.ask(PING) == OK
    unharmed(server, connect)


def test_a_connection_is_an_episode_and_reset_begins_another(server: Server, connect: Connect) -> None:
    seen, one, other = requests(server), connect(server), connect(server)
    for client in (one, other, one):
        client.act()
    one.call("reset", {"options": {}})
    one.act()
    one.call("reset", {"options": {"episode_id": "pick-7"}})
    one.act()
    one.act(None, {"episode_id": "mine", "robot_id": "left", "request_id": "r1"})
    ids = [request.episode_id for request in seen]
    assert ids[0] == ids[2]
    assert len(set(ids)) == 5
    assert ids[4].startswith("pick-7@")
    assert ids[5] == "mine"
    assert seen[5].request_id == "r1"
    assert {request.wire for request in seen} == {"groot"}
    assert seen[5].caller != seen[4].caller


def test_an_episode_of_an_earlier_ones_name_begins_without_what_was_seen_in_that(
    serve: Serve, connect: Connect
) -> None:
    server = serve("two_observations", embodiment="", groot_port=0)
    observation = nested(picture(8, 8), state=[1.0, -1.0])
    kept: list[int] = []
    server.engine.listen(lambda request, _: kept.append(request.history.kept))
    client = connect(server)
    for _ in range(2):
        client.call("reset", {"options": {"episode_id": "pick-7"}})
        client.act(observation)
        client.act(observation)
    assert kept == [0, 1, 0, 1]


def test_two_time_steps_are_the_history_that_a_policy_sees(serve: Serve, connect: Connect) -> None:
    server = serve("two_observations", embodiment="", groot_port=0)
    client = connect(server)
    config = client.call("get_modality_config")
    assert config["video"]["as_json"]["delta_indices"] == [-1, 0]
    images = np.stack([picture(8, 8, (shade,) * 3) for shade in (10, 20)])
    observation = {
        "video": {"view": images[None]},
        "state": {"arm": np.array([[[1, -1], [2, -2]]], np.float32)},
        "language": {LANGUAGE: [["reach"]]},
    }
    actions, info = client.act(observation)
    [rows] = actions.values()
    np.testing.assert_array_equal(rows[0, 0], [10, 20, 1, -1, 2, -2])
    assert info["reflex"]["keys"]["state"] == "state.arm"


@pytest.mark.parametrize(
    ("message", "slug"),
    [
        (b"\xc1", "malformed-msgpack"),
        (b"", "malformed-msgpack"),
        (packed([1]), "bad-message"),
        (packed({}), "bad-message"),
        (packed({"endpoint": 7}), "bad-endpoint"),
        (packed({"endpoint": "get_actions", "data": {}}), "bad-endpoint"),
        (packed({"data": {}}), "missing-"),
        (packed({"data": {"observation": {}, "options": 7}}), "bad-message"),
        (packed({"data": {"observation": nested(), "options": {"seed": -1}}}, npy_tag), "bad-seed"),
        (packed({"data": {"observation": nested(state=[0.0] * 3)}}, npy_tag), "state-length"),
        (packed({"data": {"observation": nested(state=[np.nan] * 7)}}, npy_tag), "state-not-finite"),
        (packed({"data": {"observation": nested(text="")}}, npy_tag), "missing-instruction"),
        (packed({"data": flat(np.zeros((32, 32, 7), np.uint8))}, npy_tag), "bad-image"),
        (packed({"data": flat(np.zeros((0, 32, 3), np.uint8))}, npy_tag), ""),
        (packed({"data": flat() | {"video.webcam": np.zeros((2, 32, 32, 3), np.uint8)}}, npy_tag), "bad-history"),
        (packed({"data": {"observation": nested(), "options": {"robot_id": "\n"}}}, npy_tag), "bad-robot-id"),
        (packed({"data": {"video.webcam": {"__ndarray_class__": True, "as_npy": b"cos\nsystem\n(S'x'\ntR."}}}), "bad-array"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_answered_by_one_sentence(
    server: Server, connect: Connect, message: bytes, slug: str
) -> None:
    client = connect(server)
    with pytest.raises(GrootError) as refused:
        client.ask(message)
    assert str(refused.value).startswith(slug)
    assert ": " in str(refused.value)
    assert "\n" not in str(refused.value)
    assert client.ask(PING) == OK  # the same socket goes on
    assert server.sidecar.memory is not None
    wait_for(lambda: server.sidecar.memory.bytes == 0)  # type: ignore[union-attr]


def test_the_key_is_asked_for_as_api_token_on_every_endpoint(
    serve: Serve, connect: Connect, key_file: str
) -> None:
    server = serve("mono_pi0_7", groot_port=0, api_key_file=key_file)
    client = connect(server)
    for endpoint in ("ping", "get_action", "reset", "get_modality_config", "kill"):
        for token in ({}, {"api_token": ""}, {"api_token": KEY + "x"}, {"api_token": 7}, {"api_token": None}):
            with pytest.raises(GrootError, match=r"^unauthorized: this needs the API key as 'api_token'$"):
                client.ask({"endpoint": endpoint, "data": {}} | token)
    assert client.ask({"endpoint": "ping", "api_token": KEY}) == OK
    data = {"observation": nested(), "options": {}}
    assert len(client.ask({"endpoint": "get_action", "data": data, "api_token": KEY})) == 2


def test_two_clients_are_served_at_once_and_each_gets_its_own(server: Server, connect: Connect) -> None:
    one, other = connect(server), connect(server)
    with busy(server.engine):
        one.send({"data": {"observation": nested(group="a"), "options": {}}})
        other.send({"data": {"observation": nested(group="b"), "options": {}}})
        wait_for(lambda: in_flight(server.engine) == 2)
        assert connect(server).ask(PING) == OK  # a ping waits for no inference
    assert list(one.receive()[0]) == ["a"]
    assert list(other.receive()[0]) == ["b"]


def test_a_client_that_floods_is_refused_and_holds_no_other_up(server: Server, connect: Connect) -> None:
    flood = connect(server, zmq.DEALER)
    message = packed({"data": {"observation": nested(), "options": {}}}, npy_tag)
    with busy(server.engine):
        for _ in range(50):
            flood.socket.send_multipart([b"", message])
        refusals = [unpacked(flood.socket.recv_multipart()[1]) for _ in range(49)]
        assert all(refusal["error"].startswith("too_many_requests: ") for refusal in refusals)
        assert connect(server).ask(PING) == OK
    assert len(unpacked(flood.socket.recv_multipart()[1])) == 2
    unharmed(server, connect)


def test_a_client_that_dies_in_the_middle_of_its_request_leaves_nothing(
    server: Server, connect: Connect
) -> None:
    with busy(server.engine):
        gone = connect(server)
        gone.send({"data": {"observation": nested(), "options": {}}})
        wait_for(lambda: in_flight(server.engine) == 1)
        gone.close()
    unharmed(server, connect)
    assert server.sidecar.memory is not None
    wait_for(lambda: server.sidecar.memory.bytes == 0)  # type: ignore[union-attr]
    assert server.sidecar.waiting == 0


def test_half_a_message_is_no_request(server: Server, connect: Connect) -> None:
    seen = requests(server)
    with shaken(server.sidecar.groot_port) as half:
        half.sendall(frame(b"", MORE))  # and the frame that it announces never comes
    with shaken(server.sidecar.groot_port) as half:
        half.sendall(frame(b"", MORE) + frame(b"\x80", length=1 << 20))
    unharmed(server, connect)
    assert len(seen) == 2


@pytest.mark.parametrize(
    "frames", [[b"a", b"b"], [b"", b"a", b"b"], [b""], [b"", b"", b""], [b"x"] * 20, [b"i" * 2000, b"", PING]]
)
def test_frames_that_are_no_request_are_answered(
    server: Server, connect: Connect, frames: list[bytes]
) -> None:
    client = connect(server, zmq.DEALER)
    client.socket.send_multipart(frames)
    assert unpacked(client.socket.recv_multipart()[-1])["error"].startswith("bad-message: ")
    unharmed(server, connect)


def test_frames_before_the_empty_one_come_back(server: Server, connect: Connect) -> None:
    """As REQ sockets put them that number their requests."""
    client = connect(server, zmq.DEALER)
    client.socket.send_multipart([b"\0\0\0\1", b"", PING])
    assert client.socket.recv_multipart()[:2] == [b"\0\0\0\1", b""]
    client.socket.send(PING)
    assert [unpacked(part) for part in client.socket.recv_multipart()] == [OK]


def test_a_frame_that_says_it_is_giant_ends_its_connection_before_it_is_read(
    server: Server, connect: Connect
) -> None:
    with shaken(server.sidecar.groot_port) as giant:
        giant.sendall(frame(b"", MORE) + frame(b"", length=1 << 40))
        with pytest.raises(ConnectionError):
            read_frame(giant)
    unharmed(server, connect)


def test_a_message_above_the_limit_of_act_is_answered(serve: Serve, connect: Connect) -> None:
    server = serve("mono_pi0_7", groot_port=0, max_pixels=1024)
    client = connect(server)
    with pytest.raises(GrootError, match=r"^body-too-large: a message must have at most \d+ bytes, got 3"):
        client.ask({"data": flat(np.zeros((1000, 1000, 3), np.uint8))})
    with pytest.raises(GrootError, match=r"^image-too-large: "):
        client.ask({"data": flat(np.zeros((100, 100, 3), np.uint8))})


def test_what_speaks_no_zeromq_is_not_answered_and_harms_nothing(server: Server, connect: Connect) -> None:
    port = server.sidecar.groot_port
    for data in (b"POST /act HTTP/1.1\r\nHost: x\r\n\r\n{}", bytes(200), b"\xff" * 200):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
            suppress(OSError),
        ):  # it may be reset at any time
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    with shaken(port) as other:  # a handshake by hand is one
        other.sendall(frame(b"", MORE) + frame(PING))
        assert read_reply(other) == OK
    unharmed(server, connect)


def test_connections_that_are_too_many_are_ended_and_those_before_them_go_on(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groot_connections, "MOST_CONNECTIONS", 4)
    first = connect(server)
    first.act()
    with ExitStack() as idle:
        many = []
        for _ in range(20):
            with suppress(ConnectionError):  # it may be ended before the call returns
                where = ("127.0.0.1", server.sidecar.groot_port)
                many.append(idle.enter_context(socket.create_connection(where, timeout=30)))
        assert sum(not ended(one) for one in many) == 3
        first.act()
        assert server.client.act(good()).status == 200
    unharmed(server, connect)
    assert (
        'reflex_act_errors_total{slug="too-many-connections"}' in server.client.get("/metrics").body.decode()
    )


def test_a_message_whose_parts_never_end_ends_its_connection(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeroMQ bounds each part, and not how many there are."""
    for name in ("MOST_MESSAGE_BYTES", "SLACK_BYTES"):
        monkeypatch.setattr(groot_connections, name, 1 << 20)
    first = connect(server)
    first.act()
    parts = itertools.chain([frame(b"", MORE)], itertools.repeat(frame(bytes(1 << 18), MORE)))
    with shaken(server.sidecar.groot_port) as endless, pytest.raises(ConnectionError):
        deque(map(endless.sendall, parts), maxlen=0)
    first.act()
    unharmed(server, connect)
    assert 'reflex_act_errors_total{slug="body-too-large"}' in server.client.get("/metrics").body.decode()


def test_half_messages_of_many_connections_end_the_largest(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groot_connections, "MOST_BYTES", 4 << 20)
    with ExitStack() as held:
        halves = [held.enter_context(shaken(server.sidecar.groot_port)) for _ in range(3)]
        for number, half in enumerate(halves, start=1):
            half.sendall(frame(b"", MORE) + frame(bytes(number << 20), length=200 << 20))
        with pytest.raises(ConnectionError):
            read_frame(halves[2])
        halves[0].sendall(bytes(1 << 20))
        unharmed(server, connect)


def ended(connection: socket.socket) -> bool:
    """Whether the server ends a connection, before or after its half of the handshake; others get all of that."""
    found = b""
    try:
        while len(found) < 10 and (part := connection.recv(64)):
            found += part
    except ConnectionError:
        return True
    if len(found) < 10:
        return True
    connection.settimeout(0.5)
    try:
        return not connection.recv(64)
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_client_with_a_name_of_its_own_keeps_its_episode(server: Server, connect: Connect) -> None:
    seen = requests(server)
    one = connect(server, name=b"g1")
    one.act()
    one.close()
    answered = False
    while not answered:  # until the server has noticed that the first one is gone
        again = connect(server, name=b"g1")
        again.socket.setsockopt(zmq.RCVTIMEO, 500)
        try:
            again.act()
            answered = True
        except zmq.Again:
            again.close()
    assert len({request.episode_id for request in seen}) == 1


def test_clients_that_were_silent_for_longest_are_forgotten(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groot_port, "MOST_CLIENTS", 2)
    seen, first = requests(server), connect(server)
    first.act()
    for _ in range(2):
        connect(server).act()
    first.act()
    assert seen[0].episode_id != seen[3].episode_id
    assert len(server.sidecar._groot._wires) == 2  # type: ignore[union-attr]


def test_while_nothing_serves_everything_is_answered_by_an_error(serve: Serve, connect: Connect) -> None:
    server = serve("mono_pi0_7", groot_port=0, ready=False)
    client = connect(server)
    for message in (PING, {"endpoint": "get_modality_config"}, {"data": flat()}, {"endpoint": "reset"}):
        with pytest.raises(GrootError, match=r"^not-ready: the policy is not serving: state is "):
            client.ask(message)


def test_a_policy_that_goes_and_comes_is_refused_and_answered_on_the_same_connection(
    server: Server, connect: Connect
) -> None:
    client = connect(server)
    client.act()
    server.engine.unload()
    for message in (PING, {"data": flat()}):
        with pytest.raises(GrootError, match=r"^not-ready: "):
            client.ask(message)
    server.engine.load()
    with pytest.raises(GrootError, match=r"^not-ready: "):
        client.ask(PING)  # loaded, and not warm
    server.engine.warm_up()
    assert client.ask(PING) == OK
    client.act()


def test_the_server_ends_while_clients_wait_and_they_are_answered(server: Server, connect: Connect) -> None:
    client = connect(server)
    with busy(server.engine):
        client.send({"data": {"observation": nested(), "options": {}}})
        wait_for(lambda: in_flight(server.engine) == 1)
        ending = Background(lambda: server.sidecar.stop() or True)
        with pytest.raises(GrootError, match=r"^not-ready: this server ends$"):
            client.receive()
    assert ending.result()


def test_a_request_under_way_is_finished_when_the_server_ends(server: Server, connect: Connect) -> None:
    client = connect(server)
    with busy(server.engine):
        client.send({"data": {"observation": nested(), "options": {}}})
        wait_for(lambda: in_flight(server.engine) == 1)
        ending = Background(lambda: server.sidecar.stop() or True)
        wait_for(lambda: server.sidecar._groot._stopping)  # type: ignore[union-attr]
    assert len(client.receive()) == 2
    assert ending.result()


def test_there_is_no_port_unless_it_is_asked_for(serve: Serve) -> None:
    assert serve("mono_pi0_7").sidecar.groot_port == 0


def test_a_port_that_is_taken_is_refused(server: Server, serve: Serve) -> None:
    with pytest.raises(
        ReflexError, match=r"^cannot listen on tcp://127\.0\.0\.1:\d+ for clients of Isaac-GR00T: "
    ):
        serve("mono_pi0_7", groot_port=server.sidecar.groot_port)


def test_the_port_without_http_is_refused(make_engine: Any) -> None:
    with pytest.raises(SettingError, match=r"^setting 'groot_port': needs --http"):
        make_engine("mono_pi0_7", groot_port=0, http=False)


@pytest.mark.parametrize("package", ["zmq", "msgpack"])
def test_without_a_package_the_port_is_refused_with_what_to_install(
    make_engine: Any, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    engine = make_engine("mono_pi0_7", groot_port=0, port=0, ready=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(SettingError, match=r"pip install 'reflex_ros\[gr00t\]'"):
        Sidecar(engine, engine.settings).start()
