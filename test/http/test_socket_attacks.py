# SPDX-License-Identifier: Apache-2.0
"""Websockets that send too much, too little, or nothing, and what others notice of it: nothing."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgpack
import numpy as np
import pytest
from http_client import Background, busy, good, in_flight, wait_for
from servers import Server
from wires import libero, packed, unpacked
from ws_client import BINARY, CONTINUED, PING, ClosedError, Socket, UpgradeError, connected, frame, opened

from reflex_ros.sidecar.connections import ConnectionLimits
from reflex_ros.sidecar.websockets import LIVE

Serve = Callable[..., Server]
MIB = 1 << 20


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve("mono_pi0_7")


@pytest.fixture
def many() -> Iterator[Callable[..., list[Socket]]]:
    """`many(server, 200)`: so many connections, closed at the end."""
    with ExitStack() as stack:

        def make(server: Server, number: int, path: str = "/") -> list[Socket]:
            found = [opened(server, path) for _ in range(number)]
            for one in found:
                stack.callback(one.close)
            return found

        yield make


def unharmed(server: Server) -> None:
    with connected(server) as client:
        client.receive()
        assert client.infer(libero())["actions"].shape == (50, 7)
    assert server.client.act(good()).status == 200


def sent_until_closed(client: Socket, parts: list[bytes]) -> None:
    for part in parts:
        client.raw(part)
    client.receive()


def lying_array(**lie: Any) -> bytes:
    honest = {b"__ndarray__": True, b"data": bytes(32 * 32 * 3), b"dtype": "|u1", b"shape": [32, 32, 3]}
    data: bytes = msgpack.packb(
        {"observation/image": honest | {key.encode(): value for key, value in lie.items()}, "prompt": "x"}
    )
    return data


BOMBS = {
    "2^31 entries": struct.pack(">BI", 0xDD, 2**31),
    "2^31 bytes": struct.pack(">BI", 0xC6, 2**31),
    "nested lists": b"\x91" * MIB,
    "nested maps": b"\x81\xa1a" * MIB,
    "empty lists": struct.pack(">BH", 0xDC, 60) + (struct.pack(">BH", 0xDC, 16_000) + b"\x90" * 16_000) * 60,
    "extension": b"\xc7\x01\x05a",
    "shape of 2^31": lying_array(shape=[2**31, 2**31, 3]),
    "shape that wraps": lying_array(shape=[2**62, 4, 3072]),
    "too few bytes": lying_array(shape=[64, 64, 3]),
    "objects": lying_array(dtype="|O"),
    "structures": lying_array(dtype="u1,u1"),
    "texts": lying_array(dtype="<U8"),
    "a long key": packed({"k" * MIB: 1}),
    "many keys": packed({f"key {number}": 1 for number in range(10_000)}),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_in_one_sentence_and_the_connection_lives_on(server: Server, bomb: bytes) -> None:
    with connected(server) as client:
        client.receive()
        client.send(bomb)
        answer = client.receive()
        assert isinstance(answer, str)
        assert 20 < len(answer) < 500
        assert "\n" not in answer
        assert client.infer(libero())["actions"].shape == (50, 7)


def test_a_message_above_the_limit_ends_its_connection_before_it_is_read(serve: Serve) -> None:
    server = serve("mono_pi0_7", max_pixels=4096)
    with connected(server) as client:
        client.receive()
        client.raw(frame(b"", BINARY, length=(64 << 20) + 1))
        with pytest.raises(ClosedError) as closed:
            client.receive()
        assert closed.value.code == 1009
    unharmed(server)


def test_fragments_above_the_limit_end_their_connection(serve: Serve) -> None:
    server = serve("mono_pi0_7", max_pixels=4096)
    with connected(server) as client:
        client.receive()
        parts = [frame(bytes(8 * MIB), CONTINUED if number else BINARY, fin=False) for number in range(9)]
        with pytest.raises((ClosedError, ConnectionError)):
            sent_until_closed(client, parts)
    unharmed(server)


@pytest.mark.parametrize(
    "data",
    [
        frame(b"x", 3),
        frame(b"x", CONTINUED),
        frame(b"x", BINARY, fin=False) + frame(b"x", BINARY),
        frame(b"x" * 126, PING),
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["reserved opcode", "nothing to continue", "two beginnings", "long ping", "reserved bits", "HTTP"],
)
def test_frames_that_are_none_end_their_connection(server: Server, data: bytes) -> None:
    with connected(server) as client:
        client.receive()
        client.raw(data)
        with pytest.raises(ClosedError):
            client.receive()
    unharmed(server)


def test_half_messages_take_no_more_memory_than_all_requests_may(serve: Serve) -> None:
    """The largest is given up, as it is on /act."""
    server = serve("mono_pi0_7", body_bytes=24 * MIB)
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in range(6)]
        for client in clients:
            client.receive()
        ended = 0
        for client in clients:
            try:
                client.raw(frame(b"", BINARY, length=8 * MIB) + bytes(3 * MIB))
            except ConnectionError:
                ended += 1
        memory = server.sidecar.memory
        assert memory is not None
        wait_for(
            lambda: b'slug="queue_full"' in server.client.get("/metrics").body or memory.bytes * 3 > 20 * MIB
        )
        assert memory.bytes * 3 <= 24 * MIB
        unharmed(server)
    wait_for(lambda: memory.bytes == 0)


def test_a_client_that_goes_in_the_middle_of_a_message_leaves_nothing(server: Server) -> None:
    memory = server.sidecar.memory
    assert memory is not None
    for _ in range(5):
        with connected(server) as client:
            client.receive()
            client.raw(frame(b"", BINARY, length=8 * MIB) + bytes(MIB))
    wait_for(lambda: memory.bytes == 0)
    unharmed(server)


def test_memory_of_messages_is_freed_when_they_are_answered(server: Server) -> None:
    memory = server.sidecar.memory
    assert memory is not None
    with connected(server) as client:
        client.receive()
        for _ in range(5):
            client.infer(libero())
            client.send(b"x", PING)
        wait_for(lambda: memory.bytes < 1024)


def test_two_hundred_idle_connections_are_noticed_by_none(
    server: Server, many: Callable[..., list[Socket]]
) -> None:
    idle = many(server, 200)
    for one in idle:
        one.receive()
    unharmed(server)
    assert idle[0].infer(libero())["actions"].shape == (50, 7)


def test_idle_websockets_give_their_place_to_new_clients(
    serve: Serve, many: Callable[..., list[Socket]]
) -> None:
    server = serve("mono_pi0_7", limits=ConnectionLimits(most=8))
    idle = many(server, 8)
    for one in idle:
        one.receive()
    unharmed(server)
    ended = []
    for one in idle:
        one.send(packed(libero()))
        try:
            one.receive()
        except ClosedError as error:
            ended.append(error.code)
    assert ended
    assert set(ended) <= {0, 1013}


def test_one_that_is_served_keeps_its_place(serve: Serve, many: Callable[..., list[Socket]]) -> None:
    server = serve("mono_pi0_7", limits=ConnectionLimits(most=8))
    with connected(server) as client:
        client.receive()
        with busy(server.engine):
            client.send(packed(libero()))
            wait_for(lambda: in_flight(server.engine))
            many(server, 12)
        assert unpacked(bytes(client.receive()))["actions"].shape == (50, 7)


def test_a_client_that_floods_holds_no_other_up(server: Server) -> None:
    with connected(server) as flood, connected(server) as client:
        flood.receive()
        client.receive()
        message = frame(packed(libero()))
        flooding = Background(lambda: [flood.raw(message) for _ in range(300)])
        for _ in range(5):
            assert client.infer(libero())["actions"].shape == (50, 7)
        assert server.client.act(good()).status == 200
        flood.close()
        assert flooding is not None


def test_a_client_that_floods_and_goes_leaves_nothing(serve: Serve) -> None:
    """Messages that wait for their turn have no client any more: nothing waits for them, and no memory is kept."""
    server = serve("mono_pi0_7")
    memory = server.sidecar.memory
    assert memory is not None
    with busy(server.engine):
        for _ in range(3):
            with connected(server) as flood:
                flood.receive()
                for _ in range(6):
                    flood.send(packed(libero()))
                wait_for(lambda: in_flight(server.engine))
        wait_for(lambda: server.sidecar.app is not None and not server.sidecar.app[LIVE])
    wait_for(lambda: memory.bytes == 0)
    unharmed(server)


def test_refusals_of_a_busy_server_are_text(serve: Serve) -> None:
    server = serve("mono_pi0_7", max_concurrent=1)
    with connected(server) as first, connected(server) as second:
        first.receive()
        second.receive()
        with busy(server.engine):
            first.send(packed(libero()))
            wait_for(lambda: in_flight(server.engine))
            assert second.infer(libero()).startswith("too_many_requests: ")
            assert server.client.act(good()).status == 429
        assert unpacked(bytes(first.receive()))["actions"].shape == (50, 7)
        assert second.infer(libero())["actions"].shape == (50, 7)


def test_an_upgrade_that_is_none_is_refused(server: Server) -> None:
    for headers in (
        {"Sec_WebSocket_Version": "6"},
        {"Sec_WebSocket_Key": "short"},
        {"Connection": "close"},
        {"Host": "a b"},
    ):
        with pytest.raises((UpgradeError, ClosedError)) as refused, connected(server, **headers):
            pass
        if isinstance(refused.value, UpgradeError):
            assert refused.value.status in (400, 426)
    with pytest.raises(UpgradeError) as refused, connected(server, "/act"):
        pass
    assert refused.value.status in (404, 405)
    unharmed(server)


def test_compression_is_not_agreed_to(server: Server) -> None:
    """A compressed message is a bomb that no limit of the frames sees."""
    with connected(server, Sec_WebSocket_Extensions="permessage-deflate") as client:
        client.receive()
        data = packed(libero())
        head = bytearray(frame(data))
        head[0] |= 0x40
        client.raw(bytes(head))
        with pytest.raises(ClosedError) as closed:
            client.receive()
        assert closed.value.code == 1002
    unharmed(server)


def test_arrays_of_any_byte_never_bring_the_server_down(server: Server) -> None:
    noise = np.random.default_rng(4)
    good_bytes = bytearray(packed(libero()))
    with connected(server) as client:
        client.receive()
        for _ in range(200):
            changed = bytearray(good_bytes)
            for at in noise.integers(0, 400, 4):
                changed[at] = noise.integers(0, 256)
            client.send(bytes(changed[: int(noise.integers(1, len(changed) + 1))]))
            client.receive()
        assert client.infer(libero())["actions"].shape == (50, 7)
    assert b'slug="internal-error"' not in server.client.get("/metrics").body
