# SPDX-License-Identifier: Apache-2.0
"""GET /history: the newest answers for a viewer, kept only while one polls."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import simplejpeg
from http_client import Client, jpeg
from page_world import KEY
from servers import MakeEngine, Server
from wedge_requests import answer, request

from reflex_core.records.trace.parse import recorded
from reflex_core.records.trace.schema import Session
from reflex_core.review.bounds import bounds_of
from reflex_core.values import Frame
from reflex_ros.sidecar import recent_answers
from reflex_ros.sidecar.history_routes import RECENT
from reflex_ros.sidecar.recent_answers import LONGEST_SIDE, PER_REPLY, RecentAnswers
from reflex_ros.sidecar.server import Sidecar


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve("mono_pi0_7")


def session_of(server: Server) -> Session:
    assert server.engine.loaded is not None
    return server.engine.loaded.session


def kept(server: Server) -> int:
    assert server.sidecar.app is not None
    return len(server.sidecar.app[RECENT]._answers)


def test_answers_after_the_first_poll_come_as_records_of_a_trace(server: Server) -> None:
    assert server.client.act().status == 200
    assert kept(server) == 0, "nothing polls"
    first = server.client.get("/history").json
    assert (first["records"], first["next"], first["missed"]) == ([], 0, 0)
    sent = [
        server.client.act(instruction=f"reach {number}", image=jpeg(height=700, width=500)).json
        for number in range(2)
    ]
    found = server.client.get(f"/history?after={first['next']}").json
    assert (found["next"], found["missed"]) == (2, 0)
    records = [recorded(document, "history") for document in found["records"]]
    assert [record.instruction for record in records] == ["reach 0", "reach 1"]
    assert [record.request_id for record in records] == [answer["request_id"] for answer in sent]
    assert records[0].actions.tolist() == pytest.approx([*map(pytest.approx, sent[0]["actions"])])
    [image] = records[0].images.values()
    assert image.text is not None
    assert max(simplejpeg.decode_jpeg_header(base64.b64decode(image.text))[:2]) == LONGEST_SIDE
    assert bounds_of(found["header"]).of("panda_joint1") == pytest.approx((-2.7437, 2.7437), abs=0.2)
    again = server.client.get(f"/history?after={found['next']}").json
    assert (again["records"], again["next"]) == ([], 2)


def test_a_history_that_came_with_a_request_is_not_kept_for_the_viewer(
    server: Server,
) -> None:
    """The bound in bytes counts the newest frames alone: eight earlier observations of each would be eight times as much."""
    recent = RecentAnswers()
    recent.document(session_of(server), None)
    before = replace(request().observation, frames={"camera": Frame(bytes(1 << 20), "rgb8", 512, 682)})
    sent = request()
    recent(replace(sent, observation=replace(sent.observation, history=(before,) * 8)), answer(sent))
    [found] = recent._answers
    assert found.request.observation.history == ()
    assert found.request.observation.frames == sent.observation.frames


def test_a_viewer_that_is_too_slow_learns_what_it_missed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_answers, "KEPT", 3)
    server.client.get("/history")
    for _ in range(5):
        server.client.act()
    found = server.client.get("/history?after=-1").json
    assert ([record["seq"] for record in found["records"]], found["missed"]) == ([2, 3, 4], 2)


def test_a_reply_is_bounded_and_the_rest_follows(server: Server) -> None:
    server.client.get("/history")
    for _ in range(PER_REPLY + 2):
        server.client.act()
    found = server.client.get("/history?after=-1").json
    assert len(found["records"]) == PER_REPLY
    rest = server.client.get(f"/history?after={found['next']}").json
    assert (len(rest["records"]), rest["missed"]) == (2, 0)


def test_nothing_is_kept_once_no_viewer_polls(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.client.get("/history")
    server.client.act()
    assert kept(server) == 1
    monkeypatch.setattr(recent_answers, "IDLE_S", -1.0)  # the next poll has expired as it comes
    server.client.get("/history")
    server.client.act()
    assert kept(server) == 0


def test_no_path_of_this_machine_is_in_the_header(server: Server) -> None:
    header = server.client.get("/history").json["header"]
    assert {"settings", "export_dir", "hardware", "versions"} & set(header) == set()
    assert "/" not in "".join(str(header[name]) for name in ("model_type", "embodiment", "notes"))


@pytest.mark.parametrize("after", ["x", "-2", "1e3", "9" * 30, "%F0%9D%9F%99"])
def test_another_number_is_refused(server: Server, after: str) -> None:
    answer = server.client.get(f"/history?after={after}")
    assert (answer.status, answer.json["error"]) == (400, "bad-after")


@pytest.fixture
def locked(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("REFLEX_API_KEY", KEY)
    engine = make_engine("mono_pi0_7", port=0)
    sidecar = Sidecar(engine, engine.settings)
    sidecar.start()
    yield Client(sidecar.port)
    sidecar.stop()


def test_the_key_is_needed_where_there_is_one(locked: Client) -> None:
    assert locked.get("/history").status == 401
    assert locked.get("/history", Authorization=f"Bearer {KEY}").status == 200


def test_pages_of_other_sites_cannot_read_it(server: Server) -> None:
    assert server.client.get("/history", Sec_Fetch_Site="cross-site").status == 403
    assert server.client.get("/history", Origin="http://evil.example").status == 403
    assert kept(server) == 0


def test_before_a_policy_is_loaded_it_answers_so(serve: Callable[..., Server]) -> None:
    assert serve("mono_pi0_7", ready=False).client.get("/history").status == 503
