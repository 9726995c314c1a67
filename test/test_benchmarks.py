# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run and write what docs/performance.md reads. Nothing here looks at a time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from benchmarks import act_overhead, camera_to_chunk, gpu_check, hot_path
from benchmarks.measure import percentiles, table


def results(path: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    assert document["benchmark"] == name
    assert document["machine"]["cores"]
    return document


def test_act_overhead_compares_every_case_with_the_bare_session(tmp_path: Path) -> None:
    output = tmp_path / "act.json"
    arguments = ["--rounds", "1", "--requests", "2", "--clients", "1", "2", "--health-seconds", "0.2"]
    assert act_overhead.main([*arguments, "--output", str(output)]) == 0
    document = results(output, "act_overhead")
    cases = {(row["export"], row["image"], row["kind"], row["clients"]) for row in document["overhead"]}
    assert len(cases) == 2 * 2 * 2 * 2
    assert all(row["requests"] >= 2 for row in document["overhead"])
    assert {row["clients"] for row in document["fairness"]} == {2}
    assert document["health"]["asked"] > 0


def test_camera_to_chunk_hears_the_real_node(tmp_path: Path) -> None:
    output = tmp_path / "camera.json"
    arguments = ["--seconds", "0.5", "--transports", "raw", "--only-shipped"]
    assert camera_to_chunk.main([*arguments, "--output", str(output)]) == 0
    document = results(output, "camera_to_chunk")
    assert [row["image"] for row in document["chunks"]] == ["224x224", "640x480"]
    assert all(row["chunks"] > 0 for row in document["chunks"])
    assert all(row["sent"] > 0 for row in document["images"])


def test_hot_path_measures_every_stage(tmp_path: Path) -> None:
    output = tmp_path / "hot.json"
    assert hot_path.main(["--rounds", "1", "--output", str(output)]) == 0
    tables = results(output, "hot_path")["stages"]
    assert len(tables) == 6
    assert {"decode the frame", "Policy.predict", "ActionChunk message"} <= {
        row["stage"] for rows in tables.values() for row in rows
    }


def test_gpu_check_says_so_where_there_is_no_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert gpu_check.main(["--rounds", "1"]) == 1
    assert "CUDAExecutionProvider" in capsys.readouterr().err


def test_percentiles_of_nothing_are_no_numbers() -> None:
    assert all(math.isnan(value) for value in percentiles([]))


def test_a_table_lines_up() -> None:
    lines = table([{"name": "a", "ms": 1.0}, {"name": "longer", "ms": 100.0}]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith("  1.00")
