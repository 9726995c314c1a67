# SPDX-License-Identifier: Apache-2.0
"""The benchmark of a fleet's Prometheus scrapes real metrics with the shipped files. Nothing here looks at a time."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import fleet_load


def test_it_counts_what_prometheus_stores_of_a_real_server(tmp_path: Path) -> None:
    output = tmp_path / "fleet.json"
    arguments = ["--robots", "2", "--interval", "1", "--scrapes", "5", "--seconds", "6"]
    assert fleet_load.main([*arguments, "--output", str(output)]) == 0
    document = json.loads(output.read_text())
    [robot], [fleet] = document["robot"], document["fleet"]
    assert robot["series"] > 50
    assert robot["left out"] > 10
    assert robot["bytes per sample"] > 0
    assert fleet["robots"] == 2
    assert fleet["series"] > 2 * robot["series"], "and what Prometheus and the rules add"


def test_a_series_that_tells_when_a_counter_began_is_not_stored() -> None:
    text = '# HELP a x\na_total{kind="x y"} 3.0\na_created{kind="x y"} 1.7e9\nb_bucket{le="+Inf"} 2\n'
    assert fleet_load.samples_of(text) == {'a_total{kind="x y"}': 3.0, 'b_bucket{le="+Inf"}': 2.0}
    assert (fleet_load.series(text), fleet_load.left_out(text)) == (2, 1)
