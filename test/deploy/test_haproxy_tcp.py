# SPDX-License-Identifier: Apache-2.0
"""The TCP back ends of deploy/haproxy.cfg: clients of LeRobot (gRPC) and Isaac-GR00T (ZeroMQ) behind the real HAProxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from groot_client import GrootClient, nested
from http_client import STATE
from lerobot_client import LerobotClient, observation

from benchmarks.balanced import Fleet, Server, fleet


@pytest.fixture(scope="module")
def behind() -> Iterator[Fleet]:
    with fleet(2, tcp_wires=True) as found:
        yield found


def lerobot(behind: Fleet) -> int:
    """One chunk for a robot_client that has just connected; returns its rows."""
    with closing(LerobotClient(behind.lerobot_port)) as client:
        client.start()
        client.send(observation(STATE, must_go=True))
        return len(client.actions())


def groot(behind: Fleet) -> int:
    """The same for a client of Isaac-GR00T."""
    with closing(GrootClient(behind.groot_port)) as client:
        actions, _ = client.act(nested())
        return max(len(rows[0]) for rows in actions.values())


def connections(behind: Fleet, backend: str) -> dict[str, int]:
    """How many connections each server has had from this back end since the balancer began."""
    found = {}
    for line in behind.command("show stat").splitlines():
        cells = line.split(",")
        if cells[0] == backend and cells[1] in ("r1", "r2"):
            found[cells[1]] = int(cells[7])
    return found


@pytest.mark.parametrize(("backend", "chunk"), [("lerobot", lerobot), ("groot", groot)])
def test_a_robot_stays_on_one_server_and_leaves_it_for_the_other_when_it_is_killed(
    behind: Fleet, backend: str, chunk: Callable[[Fleet], int]
) -> None:
    for server in behind.servers:
        behind.wait_for_state(server.name, "UP")
    before = connections(behind, backend)
    assert [chunk(behind) > 0 for _ in range(4)] == [True] * 4
    taken = {name: count - before[name] for name, count in connections(behind, backend).items()}
    [home] = [name for name, count in taken.items() if count]
    other = next(name for name in taken if name != home)
    killed: Server = next(server for server in behind.servers if server.name == home)
    killed.kill()
    behind.wait_for_state(home, "DOWN")
    assert chunk(behind) > 0
    assert connections(behind, backend)[other] > before[other]
    killed.start()
    killed.wait_until_ready()
    behind.wait_for_state(home, "UP")
    at_home = connections(behind, backend)[home]
    assert chunk(behind) > 0
    assert connections(behind, backend)[home] > at_home
