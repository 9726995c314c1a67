# SPDX-License-Identifier: Apache-2.0
"""The benchmark of late chunks through the real node runs, and its chunks are as late as they are asked to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from domains import own_domain

from benchmarks import moving_target_node
from benchmarks.moving_target_node import Outcome, markdown

STEPS = 30


def test_chunks_come_late_through_the_node_and_every_row_is_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(own_domain()))
    monkeypatch.setattr(moving_target_node, "STEPS", STEPS)
    output = tmp_path / "found.json"
    words = ["--scenes", "1", "--delays", "0", "6", "--output", str(output)]
    assert moving_target_node.main(words) == 0
    rows = json.loads(output.read_text())["rows"]
    soon, late = rows
    assert (soon["delay"], late["delay"]) == (0, 6)
    assert soon["late_steps"] < 3
    assert 6 <= late["late_steps"] < 8
    assert late["chunks"] >= 3
    assert soon["chunks"] > late["chunks"]
    assert all(row["holds"] == 0 for row in rows)
    assert all(row["corrected"] > STEPS // 2 for row in rows)
    assert "| 6 | " in capsys.readouterr().out


def test_the_table_has_wilsons_interval_and_what_is_kept_of_the_success_without_delay() -> None:
    good, bad = Outcome(1, True, 0.03, 20, 0, 0.4, 100), Outcome(2, False, 0.05, 9, 1, 8.2, 90)
    table = markdown({0: [good] * 20, 8: [good] * 18 + [bad] * 2}).splitlines()
    assert table[2].startswith("| 0 | 20/20 | 84-100 % | 100 % | 3.00 |")
    assert table[3].startswith("| 8 | 18/20 | 70-97 % | 90 % | 3.20 |")
    assert table[3].endswith("| 2 |")
