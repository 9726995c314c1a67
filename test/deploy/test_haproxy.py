# SPDX-License-Identifier: Apache-2.0
"""deploy/haproxy.cfg with the real HAProxy in front of real servers: who answers whom, and what is lost when one ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from http_client import Answer, Client
from robots_at_work import body, go_on, robots_at_work
from wires import libero, packed, unpacked
from ws_client import connected

from benchmarks.balanced import CONFIGURATION, Fleet, fleet, haproxy
from reflex_ros.sidecar.wires.table import ROUTES

ROBOTS = 6


@pytest.fixture(scope="module")
def behind() -> Iterator[Fleet]:
    """Two servers and a balancer for all tests of this file; each test leaves both up."""
    with fleet(2) as found:
        yield found


@pytest.fixture
def client(behind: Fleet) -> Client:
    for server in behind.servers:
        behind.wait_for_state(server.name, "UP")
    return Client(behind.port)


def acted(client: Client, session: str, **fields: Any) -> Answer:
    return client.ask("POST", "/act", body(**fields), x_session_id=session)


def server_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return str(answer.json["robot_id"])


def check(text: str, tmp_path: Any) -> subprocess.CompletedProcess[str]:
    (tmp_path / "haproxy.cfg").write_text(text)
    program, variables = haproxy()
    return subprocess.run(
        [program, "-c", "-f", str(tmp_path / "haproxy.cfg")],
        env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_shipped_configuration_is_valid_without_a_warning(tmp_path: Any) -> None:
    done = check(CONFIGURATION.read_text(), tmp_path)
    assert (done.returncode, "WARNING" in done.stdout + done.stderr) == (0, False), done.stderr
    assert check(CONFIGURATION.read_text().replace("balance hash", "balance hsah"), tmp_path).returncode == 1


def test_the_lines_for_kubernetes_are_valid(tmp_path: Any) -> None:
    page = (CONFIGURATION.parents[1] / "docs" / "how-to" / "scale-out.md").read_text()
    [block] = re.findall(r"^```ini\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    resolvers, _, server = block.partition("backend act\n")
    text = CONFIGURATION.read_text().replace("    server r1 10.0.0.11:8000 id 1 check\n", server, 1)
    done = check(f"{text}\n{resolvers}", tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_route_of_a_wire_is_let_through() -> None:
    text = CONFIGURATION.read_text()
    assert [route for route in ROUTES if f"{{ path {route} }}" not in text] == []


def test_twenty_episodes_stay_each_on_one_server(client: Client) -> None:
    found = {f"run-{n}": {server_of(acted(client, f"run-{n}")) for _ in range(3)} for n in range(20)}
    assert [session for session, servers in found.items() if len(servers) != 1] == []
    spread = Counter(next(iter(servers)) for servers in found.values())
    assert sorted(spread) == ["r1", "r2"]
    assert min(spread.values()) >= 4


def test_requests_without_a_session_go_by_the_address(client: Client) -> None:
    assert len({server_of(client.ask("POST", "/act", body())) for _ in range(6)}) == 1


def test_the_outcome_of_an_episode_finds_its_server_without_the_header(client: Client, behind: Fleet) -> None:
    for n in range(6):
        session = f"end of {n}"
        where = server_of(acted(client, session))
        path = f"/episodes/{session.replace(' ', '%20')}/outcome"
        assert client.ask("POST", path, json.dumps({"success": True}).encode()).status == 200
        there = next(server for server in behind.servers if server.name == where)
        counted = Client(there.port).get("/metrics").body.decode()
        [number] = re.findall(
            r'^reflex_episode_outcomes_total\{.*success="true"\} (\S+)', counted, re.MULTILINE
        )
        assert float(number) >= 1


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/policies"), ("POST", "/guard/reset"), ("POST", "/stop"), ("GET", "/metrics"), ("GET", "/")],
)
def test_what_acts_on_one_server_is_refused_by_the_balancer(client: Client, method: str, path: str) -> None:
    assert client.ask(method, path, b"{}" if method == "POST" else None).status == 403


def test_health_and_configuration_of_a_server_can_be_read_through_the_balancer(client: Client) -> None:
    assert client.get("/health").json["status"] == "ok"
    assert client.get("/config").status == 200


@pytest.mark.parametrize("headers", [{}, {"x_session_id": "arm-3"}])
def test_a_websocket_passes_and_its_episode_goes_on(behind: Fleet, headers: dict[str, str]) -> None:
    with connected(behind.port, **headers) as socket:
        assert unpacked(socket.receive())
        for _ in range(3):
            socket.send(packed(libero()))
            reply = unpacked(socket.receive())
            assert len(reply["actions"]) > 0


def back(found: Fleet, name: str) -> None:
    server = next(server for server in found.servers if server.name == name)
    server.start()
    server.wait_until_ready()
    found.wait_for_state(name, "UP")


@pytest.mark.usefixtures("client")
def test_a_server_that_is_ended_under_load_loses_no_request(behind: Fleet) -> None:
    with robots_at_work(behind.port) as robots:
        behind.servers[0].terminate()
        go_on(robots)
        assert {robot.answers[-1][1] for robot in robots} == {"r2"}
        back(behind, "r1")
        go_on(robots)
    assert [robot.failed for robot in robots if robot.failed] == []
    servers = {robot.session: [server for _, server, _ in robot.answers] for robot in robots}
    assert {robot.answers[-1][1] for robot in robots} == {"r1", "r2"}
    assert [session for session, found in servers.items() if found[0] != found[-1]] == []


@pytest.mark.usefixtures("client")
def test_a_server_that_is_killed_loses_no_request_that_fits_into_a_buffer(behind: Fleet) -> None:
    with robots_at_work(behind.port) as robots:
        before = {robot.session: robot.answers[-1][1] for robot in robots}
        behind.servers[0].kill()
        go_on(robots)
        behind.wait_for_state("r1", "DOWN")
        go_on(robots)
    for robot in robots:
        assert robot.failed == []
        assert robot.answers[-1][1] == "r2"
        moved = [reason for _, _, reason in robot.answers if reason == "moved"]
        assert len(moved) == int(before[robot.session] == "r1")
    assert "r1" in before.values()
    back(behind, "r1")


@pytest.mark.usefixtures("client")
def test_where_no_server_is_ready_the_refusal_is_one_that_clients_read(behind: Fleet) -> None:
    for server in behind.servers:
        server.kill()
    try:
        refused = acted(Client(behind.port), "nobody")
        assert (refused.status, refused.json["error"]) == (503, "not-ready")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["content-type"] == "application/json"
    finally:
        for server in behind.servers:
            back(behind, server.name)


@pytest.mark.usefixtures("client")
def test_a_rolling_update_loses_no_request(behind: Fleet) -> None:
    with robots_at_work(behind.port) as robots:
        for server in behind.servers:
            behind.update(server)
            go_on(robots)
    assert [robot.failed for robot in robots if robot.failed] == []
