# SPDX-License-Identifier: Apache-2.0
"""Bodies from outside: those that never end, that unpack to much, or that are not what their headers say."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hostile_connections import HEAD, SHORT, ask, everything, parsed, sockets
from http_client import busy, good, in_flight, wait_for
from raw_http import answered

Serve = Callable[..., Any]


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """A log without forged lines and tracebacks, in which trouble of one kind is logged once."""
    caplog.set_level(logging.INFO)
    yield caplog
    loud = [record for record in caplog.records if "sidecar" in record.name or "aiohttp" in record.name]
    assert not any(record.exc_info for record in loud)
    assert len(loud) <= 4, caplog.text
    assert all(len(record.getMessage()) < 400 and record.getMessage().isprintable() for record in loud)


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 5000\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]
)
def test_a_body_that_does_not_go_on_is_given_up(serve: Serve, quiet: Any, framing: bytes) -> None:
    server = serve("mono_pi0_7", limits=SHORT)
    with sockets(server, 1, HEAD + framing) as [slow]:
        status, document = parsed(everything(slow))
    assert (status, document["error"]) == (408, "request-timeout")
    assert server.client.act().status == 200


def test_bodies_that_never_end_take_no_more_memory_than_is_meant_for_them(serve: Serve, quiet: Any) -> None:
    """The largest is given up, so that a client that finishes is served."""
    bound = 3 << 20
    server = serve("mono_pi0_7", body_bytes=bound)
    memory = server.sidecar.memory
    part = b" " * 200_000
    with sockets(server, 12, HEAD + b"Content-Length: 90000000\r\n\r\n" + part) as slow:
        wait_for(lambda: memory.bytes)
        for _ in range(3):
            assert server.client.act().status == 200
            assert memory.bytes * 3 <= bound
        refused = [connection for connection in slow if _has_answer(connection)]
        assert refused
        status, document = parsed(everything(refused[0]))
    assert (status, document["error"]) == (503, "queue_full")
    wait_for(lambda: memory.bytes == 0)


def zipped(path: bytes, body: bytes) -> bytes:
    """A whole POST whose body is some thousandths of what it unpacks to."""
    packed = gzip.compress(body)
    head = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Encoding: gzip\r\n" % path
    return head + b"Content-Length: %d\r\n\r\n" % len(packed) + packed


def black(pixels: int) -> bytes:
    """A request with a picture that packs well: 4 bytes of base64 a pixel."""
    picture = {"data": "AAAA" * pixels, "encoding": "rgb8", "height": 1024, "width": pixels // 1024}
    return json.dumps(good(image=picture)).encode()


def test_what_bodies_unpack_to_counts_in_the_memory_that_is_meant_for_them(serve: Serve, quiet: Any) -> None:
    """As many are served as there is room for; the others get Retry-After."""
    bound = 18 << 20
    server = serve("mono_pi0_7", body_bytes=bound, max_pixels=2 << 20)
    memory, most = server.sidecar.memory, [0]

    def refused() -> list[socket.socket]:
        most[0] = max(most[0], memory.bytes)
        return [one for one in bombs if _has_answer(one)]

    with sockets(server, 12, b"") as bombs:
        with busy(server.engine):  # the picture of the first is kept meanwhile
            for one in bombs:
                one.sendall(zipped(b"/act", black(1 << 20)))
            wait_for(lambda: len(refused()) == 11)
            assert 3 << 20 <= memory.bytes < 4 << 20  # of the picture alone, not of its JSON
        replies = [answered(one) for one in bombs]
    assert most[0] * 3 <= bound
    assert sorted(parsed(reply)[0] for reply in replies) == [200] + [503] * 11
    for reply in replies:
        if b" 503 " in reply.splitlines()[0]:
            assert parsed(reply)[1]["error"] == "queue_full"
            assert b"\r\nRetry-After: " in reply
    wait_for(lambda: memory.bytes == 0)
    assert server.client.act().status == 200


def test_what_a_client_that_has_gone_unpacked_counts_until_its_worker_is_done(serve: Serve) -> None:
    server = serve("mono_pi0_7", body_bytes=18 << 20, max_pixels=2 << 20)
    memory = server.sidecar.memory
    with busy(server.engine):
        with sockets(server, 1, zipped(b"/act", black(1 << 20))) as [going]:
            wait_for(lambda: in_flight(server.engine) == 1)
            going.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_for(lambda: len(server.sidecar.connections) == 0)
        assert memory.bytes >= 3 << 20
    wait_for(lambda: memory.bytes == 0)


def test_bodies_that_are_refused_leave_nothing_in_memory(serve: Serve, quiet: Any) -> None:
    server = serve("mono_pi0_7")
    many_values = b'{"x":[' + b"{}," * 2_200_000 + b"0]}"
    for data, status in (
        (zipped(b"/policies", bytes(1 << 20)), 413),
        (zipped(b"/act", many_values), 413),
        (zipped(b"/act", b"{" + bytes(1 << 20)), 400),
        (zipped(b"/act", bytes(100_000))[:-5] + b"wrong", 400),
    ):
        assert ask(server, data)[0] == status
        wait_for(lambda: server.sidecar.memory.bytes == 0)


def _has_answer(connection: socket.socket) -> bool:
    connection.settimeout(0.0)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(60)


def test_a_client_that_goes_amid_its_body_is_no_trouble(serve: Serve, quiet: Any) -> None:
    server = serve("mono_pi0_7")
    with sockets(server, 5, HEAD + b"Content-Length: 9000\r\n\r\n{") as going:
        wait_for(lambda: server.sidecar.memory.bytes == 5)
        for connection in going:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: len(server.sidecar.connections) == 0)
    assert server.client.act().status == 200


def test_who_has_no_key_has_no_body_read(serve: Serve, tmp_path: Any) -> None:
    (tmp_path / "key").write_text("secret")
    server = serve("mono_pi0_7", api_key_file=str(tmp_path / "key"))
    with sockets(server, 1, HEAD + b"Content-Length: 90000000\r\n\r\n" + bytes(100_000)) as [stranger]:
        assert b" 401 " in stranger.recv(65536)
        assert server.sidecar.memory.bytes == 0


BODY = json.dumps(good()).encode()
RAW_DEFLATE = zlib.compressobj(wbits=-15)
PACKED = {
    "gzip": ("gzip", gzip.compress(BODY)),
    "gzip, as old clients call it": ("x-gzip", gzip.compress(BODY)),
    "deflate": ("deflate", zlib.compress(BODY)),
    "identity": ("identity", BODY),
    "nothing": ("", BODY),
}
REFUSED = {
    "gzip that is none": ("gzip", BODY, 400, "malformed-json"),
    "deflate that is none": ("deflate", BODY, 400, "malformed-json"),
    "gzip cut off": ("gzip", gzip.compress(BODY)[:-20], 400, "malformed-json"),
    "gzip and more": ("gzip", gzip.compress(BODY) + b"more", 400, "malformed-json"),
    "nothing as gzip": ("gzip", b"", 400, "malformed-json"),
    "brotli": ("br", BODY, 415, "unsupported-encoding"),
    "unknown": ("x\tfake", BODY, 415, "unsupported-encoding"),
    "twice gzip": ("gzip, gzip", gzip.compress(gzip.compress(BODY)), 415, "unsupported-encoding"),
    "a bomb": ("gzip", gzip.compress(bytes(8 << 20)), 413, "body-too-large"),
}  # fmt: skip


def test_packed_bodies_are_unpacked_or_refused_in_json(serve: Serve, quiet: Any) -> None:
    server = serve("mono_pi0_7", max_pixels=1024)
    for name, (encoding, body) in PACKED.items():
        answer = server.client.ask("POST", "/act", body, Content_Encoding=encoding)
        assert answer.status == 200, (name, answer.body)
    for name, (encoding, body, status, slug) in REFUSED.items():
        answer = server.client.ask("POST", "/act", body, Content_Encoding=encoding)
        assert (answer.status, answer.json["error"]) == (status, slug), (name, answer.body)
        assert answer.json["message"].isprintable()
    for path in ("/policies", "/episodes/a/outcome"):
        answer = server.client.ask("POST", path, b'{"success": true}', Content_Encoding="gzip")
        assert (answer.status, answer.json["error"]) == (400, "malformed-json")
