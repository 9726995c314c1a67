# SPDX-License-Identifier: Apache-2.0
"""POST /instruction and /episodes while the node is busy with another one: what was refused is never done later."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from http_client import Answer, Client, wait_for
from page_world import PaperRobot
from servers import MakeEngine

from reflex_ros.sidecar import app as sidecar_app
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
