# SPDX-License-Identifier: Apache-2.0
"""GET /events, /stop and /resume over real sockets: who gets in, what it costs, and who is let go."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import simplejpeg
from asking import AT_REST
from http_client import Client, good, wait_for
from page_world import KEY, Events, PaperRobot
from repository import ROOT
from servers import MakeEngine, Server

from reflex_core.errors import ReflexError
from reflex_ros.sidecar.events import MOST_CLIENTS, Hub
from reflex_ros.sidecar.page_routes import FILES, HUB
from reflex_ros.sidecar.server import Sidecar

Open = Callable[..., Server]


@pytest.fixture
def paper() -> PaperRobot:
    return PaperRobot()


@pytest.fixture
def opened(
    make_engine: MakeEngine, paper: PaperRobot, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Server]]:
    """`opened(key="...")`: a calm policy behind a sidecar that has the paper robot."""
    sidecars: list[Sidecar] = []

    def start(key: str = "", **settings: Any) -> Server:
        if key:
            monkeypatch.setenv("REFLEX_API_KEY", key)
        engine = make_engine("calm", **{"port": 0, "embodiment": "franka", "robot_id": "arm7"} | settings)
        sidecar = Sidecar(engine, engine.settings, paper.robot())
        sidecar.start()
        sidecars.append(sidecar)
        return Server(engine, sidecar, Client(sidecar.port))

    yield start
    for sidecar in sidecars:
        sidecar.stop()


def hub_of(server: Server) -> Hub:
    """The hub of a running server."""
    assert server.sidecar.app is not None
    return server.sidecar.app[HUB]


def test_page_and_files_are_open_and_may_run_nothing_but_themselves(opened: Open) -> None:
    server = opened(key=KEY)
    for path in FILES:
        answer = server.client.get(path)
        assert answer.status == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert b"<script>" not in server.client.get("/").body
    assert b"http" not in server.client.get("/").body.replace(b"http-equiv", b"")


def test_what_it_does_not_do_is_the_same_on_the_page_and_in_the_documents(opened: Open) -> None:
    client = opened(key=KEY).client
    assert b'href="/page/safety.html"' in client.get("/").body
    page = client.get("/page/safety.html").body.decode()
    document = (ROOT / "docs" / "explanation" / "is-it-safe.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([^|]+) \|", document.partition("| it does not | so |")[2].partition("\n\n")[0], re.M
    )
    lacks = [row for row in rows if not row.startswith("-")]
    assert re.findall(r"<li>(.*)</li>", page) == lacks
    assert len(lacks) > 5


def test_no_other_file_is_served(opened: Open) -> None:
    client = opened().client
    for path in ("/page/", "/page/../app.py", "/page/%2e%2e/app.py", "/page/index.html"):
        assert client.get(path).status == 404, path


def test_events_need_the_key(opened: Open) -> None:
    port = opened(key=KEY).sidecar.port
    refused = Events(port)
    assert refused.status == 401
    refused.close()
    events = Events(port, Authorization=f"Bearer {KEY}")
    assert events.headers["Content-Type"] == "text/event-stream"
    assert events.next()["summary"]["word"] == "READY"
    events.close()


def test_the_state_follows_the_answers(opened: Open) -> None:
    server = opened(deadline_ms=5000.0, slo="p99=4000ms", slo_mode="log_only")
    events = Events(server.sidecar.port)
    first = events.next()
    assert (first["robot_id"], first["chunk"], first["latency"]["count"]) == ("arm7", None, 0)
    server.client.act(state=list(AT_REST), instruction="reach the red cube", episode_id="ep_7")
    second = next(state for state in iter(events.next, None) if state["chunk"])
    assert (second["request"]["instruction"], second["request"]["episode_id"]) == (
        "reach the red cube",
        "ep_7",
    )
    assert sum(second["latency"]["bars"]) == second["latency"]["count"] == second["counts"]["answers"] == 1
    assert second["latency"]["deadline_ms"] == 5000.0
    assert second["latency"]["slo"]["threshold_ms"] == 4000.0
    joint = second["chunk"]["joints"][3]
    assert (len(second["chunk"]["joints"]), len(joint["rows"])) == (7, 50)
    assert joint["min"] < joint["rows"][0] < joint["max"]
    assert joint["unit"] == "rad"
    events.close()


def test_pictures_are_small_and_come_when_there_are_new_ones(opened: Open) -> None:
    from base64 import b64decode

    from http_client import jpeg

    server = opened()
    server.client.act(state=list(AT_REST), image=jpeg(height=960, width=1280))
    events = Events(server.sidecar.port)
    (frame,) = events.next("pictures")["frames"]
    shown = simplejpeg.decode_jpeg(b64decode(frame["jpeg"]))
    assert shown.shape == (360, 480, 3)
    assert abs(shown.mean((0, 1)) - (200, 40, 40)).max() < 4
    late = Events(server.sidecar.port)
    assert late.next("pictures")["frames"] == [frame], "who comes later sees them as well"
    for one in (events, late):
        one.close()


def test_nothing_is_made_while_no_page_is_open(opened: Open) -> None:
    server = opened()
    hub = hub_of(server)
    server.client.act(state=list(AT_REST))
    assert (hub.made, hub.clients, hub._maker) == (0, 0, None)
    events = Events(server.sidecar.port)
    events.next()
    assert hub.made >= 1
    events.close()
    wait_for(lambda: hub.clients == 0 and hub._maker is None)


def test_all_who_look_share_one_maker(opened: Open) -> None:
    server = opened()
    several = [Events(server.sidecar.port) for _ in range(3)]
    for events in several:
        events.next()
    same = {events.next()["now_s"] for events in several}
    newest = max(same)
    for events in several:
        while events.next()["now_s"] < newest:
            pass
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("reflex-page")]) == 1
    for events in several:
        events.close()


def test_more_pages_than_are_served_are_refused(opened: Open) -> None:
    server = opened()
    many = [Events(server.sidecar.port) for _ in range(MOST_CLIENTS)]
    for events in many:
        events.next()
    refused = server.client.get("/events")
    assert (refused.status, refused.json["error"]) == (503, "too-many-pages")
    assert int(refused.headers["retry-after"]) > 0
    many.pop().close()
    wait_for(lambda: hub_of(server).clients < MOST_CLIENTS)
    again = Events(server.sidecar.port)
    assert again.next()["state"] == "ready"
    for events in (*many, again):
        events.close()


def test_a_page_that_takes_nothing_is_let_go_and_the_others_are_not(opened: Open) -> None:
    server = opened()
    hub = hub_of(server)
    hub.slow_s, hub._period_s = 0.2, 0.001
    big = b'{"frames": "' + b"x" * (1 << 20) + b'"}'
    hub._pictures = lambda: big
    stuck = socket.create_connection(("127.0.0.1", server.sidecar.port))
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    wait_for(lambda: hub.clients == 1)
    brisk = Events(server.sidecar.port)
    brisk.next()
    wait_for(lambda: (brisk.next(), hub.clients == 1)[1])
    assert brisk.next()["state"] == "ready"
    brisk.close()
    stuck.close()


def test_a_page_that_cannot_be_made_is_logged_once_and_tried_again(
    opened: Open, paper: PaperRobot, caplog: pytest.LogCaptureFixture
) -> None:
    server = opened()
    tries: list[int] = []

    class Broken:
        def __getattr__(self, name: str) -> object:
            tries.append(1)
            raise RuntimeError(f"the robot does not know its {name}")

    events = Events(server.sidecar.port)
    events.next()
    whole, paper.snapshot = paper.snapshot, Broken()  # type: ignore[assignment]
    wait_for(lambda: len(tries) >= 3)
    paper.snapshot = whole
    assert events.next()["state"] == "ready"
    events.close()
    (record,) = [record for record in caplog.records if "the page snapshot failed" in record.message]
    assert record.exc_info is not None


def test_the_server_ends_at_once_though_pages_are_open(opened: Open) -> None:
    server = opened()
    events = Events(server.sidecar.port)
    events.next()
    server.sidecar.stop()
    events.rest()  # returns: the stream was ended in order
    events.close()


def test_stop_and_resume_reach_the_robot(opened: Open, paper: PaperRobot) -> None:
    client = opened().client
    assert client.ask("POST", "/stop").json == {"stopped": True, "message": "stop on paper"}
    assert client.ask("POST", "/resume").json == {"resumed": True, "message": "resume on paper"}
    assert paper.done == ["stop", "resume"]


def test_an_instruction_and_an_episode_reach_the_robot(opened: Open, paper: PaperRobot) -> None:
    client = opened().client
    answer = client.ask("POST", "/instruction", b'{"instruction": "reach the blue cube"}')
    assert answer.json == {"instruction": "reach the blue cube", "message": "instruct on paper"}
    assert paper.snapshot.instruction == "reach the blue cube"
    begun = client.ask("POST", "/episodes", b'{"episode_id": "ep_9"}')
    assert begun.json == {"episode_id": "ep_9", "message": "ep_9"}
    assert client.ask("POST", "/episodes").json["episode_id"] == "ep_paper"
    assert paper.done == ["instruct", "episode", "episode"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/instruction", b'{"instruction": 5}'), ("/instruction", b'{"text": "reach"}'), ("/instruction", b"[]"),
        ("/episodes", b'{"episode_id": ["a"]}'), ("/episodes", b'{"id": "a"}'),
    ],
)  # fmt: skip
def test_a_body_that_is_something_else_reaches_no_robot(
    opened: Open, paper: PaperRobot, path: str, body: bytes
) -> None:
    answer = opened().client.ask("POST", path, body)
    assert (answer.status, answer.json["error"]) == (422, "bad-body")
    assert paper.done == []


@pytest.mark.parametrize("body", [b"", b"{}", b'{"instruction": null}', b'{"instruction": "  "}'])
def test_an_instruction_without_a_word_reaches_no_robot(opened: Open, paper: PaperRobot, body: bytes) -> None:
    answer = opened().client.ask("POST", "/instruction", body)
    assert (answer.status, answer.json["error"]) == (422, "bad-instruction")
    assert paper.done == []


def test_why_the_robot_takes_no_instruction_has_its_status(opened: Open, paper: PaperRobot) -> None:
    client = opened().client
    for slug, status in (
        ("bad-instruction", 422),
        ("not-answered", 503),
        ("not-active", 409),
        ("error", 409),
    ):
        paper.refusal, paper.slug = "not now", slug
        answer = client.ask("POST", "/instruction", b'{"instruction": "reach"}')
        assert (answer.status, answer.json["message"]) == (status, "not now"), slug


def test_stop_and_resume_need_the_key(opened: Open, paper: PaperRobot) -> None:
    client = opened(key=KEY).client
    for path in ("/stop", "/resume", "/instruction", "/episodes"):
        assert client.ask("POST", path).status == 401
        assert client.ask("POST", path, Authorization="Bearer wrong").status == 401
    assert paper.done == []
    assert client.ask("POST", "/stop", Authorization=f"Bearer {KEY}").status == 200
    assert paper.done == ["stop"]


def test_a_robot_that_is_not_active_refuses_in_a_sentence(opened: Open, paper: PaperRobot) -> None:
    client = opened().client
    paper.refusal = "the node is inactive, not active"
    answer = client.ask("POST", "/stop")
    assert (answer.status, answer.json["error"]) == (409, "not-active")
    assert answer.json["message"] == "the node is inactive, not active"


def test_a_server_without_a_robot_says_so(serve: Callable[..., Server]) -> None:
    client = serve("calm").client
    for path in ("/stop", "/resume", "/instruction", "/episodes"):
        answer = client.ask("POST", path)
        assert (answer.status, answer.json["error"]) == (409, "no-robot")
    events = Events(client.port)
    assert events.next()["robot"] is None
    events.close()


@pytest.mark.parametrize("path", ["/stop", "/resume", "/guard/reset", "/act", "/instruction", "/episodes"])
def test_without_a_key_no_other_site_may_act(opened: Open, paper: PaperRobot, path: str) -> None:
    client = opened().client
    for origin in ("http://evil.example", "null", f"http://evil.example:{client.port}"):
        answer = client.ask("POST", path, b"{}", Origin=origin)
        assert (answer.status, answer.json["error"]) == (403, "foreign-origin"), origin
    rebound = client.ask(
        "POST", path, b"{}", Origin=f"http://robot.example:{client.port}", Host=f"robot.example:{client.port}"
    )
    assert rebound.status == 403, "a name that was pointed at this machine"
    assert client.ask("POST", path, b"{}", Sec_Fetch_Site="cross-site").status == 403
    assert paper.done == []


def test_without_a_key_the_own_page_may_act(opened: Open, paper: PaperRobot) -> None:
    client = opened().client
    for host in (f"127.0.0.1:{client.port}", f"localhost:{client.port}", f"[::1]:{client.port}"):
        assert client.ask("POST", "/stop", Origin=f"http://{host}", Host=host).status == 200, host


@pytest.mark.parametrize("path", ["/events", "/config", "/policies", "/guard/status"])
def test_without_a_key_no_borrowed_name_may_look(opened: Open, path: str) -> None:
    client = opened().client
    for host in ("robot.example", f"evil.example:{client.port}", "127.0.0.1.evil.example"):
        for method in ("GET", "HEAD"):
            assert client.ask(method, path, Host=host).status == 403, host
        assert client.get(path, Host=host).json["error"] == "foreign-host"


def test_what_holds_no_data_may_be_asked_by_any_name(opened: Open) -> None:
    client = opened().client
    for path in ("/", "/page/page.js", "/health", "/metrics"):
        assert client.get(path, Host="robot.example").status == 200, path


def test_without_a_key_no_other_site_takes_a_place(opened: Open) -> None:
    server = opened()
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"User-Agent": "Mozilla/5.0"},
    ):
        refused = [Events(server.sidecar.port, **headers) for _ in range(MOST_CLIENTS)]
        assert {one.status for one in refused} == {403}, headers
        for one in refused:
            one.close()
    assert hub_of(server).clients == 0
    events = Events(server.sidecar.port, **{"Sec-Fetch-Site": "same-origin"})
    assert events.next()["state"] == "ready"
    events.close()


ACTS = ("/resume", "/guard/reset", "/breaker/reset", "/policies", "/instruction", "/episodes")


@pytest.mark.parametrize("path", ACTS)
def test_where_others_can_reach_it_without_a_key_only_a_stop_acts(
    opened: Open, paper: PaperRobot, path: str
) -> None:
    client = opened(host="0.0.0.0", insecure=True).client
    answer = client.ask("POST", path, b"{}")
    assert (answer.status, answer.json["error"]) == (403, "key-needed")
    assert client.ask("POST", "/stop").json["stopped"] is True
    assert client.act(state=list(AT_REST)).status == 200
    assert client.get("/policies").status == 200
    assert paper.done == ["stop"]


@pytest.mark.parametrize("way", ["loopback", "key"])
def test_on_its_own_machine_and_with_the_key_everything_acts(
    opened: Open, paper: PaperRobot, way: str
) -> None:
    server = opened(KEY, host="0.0.0.0") if way == "key" else opened(insecure=True)
    bearer = {"Authorization": f"Bearer {KEY}"} if way == "key" else {}
    for path in ACTS:
        answer = server.client.ask("POST", path, b"{}", **bearer)
        assert answer.status not in (401, 403), (path, answer.json)
    assert paper.done == ["resume", "episode"]
    events = Events(server.sidecar.port, **bearer)
    assert events.next()["only_stop"] is False
    events.close()


def test_the_page_shows_that_only_a_stop_acts(opened: Open) -> None:
    events = Events(opened(host="0.0.0.0", insecure=True).sidecar.port)
    assert events.next()["only_stop"] is True
    events.close()


@pytest.mark.parametrize("key", ["", KEY])
def test_why_loading_failed_is_shown_to_who_holds_the_key(opened: Open, tmp_path: Path, key: str) -> None:
    server = opened(key)
    gone = str(tmp_path / "gone")
    with pytest.raises(ReflexError, match="no such export"):
        server.engine.load(replace(server.engine.settings, export_dir=gone))
    events = Events(server.sidecar.port, Authorization=f"Bearer {key}")
    event = events.next()
    events.close()
    assert event["summary"]["word"] == "FAILED"
    public = server.client.get("/health").json["reason"]
    assert (gone in event["summary"]["sentence"]) == bool(key)
    assert (event["summary"]["sentence"] == public) == (not key)


def test_with_a_key_any_name_may_be_used(opened: Open) -> None:
    server = opened(key=KEY)
    events = Events(server.sidecar.port, Authorization=f"Bearer {KEY}", Host="robot.example")
    assert events.next()["state"] == "ready"
    events.close()


def test_programs_may_ask_by_any_name(opened: Open) -> None:
    """`--cloud-fallback http://cloud:8000` does: only a browser can be made to send requests for another site."""
    client = opened().client
    body = json.dumps(good(state=AT_REST)).encode()
    assert client.ask("POST", "/act", body, Host="cloud:8000").status == 200
    foreign = client.ask("POST", "/act", body, Host="evil.example", Origin="http://evil.example")
    assert (foreign.status, foreign.json["error"]) == (403, "foreign-origin")
