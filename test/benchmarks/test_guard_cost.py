# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the guard runs. Nothing here looks at a time."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import guard_cost


def test_guard_cost_measures_every_kind_of_chunk(tmp_path: Path) -> None:
    output = tmp_path / "guard.json"
    assert guard_cost.main(["--repeats", "2", "--warm-up", "1", "--output", str(output)]) == 0
    document = json.loads(output.read_text())
    assert document["benchmark"] == "guard_cost"
    assert len({(row["chunk"], row["checked"], row["mode"]) for row in document["rows"]}) == 5 * 4 * 2
    assert [row["clean chunk"] for row in document["clean"]] == [
        "no episode",
        "a new episode",
        "in an episode",
    ]
