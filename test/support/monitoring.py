# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus and a real Alertmanager with the files that are shipped, on free ports of loopback, in a hurry."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from debian_tools import alertmanager, prometheus
from http_client import wait_for
from rules import DASHBOARDS

# Scrapes and rules every 0.2 s; how long an alert lasts before it fires stays as it is, where a test does not shorten it.
HURRY = {
    r"(scrape_interval|evaluation_interval): \w+": r"\1: 200ms",
    r"^    interval: \w+": "    interval: 200ms",
}
MANAGER_HURRY = {r"(group_wait|group_interval): \w+": r"\1: 200ms"}
MANAGER_ADDRESS = "127.0.0.1:9093"


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that runs."""

    url: str

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; raises with the message of Prometheus when it refuses."""
        try:
            with urlopen(f"{self.url}/api/v1/query?{urlencode({'query': expression})}", timeout=10) as answer:
                return list(json.load(answer)["data"]["result"])
        except HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error

    def wait_for(self, expression: str) -> list[dict[str, Any]]:
        """The samples of a query, once it has some."""
        wait_for(lambda: self.ask(expression))
        return self.ask(expression)


@dataclass(frozen=True)
class Alertmanager:
    """An Alertmanager that runs."""

    address: str

    def alerts(self, **matchers: str) -> list[dict[str, Any]]:
        """The alerts that it has and that carry these labels."""
        with urlopen(f"http://{self.address}/api/v2/alerts", timeout=10) as answer:
            return [alert for alert in json.load(answer) if matchers.items() <= alert["labels"].items()]

    def is_silenced(self, **matchers: str) -> bool:
        """Whether it has such an alert, and sends none of them because of another alert."""
        found = self.alerts(**matchers)
        return bool(found) and all(alert["status"]["inhibitedBy"] for alert in found)


def free_port() -> int:
    """A TCP port of loopback that no program listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def prometheus_of(
    robots: Mapping[str, int],
    folder: Path,
    *,
    manager: str = MANAGER_ADDRESS,
    also: Mapping[str, str] = {},
) -> Iterator[Prometheus]:
    """Prometheus with our files, asking robots (name to port of loopback), sending alerts to `manager`.

    also: patterns to replace in the scrape file and in the rules.
    """
    changes = HURRY | {re.escape(MANAGER_ADDRESS): manager} | dict(also)
    for name in ("prometheus.yml", "alerts.yml"):
        shipped = (DASHBOARDS / name).read_text(encoding="utf-8")
        (folder / name).write_text(changed(shipped, changes), encoding="utf-8")
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"robot_id": name, "cell": "north"}}
        for name, port in robots.items()
    ]
    (folder / "robots.yml").write_text(json.dumps(targets), encoding="utf-8")
    port = free_port()
    command = [
        prometheus(), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with running(command, folder / "prometheus.log", f"{url}/-/ready"):
        started = Prometheus(url)
        for name in robots:
            started.wait_for(f'up{{robot_id="{name}"}} == 1')
        yield started


@contextmanager
def alertmanager_sending_to(url: str, folder: Path) -> Iterator[Alertmanager]:
    """Alertmanager with our file, its example webhooks filled in with an address, without a wait for more alerts."""
    shipped = (DASHBOARDS / "alertmanager.yml").read_text(encoding="utf-8")
    text = changed(filled_in(shipped, "webhook"), MANAGER_HURRY).replace("https://alerts.example.com", url)
    (folder / "alertmanager.yml").write_text(text, encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    program, directory = alertmanager(folder)
    command = [
        program, f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}", "--cluster.listen-address=", "--log.level=warn",
    ]  # fmt: skip
    with running(command, folder / "alertmanager.log", f"http://{address}/-/ready", directory):
        yield Alertmanager(address)


def filled_in(text: str, kind: str) -> str:
    """alertmanager.yml as it is after the example of each receiver (webhook, email) was uncommented."""
    return re.sub(rf"^(\s+)# ({kind}_configs: )", r"\1\2", text, flags=re.MULTILINE)


def changed(text: str, patterns: Mapping[str, str]) -> str:
    """The text after each pattern was replaced; one that matches nothing anywhere changes nothing."""
    for pattern, replacement in patterns.items():
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


@contextmanager
def running(command: Sequence[str], log: Path, ready: str, directory: Path | None = None) -> Iterator[None]:
    """Run a program (in a directory) until this is left; entered once GET `ready` answers 200."""

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        try:
            with urlopen(ready, timeout=10) as answer:
                return bool(answer.status == 200)
        except URLError:
            return False

    output = log.open("w", encoding="utf-8")
    with output, subprocess.Popen(command, cwd=directory, stdout=output, stderr=output) as process:
        try:
            wait_for(is_ready)
            yield
        finally:
            process.terminate()
