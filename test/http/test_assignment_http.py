# SPDX-License-Identifier: Apache-2.0
"""POST /instruction and /episodes while the node is busy with another one: what was refused is never done later."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from http_client import Answer, Client, wait_for
from page_world import PaperRobot
from servers import MakeEngine

from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.sidecar import app as sidecar_app
from reflex_ros.sidecar import assignment_routes
from reflex_ros.sidecar.server import Sidecar


@pytest.fixture
def paper() -> PaperRobot:
    return PaperRobot()


@pytest.fixture
def client(make_engine: MakeEngine, paper: PaperRobot) -> Iterator[Client]:
    engine = make_engine("calm", port=0, embodiment="franka")
    sidecar = Sidecar(engine, engine.settings, paper.robot())
    sidecar.start()
    yield Client(sidecar.port)
    sidecar.stop()


def test_what_is_refused_because_the_node_is_busy_is_not_done_later_and_a_stop_waits_for_nothing(
    client: Client, paper: PaperRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar_app, "ASSIGN_TURN_S", 0.1)
    first: list[Answer] = []
    paper.may_begin.clear()
    begins = threading.Thread(target=lambda: first.append(client.ask("POST", "/episodes")))
    begins.start()
    wait_for(lambda: paper.begins)
    late = client.ask("POST", "/instruction", b'{"instruction": "reach the blue cube"}')
    assert (late.status, late.json["error"]) == (503, "not-answered")
    assert client.ask("POST", "/stop").status == 200
    paper.may_begin.set()
    begins.join()
    assert first[0].status == 200
    assert client.ask("POST", "/instruction", b'{"instruction": "reach the red cube"}').status == 200
    assert paper.done == ["stop", "episode", "instruct"]
    assert paper.snapshot.instruction == "reach the red cube"


def test_a_client_that_posts_without_end_costs_a_line_a_second_and_loses_no_instruction(
    client: Client, paper: PaperRobot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = [0.0]
    monkeypatch.setattr(
        assignment_routes, "_line", RateLimitedLog(assignment_routes.log, 1.0, lambda: now_s[0])
    )
    with caplog.at_level(logging.WARNING, "reflex_ros.sidecar.assignment_routes"):
        for number in range(50):
            body = b'{"instruction": "reach cube %d"}' % number
            assert client.ask("POST", "/instruction", body).status == 200
        now_s[0] = 1.0
        client.ask("POST", "/instruction", b'{"instruction": "reach the red cube"}')
    lines = [record.getMessage() for record in caplog.records if "over HTTP" in record.getMessage()]
    assert ["'reach cube 0'" in lines[0], "49 more like it" in lines[1], len(lines)] == [True, True, 2]
    assert paper.done == ["instruct"] * 51
