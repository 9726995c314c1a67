# SPDX-License-Identifier: Apache-2.0
"""deploy/fleet.py: one list of robots makes the targets of Prometheus, keys, and the robots of a cell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from debian_tools import promtool
from repository import ROOT

from reflex_core.errors import ConfigurationError
from reflex_ros.fleet.servers import read_servers

LIST = ROOT / "deploy" / "fleet.csv"
HEAD = "robot_id,cell,address\n"


def fleet(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(ROOT / "deploy" / "fleet.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_two_hundred_robots_become_targets_that_prometheus_reads(tmp_path: Path) -> None:
    rows = [f"arm-{n:03},{'north' if n <= 100 else 'south'},arm-{n:03}.local:8000\n" for n in range(1, 201)]
    (tmp_path / "fleet.csv").write_text(HEAD + "# two halls\n" + "".join(rows))
    done = fleet(tmp_path / "fleet.csv", "--targets", tmp_path / "robots.yml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = yaml.safe_load((tmp_path / "robots.yml").read_text())
    assert len(found) == 200
    assert found[199] == {
        "targets": ["arm-200.local:8000"],
        "labels": {"cell": "south", "robot_id": "arm-200"},
    }
    for name in ("prometheus.yml", "alerts.yml"):
        (tmp_path / name).write_text((ROOT / "dashboards" / name).read_text())
    subprocess.run([promtool(), "check", "config", str(tmp_path / "prometheus.yml")], check=True, timeout=60)


def test_a_robot_that_is_reached_by_https_is_scraped_so(tmp_path: Path) -> None:
    (tmp_path / "fleet.csv").write_text(HEAD + "arm-1,north,https://arm-1.local:8443\n")
    assert fleet(tmp_path / "fleet.csv", "--targets", tmp_path / "robots.yml").returncode == 0
    [found] = yaml.safe_load((tmp_path / "robots.yml").read_text())
    assert found["targets"] == ["arm-1.local:8443"]
    assert found["labels"]["__scheme__"] == "https"


@pytest.mark.parametrize(
    "line",
    [
        "arm-1,north,a:8000",
        "arm-1,north,https://a:8443",
        "arm-1,north,ftp://a:1",
        "arm-1,north,a:0",
        "-a,north,a:1",
        "a,b",
    ],
)
def test_a_list_is_read_as_reflex_fleet_reads_it(line: str, tmp_path: Path) -> None:
    (tmp_path / "fleet.csv").write_text(f"{HEAD}{line}\n")
    try:
        read = bool(read_servers(tmp_path / "fleet.csv"))
    except ConfigurationError:
        read = False
    assert (fleet(tmp_path / "fleet.csv").returncode == 0) == read


def test_the_robots_of_a_cell_are_lines_for_a_shell(tmp_path: Path) -> None:
    done = fleet(LIST, "--cell", "north")
    assert done.stdout.splitlines() == ["arm-001 arm-001.local:8000", "arm-002 arm-002.local:8000"]
    assert len(fleet(LIST).stdout.splitlines()) == 3


def test_keys_are_made_once_and_are_the_owners_alone(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert fleet(LIST, "--keys", keys).returncode == 0
    first = {path.name: path.read_text() for path in keys.iterdir()}
    assert set(first) == {"arm-001", "arm-002", "arm-003"}
    assert len(set(first.values())) == 3
    assert all(len(key.strip()) >= 40 for key in first.values())
    assert {path.stat().st_mode & 0o777 for path in (keys, *keys.iterdir())} == {0o700, 0o600}
    assert fleet(LIST, "--keys", keys).stderr == f"{keys}: 0 new keys\n"
    assert {path.name: path.read_text() for path in keys.iterdir()} == first


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the first line must be robot_id,cell,address"),
        (HEAD + "arm-1,north\n", ":2: expected 3 columns, got 2"),
        (HEAD + "../arm,north,a:8000\n", ":2: robot_id '../arm': expected letters"),
        (HEAD + 'arm-1,"north""} or up{",a:8000\n', ":2: cell 'north\"} or up{': expected letters"),
        (HEAD + "arm-1,north,arm-1.local\n", "expected HOST:PORT such as"),
        (HEAD + "arm-1,north,arm-1.local:70000\n", "expected HOST:PORT such as"),
        (HEAD + "arm-1,north,a:8000\narm-1,north,b:8000\n", "arm-1 stands there 2 times"),
        (HEAD + "arm-1,north,a:8000\narm-2,north,a:8000\n", "a:8000 stands there 2 times"),
    ],
)
def test_a_list_that_is_wrong_is_one_sentence_and_changes_nothing(
    text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "fleet.csv").write_text(text)
    (tmp_path / "robots.yml").write_text("as it was")
    done = fleet(tmp_path / "fleet.csv", "--targets", tmp_path / "robots.yml")
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "robots.yml").read_text() == "as it was"


def test_a_cell_that_is_not_in_the_list_is_refused_with_those_that_are() -> None:
    done = fleet(LIST, "--cell", "nroth")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there are north, south" in done.stderr
