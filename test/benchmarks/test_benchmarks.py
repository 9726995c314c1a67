# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run and write what docs/explanation/performance.md reads. Nothing here looks at a time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from benchmarks import (
    act_overhead,
    bag_cost,
    camera_to_chunk,
    hot_path,
    micro_batch,
    record_cost,
    stream_cost,
    swap,
    trace_size,
)
from benchmarks.measure import percentiles, table


def results(path: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    assert document["benchmark"] == name
    assert document["machine"]["cores"]
    return document


def test_act_overhead_compares_every_case_with_the_bare_session(tmp_path: Path) -> None:
    output = tmp_path / "act.json"
    arguments = ["--rounds", "1", "--requests", "2", "--clients", "1", "2", "--health-seconds", "0.2"]
    arguments += ["--against", str(Path(act_overhead.__file__).parents[1])]
    assert act_overhead.main([*arguments, "--output", str(output)]) == 0
    document = results(output, "act_overhead")
    cases = {(row["export"], row["image"], row["kind"], row["clients"]) for row in document["overhead"]}
    assert len(cases) == 2 * 2 * 3 * 2
    for row in document["overhead"]:
        assert row["requests"] >= 2
        assert row["/act p50"] > row["floor p50"] > 0
        assert row["cpu ratio"] >= 0
    assert {row["clients"] for row in document["fairness"]} == {2}
    assert document["health"]["asked"] > 0


def test_micro_batch_compares_each_server_with_single_runs(tmp_path: Path) -> None:
    output = tmp_path / "batch.json"
    arguments = ["--blocks", "1", "--seconds", "0.3", "--matrices", "20", "--output", str(output)]
    assert micro_batch.main(arguments) == 0
    rows = results(output, "micro_batch")["rows"]
    assert [row["server"] for row in rows] == ["batched", "single", "null"] * 2
    assert all(row["requests/s"] > 0 and row["failed"] == 0 for row in rows)
    assert {row["mean batch"] for row in rows if row["server"] != "batched"} == {1.0}


def test_camera_to_chunk_receives_from_the_real_node(tmp_path: Path) -> None:
    output = tmp_path / "camera.json"
    arguments = ["--seconds", "0.5", "--transports", "raw", "--only-shipped"]
    assert camera_to_chunk.main([*arguments, "--output", str(output)]) == 0
    document = results(output, "camera_to_chunk")
    assert [row["image"] for row in document["chunks"]] == ["224x224", "640x480"]
    assert all(row["chunks"] > 0 for row in document["chunks"])
    assert all(row["sent"] > 0 for row in document["images"])


def test_swap_waits_for_the_other_policys_answer(tmp_path: Path) -> None:
    output = tmp_path / "swap.json"
    assert swap.main(["--changes", "1", "--output", str(output)]) == 0
    changes = results(output, "swap")["changes"]
    assert [(row["change"], row["times"]) for row in changes] == [("promote", 1), ("rollback", 1)]
    assert all(row["first answer p50"] >= row["POST p50"] > 0 for row in changes)


def test_hot_path_measures_every_stage(tmp_path: Path) -> None:
    output = tmp_path / "hot.json"
    assert hot_path.main(["--rounds", "1", "--output", str(output)]) == 0
    tables = results(output, "hot_path")["stages"]
    assert len(tables) == 6
    assert {"decode the frame", "Policy.predict", "ActionChunk message"} <= {
        row["stage"] for rows in tables.values() for row in rows
    }


def test_trace_size_measures_every_kind_of_file_and_the_audit_log(tmp_path: Path) -> None:
    output = tmp_path / "trace.json"
    assert trace_size.main(["--requests", "3", "--output", str(output)]) == 0
    rows = results(output, "trace_size")["rows"]
    assert len(rows) == 2 * (len(trace_size.COLUMNS) + 1)
    assert all(row["MB per 1000"] > 0 for row in rows)


def test_bag_cost_records_and_receives(tmp_path: Path) -> None:
    output = tmp_path / "bag.json"
    assert bag_cost.main(["--requests", "3", "--output", str(output)]) == 0
    document = results(output, "bag_cost")
    assert {row["storage"] for row in document["recording"]} == {"mcap", "sqlite3"}
    assert len(document["receiving"]) == len(bag_cost.SIZES) + 1


def test_stream_cost_compares_a_recording_with_none(tmp_path: Path) -> None:
    output = tmp_path / "streams.json"
    assert stream_cost.main(["--blocks", "1", "--seconds", "1", "--output", str(output)]) == 0
    rows = results(output, "stream_cost")["streams"]
    assert [(row["images"], row["recorded"]) for row in rows] == [
        (form, way) for form in ("jpeg", "rgb8") for way in stream_cost.WAYS
    ]
    assert all(row["MB per s"] > 0 for row in rows if row["recorded"] == "full")


def test_record_cost_reads_and_replays_what_it_recorded(tmp_path: Path) -> None:
    output = tmp_path / "record.json"
    assert record_cost.main(["--requests", "3", "--output", str(output)]) == 0
    document = results(output, "record_cost")
    assert (len(document["traces"]), len(document["bags"])) == (7, 2)
    assert len(document["replay"]) == 4
    assert all(row["records per s"] > 0 for row in document["replay"])


def test_record_cost_soaks_with_every_recorder(tmp_path: Path) -> None:
    output = tmp_path / "soak.json"
    assert record_cost.main(["--soak-seconds", "0.4", "--output", str(output)]) == 0
    (*_, last) = results(output, "record_cost")["soak"]
    assert (last["requests"], last["dropped"]) == (20, 0)
    assert last["RSS MB"] > 0


def test_percentiles_of_nothing_are_no_numbers() -> None:
    assert all(math.isnan(value) for value in percentiles([]))


def test_a_table_lines_up() -> None:
    lines = table([{"name": "a", "ms": 1.0}, {"name": "longer", "ms": 100.0}]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith("  1.00")
