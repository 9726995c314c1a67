# SPDX-License-Identifier: Apache-2.0
"""A browser, a robot on paper, a server and an open page: fixtures of the tests of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from http_client import Client
from page_world import PaperRobot, Serving
from servers import MakeEngine, Server

from benchmarks.chromium import Browser, Page, browser
from reflex_ros.sidecar.robot_access import RobotSnapshot
from reflex_ros.sidecar.server import Sidecar


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture
def paper() -> PaperRobot:
    return PaperRobot(RobotSnapshot("active", chunks=1, instruction="reach the red cube", episode_id="ep_1"))


@pytest.fixture
def serving(make_engine: MakeEngine, paper: PaperRobot, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """`serving(key="...")`: a calm policy behind a sidecar with the paper robot; `robot=False` leaves that out."""
    sidecars: list[Sidecar] = []

    def start(key: str = "", *, robot: bool = True, **settings: Any) -> Server:
        if key:
            monkeypatch.setenv("REFLEX_API_KEY", key)
        engine = make_engine("calm", **{"port": 0, "embodiment": "franka", "robot_id": "arm7"} | settings)
        sidecar = Sidecar(engine, engine.settings, paper.robot() if robot else None)
        sidecar.start()
        sidecars.append(sidecar)
        return Server(engine, sidecar, Client(sidecar.port))

    yield start
    for sidecar in sidecars:
        sidecar.stop()


@pytest.fixture
def look_at(chromium: Browser) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def opened(server: Server, width: int = 1280, height: int = 900, url: str = "", **more: Any) -> Page:
        pages.append(chromium.open(url or server.sidecar.url, width, height, **more))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()
