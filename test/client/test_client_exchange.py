# SPDX-License-Identifier: Apache-2.0
"""Requests of the client on real sockets: one deadline for all, no retry of what was refused, errors with slug and sentence."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest
from scripted_server import (
    CHUNK,
    hangs_up,
    hangs_up_after,
    replies,
    says_nothing,
    scripted,
    sends,
)

import reflex_client
from reflex_client import Policy, Retries

REFUSAL = {"error": "state-length", "message": "the state must be 7 numbers, got 2", "request_id": "r-9"}
QUICK = Retries(first_s=0.001, longest_s=0.002)
PATIENCE_S = 60.0


def act(url: str, **options: object) -> reflex_client.Reply:
    with Policy(url, **{"retries": QUICK, "timeout_s": PATIENCE_S, **options}) as policy:  # type: ignore[arg-type]
        return policy.act(state=[0.0, 1.0], instruction="go", request_id="r-9")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, reflex_client.ObservationRefusedError), (401, reflex_client.UnauthorizedError),
        (403, reflex_client.UnauthorizedError), (404, reflex_client.RefusedError), (413, reflex_client.ObservationRefusedError),
        (422, reflex_client.ObservationRefusedError), (500, reflex_client.InferenceFailedError),
    ],
)  # fmt: skip
def test_what_was_refused_is_raised_at_once_with_slug_and_sentence(
    status: int, kind: type[reflex_client.RefusedError]
) -> None:
    with scripted(replies(status, REFUSAL)) as server, pytest.raises(kind) as raised:
        act(server.url)
    error = raised.value
    assert len(server.received) == 1
    assert (error.status, error.slug, error.sentence, error.request_id) == (
        status, "state-length", "the state must be 7 numbers, got 2", "r-9",
    )  # fmt: skip
    assert str(error) == "state-length: the state must be 7 numbers, got 2"


CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
CUT_PIECES = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n{"


@pytest.mark.parametrize("data", [CUT, CUT_PIECES])
def test_a_reply_that_is_cut_off_is_asked_for_again(data: bytes) -> None:
    with scripted(hangs_up_after(sends(data)), replies(200)) as server:
        assert act(server.url).rows == 4
    with (
        scripted(hangs_up_after(sends(data))) as server,
        pytest.raises(reflex_client.UnreachableError, match="in the midst of its reply"),
    ):
        act(server.url)


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_what_is_not_now_is_asked_again(status: int) -> None:
    with scripted(replies(status, REFUSAL), hangs_up, replies(200)) as server:
        reply = act(server.url)
    assert len(server.received) == 3
    assert {received.json["request_id"] for received in server.received} == {"r-9"}
    assert reply.actions.shape == (4, 2)


def test_a_retry_after_is_waited_for_and_one_beyond_the_deadline_is_not() -> None:
    with scripted(replies(503, REFUSAL, "Retry-After: 1"), replies(200)) as server:
        began_s = time.monotonic()
        act(server.url)
        assert time.monotonic() - began_s >= 1.0
    with scripted(replies(503, REFUSAL, "Retry-After: 60")) as server:
        with pytest.raises(reflex_client.UnavailableError) as raised:
            act(server.url, timeout_s=30.0)
        assert raised.value.retry_after_s == 60.0
        assert len(server.received) == 1


@pytest.mark.parametrize("text", ["1_0", "1e1", "nan", "inf", "-1", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_retry_after_that_is_no_decimal_number_is_none(text: str) -> None:
    refused = scripted(replies(503, REFUSAL, f"Retry-After: {text}"))
    with refused as server, pytest.raises(reflex_client.UnavailableError) as raised:
        act(server.url, retries=Retries(most=0))
    assert raised.value.retry_after_s is None


def test_pauses_grow_are_no_two_alike_and_end() -> None:
    retries = Retries(first_s=0.1, longest_s=1.0, most=5)
    longest = [retries.pause_s(attempt, None, lambda: 0.0) for attempt in range(6)]
    assert longest == [0.1, 0.2, 0.4, 0.8, 1.0, None]
    assert retries.pause_s(0, None, lambda: 1.0) == 0.05
    assert retries.pause_s(0, 2.0, lambda: 0.0) == 2.0
    assert 2.0 < (retries.pause_s(0, 2.0, lambda: 1.0) or 0.0) < 2.3
    assert Retries(most=0).pause_s(0, None) is None


def drip(received: object) -> None:
    connection: socket.socket = received.socket  # type: ignore[attr-defined]
    for _ in range(10_000):
        connection.sendall(b"H")
        time.sleep(0.01)


def drip_body(received: object) -> None:
    connection: socket.socket = received.socket  # type: ignore[attr-defined]
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    drip(received)


@pytest.mark.parametrize("do", [says_nothing, drip, drip_body])
def test_the_deadline_is_for_all_of_it_however_slowly_bytes_come(do: Callable[..., None]) -> None:
    with scripted(do) as server:
        began_s = time.monotonic()
        with pytest.raises(reflex_client.OutOfTimeError, match=r"within 0\.3 s"):
            act(server.url, timeout_s=0.3)
        assert 0.3 <= time.monotonic() - began_s < 30.0


def test_a_kept_connection_that_the_server_closed_is_no_failure() -> None:
    once = Retries(most=0)
    with (
        scripted(hangs_up_after(replies(200)), replies(200), replies(200)) as server,
        Policy(server.url, timeout_s=PATIENCE_S, retries=once) as policy,
    ):
        for _ in range(3):
            policy.act(state=[0.0])
    assert [received.connection for received in server.received] == [0, 1, 1]


def test_a_connection_is_kept_and_one_that_is_to_be_closed_is_not() -> None:
    with (
        scripted(replies(200), replies(200, None, close=True), replies(200)) as server,
        Policy(server.url, timeout_s=PATIENCE_S) as policy,
    ):
        for _ in range(3):
            policy.act(state=[0.0])
    assert [received.connection for received in server.received] == [0, 0, 1]


def test_where_no_server_listens_it_is_unreachable_until_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(reflex_client.UnreachableError, match="Connection refused"):
        act(f"http://127.0.0.1:{port}", timeout_s=0.2)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP"), (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "no JSON object"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "no JSON object"),
    ],
)  # fmt: skip
def test_what_is_no_reply_is_reported_as_such(data: bytes, sentence: str) -> None:
    with scripted(sends(data)) as server, pytest.raises(reflex_client.MalformedReplyError, match=sentence):
        act(server.url)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"actions": [[float("nan"), 0.0]]}, "must be finite"), ({"actions": [[1e39, 0.0]]}, "must be finite"),
        ({"actions": []}, "must be rows of 2 numbers"), ({"actions": [[0.0], [1.0, 2.0]]}, "no action chunk"),
        ({"actions": [[0.0]]}, "must be rows of 2 numbers"), ({"actions": None}, "must be rows|no action chunk"),
        ({"dt_s": -1.0}, "dt_s >= 0"), ({"dt_s": float("nan")}, "dt_s >= 0"), ({"start_index": 5}, "start_index"),
        ({"start_index": "x"}, "no action chunk"),
        ({"latency_ms": {"a": 1}}, "no action chunk"), ({"did_you_mean": [1]}, "no action chunk"), ({"guard_violations": 3}, "no action chunk"),
    ],
)  # fmt: skip
def test_no_chunk_that_is_malformed_comes_through(changes: dict[str, object], sentence: str) -> None:
    with (
        scripted(replies(200, {**CHUNK, **changes})) as server,
        pytest.raises(reflex_client.MalformedReplyError, match=sentence),
    ):
        act(server.url)


def test_the_answer_to_another_request_comes_not_through() -> None:
    with (
        scripted(replies(200, CHUNK | {"request_id": "another"})) as server,
        pytest.raises(reflex_client.MalformedReplyError, match="to request 'another', not to 'r-9'"),
    ):
        act(server.url)


def test_a_page_of_a_proxy_is_an_error_with_its_status() -> None:
    page = b"<html>no</html>"
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(page)
    with scripted(sends(head + page)) as server, pytest.raises(reflex_client.RefusedError) as raised:
        act(server.url)
    assert (raised.value.slug, raised.value.status) == ("http-404", 404)


def test_the_key_and_the_episode_are_in_the_headers() -> None:
    with scripted(replies(200)) as server, Policy(server.url, key="secret", timeout_s=PATIENCE_S) as policy:
        policy.act(state=[0.0], episode_id="ep-1")
        policy.act(state=[0.0])
    first, second = server.received
    assert (first.header("Authorization"), first.header("X-Session-Id")) == ("Bearer secret", "ep-1")
    assert second.header("X-Session-Id") == ""
    assert first.head.startswith("POST /act HTTP/1.1")


def test_each_request_for_a_chunk_states_the_time_that_is_left() -> None:
    with scripted(replies(503), replies(200)) as server, Policy(server.url, retries=QUICK) as policy:
        policy.act(state=[0.0], timeout_s=PATIENCE_S)
        policy.act(state=[0.0], timeout_s=601.0)
        policy.health()
    first, again, beyond, health = (request.header("X-Reflex-Deadline-Ms") for request in server.received)
    assert 0.0 < float(again) < float(first) <= PATIENCE_S * 1e3
    assert (beyond, health) == ("", "")  # more than a server takes, and no chunk


def test_a_path_before_the_server_s_own_is_kept() -> None:
    with scripted(replies(200)) as server:
        act(f"{server.url}/robots/one/")
    assert server.received[0].head.startswith("POST /robots/one/act HTTP/1.1")


def test_a_key_is_sent_without_the_line_break_of_its_file_and_one_that_no_header_has_is_refused() -> None:
    with scripted(replies(200)) as server, Policy(server.url, key="secret\n", timeout_s=PATIENCE_S) as policy:
        policy.act(state=[0.0])
    assert server.received[0].header("Authorization") == "Bearer secret"
    for key in ("a\nb", "schlüssel"):
        with pytest.raises(reflex_client.ReflexClientError, match="bad-key"):
            Policy("http://x", key=key)


def test_a_chunk_of_unknown_rate_is_not_played() -> None:
    with (
        scripted(replies(200, {**CHUNK, "dt_s": 0.0})) as server,
        Policy(server.url, timeout_s=PATIENCE_S) as policy,
    ):
        assert policy.act(state=[0.0]).dt_s == 0.0
        with (
            policy.episode() as episode,
            episode.player(lambda: {"state": [0.0]}) as player,
            pytest.raises(reflex_client.ReflexClientError, match="no-action-rate"),
        ):
            list(player)


def test_a_player_that_was_stopped_hands_out_nothing_more() -> None:
    with scripted(replies(200)) as server, Policy(server.url, timeout_s=PATIENCE_S) as policy:
        with policy.episode() as episode, episode.player(lambda: {"state": [0.0]}) as player:
            while player.next_row() is None:
                pass
        assert player.playback.rows_left > 0
        assert player.next_row() is None
        assert list(player) == []


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:99999", "http://x/?a=1"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(reflex_client.ReflexClientError) as raised:
        Policy(url)
    assert raised.value.slug == "bad-url"


def test_an_episode_that_ends_gives_up_the_request_under_way() -> None:
    raised: list[BaseException] = []
    with scripted(says_nothing) as server, Policy(server.url, timeout_s=PATIENCE_S) as policy:
        with policy.episode() as episode:

            def ask() -> None:
                try:
                    episode.act(state=[0.0])
                except reflex_client.ReflexClientError as error:
                    raised.append(error)

            thread = threading.Thread(target=ask)
            thread.start()
            while not server.received:
                time.sleep(0.001)
        thread.join(PATIENCE_S / 2)
        assert not thread.is_alive()
    assert isinstance(raised[0], reflex_client.UnreachableError)
    assert len(server.received) == 1


def test_waiting_until_ready_begins_before_the_server_does() -> None:
    with scripted(replies(503, REFUSAL), replies(503, REFUSAL), replies(200, {"status": "ok"})) as server:
        Policy(server.url, retries=Retries(most=0)).wait_until_ready(PATIENCE_S)
        assert len(server.received) == 3
    with pytest.raises(reflex_client.OutOfTimeError, match="not ready within"):
        Policy(server.url).wait_until_ready(0.2)
