# SPDX-License-Identifier: Apache-2.0
"""deploy/ray with the real Ray Serve, in the environment of `make test-clients`: stickiness, refusals, a replica that dies."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from http_client import Answer, Client
from repository import ROOT
from robots_at_work import body, go_on, robots_at_work

from benchmarks.ray_serve import ray_serve, replicas

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with ray_serve(2, tmp_path_factory.mktemp("ray")) as port:
        yield Client(port)
    assert replicas() == [], "a replica is left after Ray Serve has ended"


def acted(client: Client, session: str, **fields: object) -> Answer:
    return client.ask("POST", "/act", body(**fields), x_session_id=session)


def engine_of(answer: Answer) -> str:
    """The engine that answered: its ids begin alike."""
    assert answer.status == 200, answer.body
    return str(answer.json["request_id"]).rpartition("-")[0]


def test_the_deployment_needs_nothing_of_this_package_but_itself() -> None:
    """Ray is no dependency of ours."""
    for file in ("pyproject.toml", "package.xml", "setup.py"):
        assert "ray" not in [word.strip('",[]') for word in (ROOT / file).read_text().split()]


def test_twenty_episodes_stay_each_on_one_replica(client: Client) -> None:
    found = [{engine_of(acted(client, f"run-{n}")) for _ in range(3)} for n in range(20)]
    assert [engines for engines in found if len(engines) != 1] == []
    assert len(Counter(next(iter(engines)) for engines in found)) == 2


def test_header_and_refusals_are_those_of_the_sidecar(client: Client) -> None:
    answer = acted(client, "run-7")
    assert (answer.json["episode_id"], answer.headers["x-session-id"]) == ("run-7", "run-7")
    other = acted(client, "run-7", episode_id="run-8")
    assert (other.status, other.json["error"]) == (422, "session-mismatch")
    assert client.ask("POST", "/act", b"no JSON").json["error"] == "malformed-json"
    assert (client.get("/health").json["status"], client.get("/metrics").status) == ("ok", 404)
    assert client.ask("POST", "/policies", json.dumps({"split": 1}).encode()).status == 404


def test_a_replica_that_is_killed_loses_at_most_what_was_in_flight(client: Client) -> None:
    with robots_at_work(client.port) as robots:
        os.kill(replicas()[0], signal.SIGKILL)
        go_on(robots, 10)
    failed = [failure for robot in robots for failure in robot.failed]
    assert len(failed) <= len(robots), failed
    assert max(len(robot.failed) for robot in robots) <= 2
