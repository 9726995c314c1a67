# SPDX-License-Identifier: Apache-2.0
"""Clients that hold connections, never finish, or speak no HTTP: others are served, and the log stays short."""

from __future__ import annotations

import json
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import orjson
import pytest
from hostile_connections import FEW, HEAD, SHORT, everything, parsed, sockets
from http_client import Background, busy, good, in_flight, wait_for
from raw_http import act_bytes, answered

from reflex_ros.sidecar.connections import LEAST_CONNECTIONS, ConnectionLimits, connections_that_fit

Serve = Callable[..., Any]
TLS_HELLO = bytes.fromhex("16030100a5010000a10303") + bytes(160)


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """A log without forged lines and tracebacks, in which trouble of one kind is logged once."""
    caplog.set_level(logging.INFO)
    yield caplog
    loud = [record for record in caplog.records if "sidecar" in record.name or "aiohttp" in record.name]
    assert not any(record.exc_info for record in loud)
    assert len(loud) <= 4, caplog.text
    assert all(len(record.getMessage()) < 400 and record.getMessage().isprintable() for record in loud)


@pytest.mark.parametrize("data", [b"", b"POST /act HT", HEAD + b"Content-Length: 500\r\n\r\n{"])
def test_health_is_answered_however_many_hold_connections(serve: Serve, quiet: Any, data: bytes) -> None:
    server = serve("mono_pi0_7", limits=FEW)
    with sockets(server, 40, data):
        for _ in range(3):
            assert server.client.get("/health").status == 200
            assert server.client.act().status == 200
        assert len(server.sidecar.connections) <= FEW.most
        text = server.client.get("/metrics").body.decode()
    assert 'reflex_act_errors_total{slug="too-many-connections"}' in text


def test_those_who_are_being_served_do_not_make_room(serve: Serve, quiet: Any) -> None:
    server = serve("mono_pi0_7", limits=ConnectionLimits(most=2))
    with busy(server.engine), sockets(server, 2, act_bytes()) as served:
        wait_for(lambda: server.sidecar.waiting == 2)
        with sockets(server, 1) as late:
            status, document = parsed(everything(late[0]))
        assert (status, document["error"]) == (503, "too-many-connections")
        server.engine  # noqa: B018
    del served


def test_those_who_are_served_get_their_answers(serve: Serve) -> None:
    server = serve("mono_pi0_7", limits=ConnectionLimits(most=2))
    with ExitStack() as stack:
        with busy(server.engine):
            served = stack.enter_context(sockets(server, 2, act_bytes()))
            wait_for(lambda: server.sidecar.waiting == 2)
            with sockets(server, 5):
                pass
        assert [b" 200 " in answered(one).splitlines()[0] for one in served] == [True, True]


@pytest.mark.parametrize("data", [b"GET /health HT", HEAD, HEAD + b"X: " + b"y" * 4000])
def test_half_a_head_is_waited_for_so_long(serve: Serve, quiet: Any, data: bytes) -> None:
    server = serve("mono_pi0_7", limits=SHORT)
    with sockets(server, 3, data) as slow:
        for connection in slow:
            status, document = parsed(everything(connection))
            assert (status, document["error"]) == (408, "request-timeout")


def test_a_head_that_trickles_is_not_waited_for_longer(serve: Serve, quiet: Any) -> None:
    server = serve("mono_pi0_7", limits=SHORT)

    def trickled(connection: socket.socket) -> bool:
        try:
            connection.sendall(b"x")
        except ConnectionError:
            return True
        return not len(server.sidecar.connections)

    with sockets(server, 1, HEAD + b"X: ") as [slow]:
        wait_for(lambda: trickled(slow))


def test_a_silent_connection_ends_before_and_after_a_request(serve: Serve, quiet: Any) -> None:
    server = serve("mono_pi0_7", limits=SHORT)
    with (
        sockets(server, 1) as [silent],
        sockets(server, 1, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") as [kept],
    ):
        assert everything(silent) == b""
        assert b" 200 " in everything(kept).splitlines()[0]


BODY = json.dumps(good()).encode()


NOT_HTTP = {
    "a header of 20 kB": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
    "a path of 20 kB": b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a thousand headers": b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    "no Host": b"GET /health HTTP/1.1\r\n\r\n",
    "no Host for /act": b"POST /act HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
    "two Hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    "TLS": TLS_HELLO + b"\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "a version that never was": b"GET /health HTTP/7.3\r\nHost: localhost\r\n\r\n",
    "a method of bytes": b"\x00\x01\xfe / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path of bytes": b"GET /\xff\xfe\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a header that forges": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x00\x1b[2J[ERROR]\r\n\r\n",
    "a header without a colon": b"GET /health HTTP/1.1\r\nHost: localhost\r\n[ERROR] fake\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\n{}",
    "a length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks that are none": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
}  # fmt: skip


def test_what_is_no_http_gets_a_short_answer_and_one_line(serve: Serve, quiet: Any) -> None:
    server = serve("mono_pi0_7")
    for name, data in NOT_HTTP.items():
        with sockets(server, 1, data) as [connection]:
            connection.shutdown(socket.SHUT_WR)
            reply = everything(connection)
        status, document = parsed(reply)
        assert status in (400, 431), (name, reply)
        assert len(reply) < 600, name
        assert b"Traceback" not in reply
        assert document["message"].isprintable()
    assert server.client.act().status == 200


def test_garbage_behind_a_request_ends_its_connection(serve: Serve, quiet: Any) -> None:
    server = serve("mono_pi0_7")
    with sockets(server, 1, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + TLS_HELLO + b"\r\n\r\n") as [
        connection
    ]:
        reply = everything(connection)
    assert b" 400 " in reply.splitlines()[0]


def test_a_client_that_closed_its_half_gets_its_answer(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    with sockets(server, 1, act_bytes(seed=7)) as [connection]:
        connection.shutdown(socket.SHUT_WR)
        reply = everything(connection)
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert b'"seed":7' in reply
    for data in (act_bytes()[:-5], b"GET /health HTTP/1.1\r\nHo"):
        with sockets(server, 1, data) as [connection]:
            connection.shutdown(socket.SHUT_WR)
            assert b" 200 " not in everything(connection)  # and the server lets go of it


def test_a_client_that_closed_its_half_is_waited_for_however_long_it_takes(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    with ExitStack() as stack:
        with busy(server.engine):
            [connection] = stack.enter_context(sockets(server, 1, act_bytes(seed=7)))
            wait_for(lambda: in_flight(server.engine) == 1)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"  # does it still listen?
        assert everything(connection).startswith(b"HTTP/1.1 200 ")


def test_connections_leave_descriptors_to_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = "reflex_ros.sidecar.connections.resource.getrlimit"
    for soft, most in ((1024, 512), (256, 128), (10, LEAST_CONNECTIONS), (1 << 20, 512), (-1, 512)):
        monkeypatch.setattr(limit, lambda _, soft=soft: (soft, soft))
        assert connections_that_fit() == most
    monkeypatch.setattr(limit, lambda _: (1024, 1024))
    assert connections_that_fit(ports=2) == 256


def test_when_the_process_has_no_descriptor_left_others_make_room(serve: Serve, quiet: Any) -> None:
    server = serve("mono_pi0_7")
    with sockets(server, 5):
        wait_for(lambda: len(server.sidecar.connections) == 5)
        error = OSError(24, "Too many open files")
        loop = server.sidecar.loop
        for _ in range(100):
            loop.call_soon_threadsafe(
                loop.call_exception_handler,
                {"message": "socket.accept() out of system resource", "exception": error},
            )
        wait_for(lambda: len(server.sidecar.connections) == 0)
    assert server.client.get("/health").status == 200


def test_a_client_that_does_not_read_its_answers_is_let_go(serve: Serve) -> None:
    server = serve("mono_pi0_7", limits=SHORT)
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    connection.connect(("127.0.0.1", server.sidecar.port))
    with connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.setblocking(False)

        def let_go() -> bool:
            try:
                connection.send(request * 10)
            except BlockingIOError:
                pass
            except ConnectionError:
                return True
            return not len(server.sidecar.connections)

        wait_for(let_go)
    assert server.client.get("/health").status == 200
    assert orjson.loads(server.client.get("/health").body)["status"] == "ok"


def test_answers_are_sent_while_others_are_given_up(serve: Serve) -> None:
    server = serve("mono_pi0_7", limits=SHORT)
    with sockets(server, 10), sockets(server, 10, HEAD):
        asking = [Background(server.client.act) for _ in range(4)]
        assert [one.result().status for one in asking] == [200] * 4


def test_an_expectation_that_cannot_be_met_is_answered_in_json(serve: Serve, quiet: Any) -> None:
    server = serve("mono_pi0_7")
    for name, wanted in (("100-continue", 200), ("a\x1b[2Jfake", None), ("200-ok <b>", 417)):
        head = HEAD + b"Expect: " + name.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        with sockets(server, 1, head + BODY) as [connection]:
            connection.shutdown(socket.SHUT_WR)
            reply = everything(connection).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        status, document = parsed(reply)
        assert wanted in (status, None), reply
        assert "fake" not in str(document)
        assert "<b>" not in str(document)
