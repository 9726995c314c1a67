# SPDX-License-Identifier: Apache-2.0
"""Alerts reach a person: routes as amtool reads them, and a real sidecar, Prometheus and Alertmanager to a webhook."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from asking import act
from debian_tools import amtool
from http_client import wait_for
from monitoring import MANAGER_ADDRESS, alertmanager_sending_to, filled_in, prometheus_of
from repository import ROOT
from rules import DASHBOARDS, RULES
from servers import Server

from reflex_core.robot.limits.safety_config import DEFAULT_MAX_CONSECUTIVE_CLAMPS

FILE = DASHBOARDS / "alertmanager.yml"
CONFIG = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SEVERITY = {rule["alert"]: rule["labels"]["severity"] for rule in RULES if "alert" in rule}


def run_amtool(*arguments: str) -> str:
    done = subprocess.run(
        [amtool(), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_amtool_accepts_the_file_as_it_is_shipped() -> None:
    assert "2 receivers" in run_amtool("check-config", str(FILE))


@pytest.mark.parametrize("kind", ["webhook", "email"])
def test_amtool_accepts_the_file_once_a_person_filled_in_its_examples(kind: str, tmp_path: Path) -> None:
    text = filled_in(FILE.read_text(encoding="utf-8"), kind)
    receivers = yaml.safe_load(text)["receivers"]
    assert [len(receiver[f"{kind}_configs"]) for receiver in receivers] == [1, 1]
    (tmp_path / "alertmanager.yml").write_text(text, encoding="utf-8")
    run_amtool("check-config", str(tmp_path / "alertmanager.yml"))


@pytest.mark.parametrize("alert", SEVERITY)
def test_an_alert_is_routed_by_its_severity(alert: str) -> None:
    labels = [f"alertname={alert}", f"severity={SEVERITY[alert]}", "robot_id=arm-7", "cell=north"]
    assert run_amtool("config", "routes", "test", f"--config.file={FILE}", *labels).split() == [
        SEVERITY[alert]
    ]


def test_messages_are_grouped_by_robot_and_severity() -> None:
    assert CONFIG["route"]["group_by"] == ["robot_id", "severity"]
    assert all("group_by" not in route for route in CONFIG["route"]["routes"])


def test_a_rule_that_silences_names_alerts_that_exist() -> None:
    for rule in CONFIG["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            name, value = matcher.replace("!~", "=~").replace("=~", "=").split("=", 1)
            assert name == "alertname"
            if "Reflex.+" not in value:
                for alert in names(value.strip('"')):
                    assert any(alert in known for known in SEVERITY), alert


def names(pattern: str) -> list[str]:
    """The alternatives of a matcher like Reflex(A|B.+), as beginnings of names."""
    prefix, _, rest = pattern.partition("(")
    alternatives = rest.rstrip(")").split("|") if rest else prefix.split("|")
    return [(prefix if rest else "") + part.removesuffix(".+") for part in alternatives]


@dataclass
class Inbox:
    """What a webhook received: (path, message)."""

    url: str
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def named(self, path: str, alert: str, status: str) -> list[dict[str, Any]]:
        """The messages to a path in which an alert of that name is firing or resolved."""
        return [
            message
            for to, message in list(self.messages)
            if to == path
            and any(
                one["labels"]["alertname"] == alert and one["status"] == status for one in message["alerts"]
            )
        ]


@contextmanager
def webhook() -> Iterator[Inbox]:
    """A receiver of webhooks on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            inbox.messages.append((self.path, json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    inbox = Inbox(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield inbox
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_tripped_guard_and_then_a_robot_that_is_gone_reach_the_person_on_call(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    robot, other = serve("wide", robot_id="arm-7"), serve("wide", robot_id="arm-8")
    ports = {"arm-7": robot.sidecar.port, "arm-8": other.sidecar.port}
    with (
        webhook() as inbox,
        alertmanager_sending_to(inbox.url, tmp_path) as manager,
        prometheus_of(ports, tmp_path, manager=manager.address, also={r"for: \w+": "for: 1s"}) as watcher,
    ):
        for _ in range(DEFAULT_MAX_CONSECUTIVE_CLAMPS):
            assert act(robot.client).status == 200
        wait_for(lambda: inbox.named("/page", "ReflexGuardTripped", "firing"))
        [message] = inbox.named("/page", "ReflexGuardTripped", "firing")[:1]
        assert message["groupLabels"] == {"robot_id": "arm-7", "severity": "page"}
        assert "arm-7" in message["commonAnnotations"]["summary"]
        assert message["commonAnnotations"]["what_to_do"]

        robot.sidecar.stop()
        wait_for(lambda: inbox.named("/page", "ReflexRobotDown", "firing"))
        down = [
            alert
            for _, sent in inbox.messages
            for alert in sent["alerts"]
            if alert["labels"]["alertname"] == "ReflexRobotDown"
        ]
        assert {alert["labels"]["robot_id"] for alert in down} == {"arm-7"}, "the other robot answers"
        assert watcher.ask('up{robot_id="arm-8"}')[0]["value"][1] == "1"


def test_the_commands_of_the_fleet_page_check_the_file_and_silence_a_cell(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "fleet.md").read_text(encoding="utf-8")
    check, silence = re.findall(r"^amtool (.+)$", page, re.MULTILINE)
    assert "SUCCESS" in run_amtool(*shlex.split(check))
    with webhook() as inbox, alertmanager_sending_to(inbox.url, tmp_path) as manager:
        run_amtool(*shlex.split(silence.replace(MANAGER_ADDRESS, manager.address)))
        fire(
            manager.address,
            [("ReflexRobotDown", {"robot_id": "arm-7", "cell": cell}) for cell in ("north", "south")],
        )
        wait_for(lambda: inbox.named("/page", "ReflexRobotDown", "firing"))
        wait_for(
            lambda: manager.alerts(cell="north") and manager.alerts(cell="north")[0]["status"]["silencedBy"]
        )
        assert {one["labels"]["cell"] for _, sent in inbox.messages for one in sent["alerts"]} == {"south"}


def test_what_follows_from_another_alert_is_shown_and_not_sent(tmp_path: Path) -> None:
    """Alerts as Prometheus posts them, so that each rule is held against one robot that it is for and one that it is not for."""
    with webhook() as inbox, alertmanager_sending_to(inbox.url, tmp_path) as manager:
        here, there = (
            {"robot_id": "arm-7", "instance": "a:8000", "cell": "north"},
            {"robot_id": "arm-8", "instance": "b:8000", "cell": "south"},
        )
        causes = [
            ("ReflexRobotDown", here), ("ReflexNotServing", there), ("ReflexManyRobotsDown", {"cell": "west"}),
        ]  # fmt: skip
        followers = [
            ("ReflexGuardTripped", here), ("ReflexCamerasStale", here), ("ReflexLatencyHigh", there),
            ("ReflexRobotDown", {"robot_id": "arm-9", "instance": "c:8000", "cell": "west"}),
        ]  # fmt: skip
        unaffected = [
            ("ReflexGuardTripped", there), ("ReflexRobotDown", {"robot_id": "arm-1", "instance": "d:8000", "cell": "east"}),
        ]  # fmt: skip
        fire(manager.address, causes)
        for alert, labels in causes:
            wait_for(lambda a=alert, e=labels: manager.alerts(alertname=a, **e))
        fire(manager.address, followers + unaffected)
        for alert, labels in followers:
            wait_for(lambda a=alert, e=labels: manager.is_silenced(alertname=a, **e))
        for alert, _ in unaffected:
            wait_for(lambda a=alert: inbox.named("/page", a, "firing"))
        sent = {
            (one["labels"]["alertname"], one["labels"].get("robot_id", ""))
            for _, message in inbox.messages
            for one in message["alerts"]
        }
        assert sent & {(alert, labels["robot_id"]) for alert, labels in followers} == set()


def fire(address: str, alerts: list[tuple[str, dict[str, str]]]) -> None:
    """Hand alerts to an Alertmanager with amtool, one after the other."""
    for alert, labels in alerts:
        pairs = [f"{name}={value}" for name, value in {"severity": SEVERITY[alert], **labels}.items()]
        run_amtool("alert", "add", f"--alertmanager.url=http://{address}", alert, *pairs)
