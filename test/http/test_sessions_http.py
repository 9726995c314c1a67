# SPDX-License-Identifier: Apache-2.0
"""The session header replaces a missing episode_id, and episodes that began on another server are counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from asking import act, figure
from http_client import Answer, good
from ros_world import REACH_HOME
from servers import Server
from wires import libero, packed, unpacked
from ws_client import UpgradeError, connected, opened

from reflex_core.files.share import embedded_policy
from reflex_core.metrics.moved_episodes import EPISODES_KEPT, MovedEpisodes
from reflex_core.values import Request

Serve = Callable[..., Server]
MOVED = "reflex_episodes_moved_total"


@pytest.fixture
def server(serve: Serve) -> Server:
    return reaching(serve)


def reaching(serve: Serve, **settings: Any) -> Server:
    return serve("calm", export_dir=str(embedded_policy()), embodiment="", **settings)


def sent(server: Server, session: str, **fields: Any) -> Answer:
    body = json.dumps(good(state=REACH_HOME, **fields)).encode()
    return server.client.ask("POST", "/act", body, x_session_id=session)


def test_the_header_replaces_a_missing_episode_and_is_echoed(server: Server) -> None:
    answer = sent(server, "run-7")
    assert (answer.status, answer.json["episode_id"], answer.json["caller"]) == (
        200,
        "run-7",
        "episode:run-7",
    )
    assert answer.headers["x-session-id"] == "run-7"
    second = sent(server, "run-7", elapsed_rows=1, previous_request_id=answer.json["request_id"]).json
    assert (second["rtc_mode"] != "", second["rtc_reason"]) == (True, "")


def test_an_answer_without_the_header_has_none(server: Server) -> None:
    answer = act(server.client, episode_id="run-7")
    assert (answer.status, "x-session-id" in answer.headers) == (200, False)


def test_header_and_body_that_agree_are_one_episode(server: Server) -> None:
    answer = sent(server, "run-7", episode_id="run-7")
    assert (answer.status, answer.json["episode_id"]) == (200, "run-7")


def test_header_and_body_that_differ_are_refused_as_the_balancer_would_send_them_elsewhere(
    server: Server,
) -> None:
    answer = sent(server, "run-7", episode_id="run-8")
    assert (answer.status, answer.json["error"]) == (422, "session-mismatch")
    assert "run-8" in answer.json["message"]
    assert "run-7" in answer.json["message"]
    assert answer.headers["x-session-id"] == "run-7"
    assert figure(server.client, "reflex_act_errors_total", slug="session-mismatch") == 1


@pytest.mark.parametrize("session", ["x" * 257, "tab\tinside", "\x80".encode().decode("latin-1")])
def test_a_header_that_can_be_no_id_is_refused_and_not_echoed(server: Server, session: str) -> None:
    answer = sent(server, session)
    assert (answer.status, answer.json["error"]) == (400, "bad-session-id")
    assert "x-session-id" not in answer.headers


def test_two_headers_are_refused(server: Server) -> None:
    answer = server.client.ask(
        "POST", "/act", json.dumps(good()).encode(), x_session_id="a", X_Session_ID="b"
    )
    assert (answer.status, answer.json["error"]) == (400, "bad-session-id")


def test_a_header_that_is_not_ascii_is_echoed_as_ascii(server: Server) -> None:
    answer = sent(server, "straße".encode().decode("latin-1"))
    assert (answer.json["episode_id"], answer.headers["x-session-id"]) == ("straße", "stra%C3%9Fe")


def test_the_outcome_of_another_episode_than_the_header_names_is_refused(server: Server) -> None:
    sent(server, "run-7")
    body = json.dumps({"success": True}).encode()
    there = server.client.ask("POST", "/episodes/run-7/outcome", body, x_session_id="run-7")
    elsewhere = server.client.ask("POST", "/episodes/run-7/outcome", body, x_session_id="run-8")
    assert (there.status, elsewhere.status, elsewhere.json["error"]) == (200, 422, "session-mismatch")


def test_the_header_of_an_upgrade_names_the_connection_and_its_episodes(server: Server) -> None:
    heard: list[Request] = []
    server.engine.listen(lambda request, _: heard.append(request))
    with connected(server, x_session_id="arm-3") as socket:
        unpacked(socket.receive())
        for message in (libero(), {"endpoint": "reset"}, libero()):
            socket.send(packed(message))
            socket.receive()
    assert [request.episode_id for request in heard] == ["arm-3", "arm-3-1"]


def test_an_upgrade_with_a_header_that_can_be_no_id_is_refused(server: Server) -> None:
    with pytest.raises(UpgradeError) as found:
        opened(server, x_session_id="x" * 257)
    assert found.value.status == 400


def test_an_episode_that_began_on_another_server_is_counted_and_goes_on(serve: Serve, server: Server) -> None:
    before = sent(server, "run-7").json
    other = reaching(serve)
    moved = sent(other, "run-7", elapsed_rows=2, previous_request_id=before["request_id"]).json
    assert (moved["rtc_mode"], moved["rtc_reason"]) == ("", "moved")
    assert moved["reflex"]["rtc"]["reason"] == "moved"
    assert figure(other.client, MOVED) == 1
    after = sent(other, "run-7", elapsed_rows=2, previous_request_id=moved["request_id"]).json
    assert (after["rtc_mode"] != "", after["rtc_reason"], figure(other.client, MOVED)) == (True, "", 1)
    back = sent(server, "run-7", elapsed_rows=2, previous_request_id=after["request_id"]).json
    assert (back["rtc_mode"], back["rtc_reason"], figure(server.client, MOVED)) == ("", "moved", 1)


def test_an_episode_that_moved_is_counted_without_real_time_chunking_too(serve: Serve) -> None:
    server = reaching(serve, rtc=False)
    assert sent(server, "run-7", elapsed_rows=2).json["rtc_reason"] == "moved"
    assert figure(server.client, MOVED) == 1


def test_a_first_chunk_and_one_of_another_instruction_are_not_moved(server: Server) -> None:
    first = sent(server, "run-7", elapsed_rows=0).json
    assert first["rtc_reason"] == "first"
    other = sent(server, "run-7", instruction="go home", previous_request_id=first["request_id"]).json
    assert (other["rtc_reason"], figure(server.client, MOVED)) == ("instruction", 0)


def test_what_is_kept_of_episodes_is_bounded() -> None:
    memory = MovedEpisodes()
    for number in range(EPISODES_KEPT + 1):
        assert not memory.answered(f"e{number}", "", None, f"r{number}")
    assert memory.answered("e0", "r0", 1.0, "again")
    assert not memory.answered("e0", "again", 1.0, "more")
    assert not memory.answered(None, "r0", 1.0, "without an episode")
