# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus with our scrape file and rules asks a real robot: labels, every dashboard query, an alert."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from asking import act
from boards import queries, resolved
from debian_tools import prometheus
from http_client import wait_for
from rules import DASHBOARDS
from servers import Server

from reflex_core.robot.limits.safety_config import DEFAULT_MAX_CONSECUTIVE_CLAMPS

IN_A_HURRY = {
    "scrape_interval: 5s": "scrape_interval: 200ms",
    "evaluation_interval: 15s": "evaluation_interval: 200ms",
}
FILLED = (
    "up", "act_latency", "server_up", "guard_tripped", "breaker_state", "denoise_steps", "late_answers",
)  # fmt: skip
PICKED = {"$robot_id": "arm-7", "$instance": ".+"}


@dataclass(frozen=True)
class Watcher:
    """A Prometheus on a free port of loopback."""

    url: str

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; raises what Prometheus says against it."""
        try:
            with urlopen(f"{self.url}/api/v1/query?{urlencode({'query': expression})}", timeout=10) as answer:
                return list(json.load(answer)["data"]["result"])
        except HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error

    def is_up(self) -> bool:
        try:
            with urlopen(f"{self.url}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except URLError:
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quick(text: str) -> str:
    for slow, fast in (*IN_A_HURRY.items(), ("interval: 15s", "interval: 200ms")):
        text = text.replace(slow, fast)
    return text


@pytest.fixture
def robot(serve: Callable[..., Server]) -> Server:
    return serve("wide", robot_id="arm-7")


@pytest.fixture
def watcher(robot: Server, tmp_path: Path) -> Iterator[Watcher]:
    for name in ("prometheus.yml", "alerts.yml"):
        (tmp_path / name).write_text(quick((DASHBOARDS / name).read_text(encoding="utf-8")), encoding="utf-8")
    target = {"targets": [f"127.0.0.1:{robot.sidecar.port}"], "labels": {"robot_id": "arm-7"}}
    (tmp_path / "robots.yml").write_text(json.dumps([target]), encoding="utf-8")
    port = free_port()
    command = [
        prometheus(), f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    log = (tmp_path / "log").open("w", encoding="utf-8")
    with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        found = Watcher(f"http://127.0.0.1:{port}")
        try:
            wait_for(lambda: found.is_up() and found.ask('up{robot_id="arm-7"} == 1'))
            yield found
        finally:
            process.terminate()


def wait_for_samples(watcher: Watcher, expression: str) -> list[dict[str, Any]]:
    wait_for(lambda: watcher.ask(expression))
    return watcher.ask(expression)


def dashboards_answer(watcher: Watcher) -> set[str]:
    """The dashboard queries that have something to show; one that Prometheus cannot answer fails."""
    shown = set()
    for expression in {*queries("fleet"), *queries("robot")}:
        query = resolved(expression)
        for variable, value in PICKED.items():
            query = query.replace(variable, value)
        if watcher.ask(query):
            shown.add(expression)
    return shown


def test_a_robot_is_seen_under_its_name_fills_the_dashboards_and_alerts_when_its_guard_trips_and_when_it_is_gone(
    robot: Server, watcher: Watcher
) -> None:
    [info] = wait_for_samples(watcher, "reflex_robot_info")
    assert info["metric"]["robot_id"] == "arm-7"
    assert "exported_robot_id" not in info["metric"]
    assert watcher.ask('ALERTS{alertstate="firing"}') == []

    assert act(robot.client).status == 200
    wait_for_samples(watcher, "reflex_act_latency_seconds_count > 0")
    assert act(robot.client).status == 200
    wait_for_samples(watcher, "rate(reflex_act_latency_seconds_count[5m]) > 0")
    wait_for_samples(watcher, "reflex:late_answers:ratio_rate1h >= 0")
    shown = dashboards_answer(watcher)
    for metric in FILLED:
        assert [expression for expression in shown if metric in expression], metric

    for _ in range(DEFAULT_MAX_CONSECUTIVE_CLAMPS):
        assert act(robot.client).status == 200
    [alert] = wait_for_samples(watcher, 'ALERTS{alertname="ReflexGuardTripped",alertstate="firing"}')
    assert alert["metric"]["robot_id"] == "arm-7"

    robot.sidecar.stop()
    [down] = wait_for_samples(watcher, 'up{robot_id="arm-7"} == 0')
    assert down["metric"]["job"] == "reflex"
