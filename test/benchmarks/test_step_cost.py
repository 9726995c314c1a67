# SPDX-License-Identifier: Apache-2.0
"""The benchmark of a denoise step runs. Nothing here looks at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import step_cost


def test_step_cost_measures_the_loop_and_the_graph_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_cost, "LOOPS", 1)
    output = tmp_path / "steps.json"
    assert step_cost.main(["--rounds", "1", "--output", str(output)]) == 0
    document = json.loads(output.read_text())
    assert [row["run"] for row in document["rows"]] == ["measured", "null"]
    assert document["steps"] > 1
