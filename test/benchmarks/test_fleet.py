# SPDX-License-Identifier: Apache-2.0
"""The simulated fleet: what it computes, and a short run with real servers behind the real HAProxy."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from benchmarks.fleet import LOST_S, QUIET, UPDATED, Network, extrapolated, main


def test_a_message_takes_the_delay_and_a_lost_one_the_time_of_sending_it_again() -> None:
    chance = random.Random(0)
    times = [Network(0.005, 0.0, 0.5).crossing_s(chance) for _ in range(100)]
    assert set(times) == {0.005, 0.005 + LOST_S}
    assert Network(0.0, 0.01, 0.0).crossing_s(chance) < 0.01


def test_a_fleet_is_computed_from_what_a_request_costs() -> None:
    cost = {"server CPU ms": 12.0, "HAProxy CPU ms": 0.12, "KB sent": 20.0, "KB received": 5.0}
    found = extrapolated(cost, 10_000, 1.0, 0.04)
    assert (found["requests/s"], found["servers of 8 cores"]) == (10_000, 25)
    names = ("cores of servers", "Gbit/s in", "Gbit/s out", "robots per core")
    assert [found[name] for name in names] == pytest.approx([200.0, 1.6, 0.4, 50.0])
    assert found["per 1,000 robot-hours"] == pytest.approx(202 * 0.04 / 10)


@pytest.mark.slow
def test_a_short_run_loses_nothing_in_quiet_and_in_an_update(tmp_path: Path) -> None:
    output = tmp_path / "fleet.json"
    assert main(["--robots", "3", "--servers", "2", "--seconds", "2", "--output", str(output)]) == 0
    phases = {row["phase"]: row for row in json.loads(output.read_text())["phases"]}
    assert {phases[name]["failed"] for name in (QUIET, UPDATED)} == {0}
    assert phases[UPDATED]["moved"] > 0
