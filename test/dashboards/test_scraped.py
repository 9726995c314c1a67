# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus with our scrape file and rules asks a real robot: labels, every dashboard query, an alert."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from asking import act
from boards import queries, resolved
from monitoring import Prometheus, prometheus_of
from servers import Server

from reflex_core.robot.limits.safety_config import DEFAULT_MAX_CONSECUTIVE_CLAMPS

FILLED = (
    "up", "act_latency", "server_up", "guard_tripped", "breaker_state", "denoise_steps", "late_answers",
)  # fmt: skip
PICKED = {"$robot_id": "arm-7", "$instance": ".+", "$cell": ".+"}


@pytest.fixture
def robot(serve: Callable[..., Server]) -> Server:
    return serve("wide", robot_id="arm-7")


@pytest.fixture
def watcher(robot: Server, tmp_path: Path) -> Iterator[Prometheus]:
    with prometheus_of({"arm-7": robot.sidecar.port}, tmp_path) as started:
        yield started


def dashboards_answer(watcher: Prometheus) -> set[str]:
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
    robot: Server, watcher: Prometheus
) -> None:
    [info] = watcher.wait_for("reflex_robot_info")
    assert info["metric"]["robot_id"] == "arm-7"
    assert "exported_robot_id" not in info["metric"]
    assert watcher.ask('ALERTS{alertstate="firing"}') == []

    assert act(robot.client).status == 200
    watcher.wait_for("reflex_act_latency_seconds_count > 0")
    assert act(robot.client).status == 200
    watcher.wait_for("rate(reflex_act_latency_seconds_count[5m]) > 0")
    watcher.wait_for("reflex:late_answers:ratio_rate1h >= 0")
    shown = dashboards_answer(watcher)
    for metric in FILLED:
        assert [expression for expression in shown if metric in expression], metric

    for _ in range(DEFAULT_MAX_CONSECUTIVE_CLAMPS):
        assert act(robot.client).status == 200
    [alert] = watcher.wait_for('ALERTS{alertname="ReflexGuardTripped",alertstate="firing"}')
    assert alert["metric"]["robot_id"] == "arm-7"

    robot.sidecar.stop()
    [down] = watcher.wait_for('up{robot_id="arm-7"} == 0')
    assert down["metric"]["job"] == "reflex"
