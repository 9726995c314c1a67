# SPDX-License-Identifier: Apache-2.0
"""Many clients, slow inference, clients that go away, and stopping with requests in flight."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from http_client import Background, busy, in_flight, wait_for
from raw_http import act_bytes, answered

Serve = Callable[..., Any]

CLIENTS = 16


def connected(server: Any) -> socket.socket:
    """A connection that has answered once, so that the server has accepted it."""
    connection = socket.create_connection(("127.0.0.1", server.sidecar.port), timeout=60)
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert b" 200 " in connection.recv(65536)
    return connection


def served_ids(server: Any) -> list[str]:
    """The ids of requests in the order in which the engine answered them."""
    order: list[str] = []
    server.engine.listen(lambda request, _: order.append(request.request_id))
    return order


def test_health_and_metrics_answer_while_inference_runs(serve: Serve) -> None:
    server = serve("slow")
    act = Background(server.client.act)
    wait_for(lambda: in_flight(server.engine) == 1)
    assert server.client.get("/health").status == 200
    assert b"reflex_in_flight_requests" in server.client.get("/metrics").body
    assert not act.done
    assert act.result().status == 200


def test_health_answers_while_every_worker_is_taken(serve: Serve) -> None:
    server = serve("mono_pi0_7", http_threads=1)
    with busy(server.engine):
        acts = [Background(server.client.act) for _ in range(3)]
        wait_for(lambda: server.sidecar.waiting == 3)
        for path in ("/health", "/metrics", "/config"):
            assert server.client.get(path).status == 200
        assert not any(act.done for act in acts)
    assert [act.result().status for act in acts] == [200] * 3


def test_sixteen_clients_are_answered_in_the_order_of_arrival(serve: Serve) -> None:
    server = serve("mono_pi0_7", http_threads=1)
    order = served_ids(server)
    connections = [connected(server) for _ in range(CLIENTS)]
    with busy(server.engine):
        for number, connection in enumerate(connections):
            connection.sendall(act_bytes(request_id=f"client-{number}"))
            wait_for(lambda expected=number + 1: server.sidecar.waiting == expected)
    replies = [answered(connection) for connection in connections]
    assert all(b" 200 " in reply.splitlines()[0] for reply in replies)
    assert order == [f"client-{number}" for number in range(CLIENTS)]
    for number, reply in enumerate(replies):
        assert f'"request_id":"client-{number}"'.encode() in reply


def test_sixteen_clients_at_once_each_get_their_own_answers(serve: Serve) -> None:
    server = serve(
        "mono_pi0_7", embodiment=""
    )  # no limits: their history would make answers depend on each other
    alone = {seed: server.client.act(seed=seed).json["actions"] for seed in range(CLIENTS)}
    start = threading.Barrier(CLIENTS)

    def client(seed: int) -> list[Any]:
        start.wait()
        return [server.client.act(seed=seed, request_id=f"{seed}-{turn}").json for turn in range(5)]

    running = [Background(lambda seed=seed: client(seed)) for seed in range(CLIENTS)]
    for seed, answers in enumerate(call.result() for call in running):
        assert [answer["request_id"] for answer in answers] == [f"{seed}-{turn}" for turn in range(5)]
        assert all(answer["actions"] == alone[seed] for answer in answers)


def test_requests_on_one_connection_are_answered_one_after_another(serve: Serve) -> None:
    connection = connected(serve("mono_pi0_7"))
    for seed in range(3):
        connection.sendall(act_bytes(seed=seed))
        assert f'"seed":{seed}'.encode() in answered(connection)


def test_a_client_that_leaves_disturbs_no_other(serve: Serve) -> None:
    server = serve("mono_pi0_7", http_threads=1)
    order = served_ids(server)
    with busy(server.engine):
        leaves, stays, gone = (connected(server) for _ in range(3))
        leaves.sendall(act_bytes(request_id="runs when it leaves"))
        wait_for(lambda: in_flight(server.engine) == 1)
        gone.sendall(act_bytes(request_id="waits when it leaves"))
        wait_for(lambda: server.sidecar.waiting == 2)
        stays.sendall(act_bytes(request_id="stays"))
        wait_for(lambda: server.sidecar.waiting == 3)
        gone.close()
        leaves.close()
        wait_for(lambda: server.sidecar.waiting == 1)
    assert b" 200 " in answered(stays).splitlines()[0]
    assert order == ["runs when it leaves", "stays"]
    assert server.client.act().status == 200


@pytest.mark.parametrize(
    "part", [b"POST /act HT", b"POST /act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\n{"]
)
def test_a_request_that_is_never_finished_disturbs_no_other(serve: Serve, part: bytes) -> None:
    server = serve("mono_pi0_7")
    unfinished = connected(server)
    unfinished.sendall(part)
    assert server.client.act().status == 200
    unfinished.close()
    assert server.client.act().status == 200
    assert server.sidecar.waiting == 0


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET\r\n\r\n"]
)
def test_what_is_not_http_disturbs_no_other(serve: Serve, nonsense: bytes) -> None:
    server = serve("mono_pi0_7")
    connection = connected(server)
    connection.sendall(nonsense)
    connection.recv(65536)
    connection.close()
    assert server.client.act().status == 200


def test_stop_finishes_what_is_in_flight_and_takes_no_more(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    with busy(server.engine):
        act = Background(server.client.act)
        wait_for(lambda: in_flight(server.engine) == 1)
        stopping = Background(lambda: server.sidecar.stop() or True)

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", server.sidecar.port), timeout=60).close()
            except ConnectionError:
                return True
            return False

        wait_for(refused)
        assert not stopping.done
    assert act.result().status == 200
    assert stopping.result()


def test_stop_is_bounded_when_inference_hangs(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reflex_ros.sidecar.server.FINISH_S", 0.2)
    server = serve("mono_pi0_7")
    with busy(server.engine):
        threading.Thread(target=_ask_and_forget, args=(server,), daemon=True).start()
        wait_for(lambda: in_flight(server.engine) == 1)
        server.sidecar.stop()
    wait_for(lambda: in_flight(server.engine) == 0)


def _ask_and_forget(server: Any) -> None:
    with contextlib.suppress(OSError):  # the server goes away
        server.client.act()
