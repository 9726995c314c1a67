# SPDX-License-Identifier: Apache-2.0
"""The benchmark of control-rate streaming runs. Nothing here looks at a time."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import stream_rate


def test_stream_rate_measures_every_rate_alone_and_beside_other_work(tmp_path: Path) -> None:
    output = tmp_path / "stream.json"
    words = ["--seconds", "0.5", "--runs", "1", "--rates", "50", "100", "--output", str(output)]
    assert stream_rate.main(words) == 0
    document = json.loads(output.read_text())
    assert document["benchmark"] == "stream_rate"
    assert {(row["beside"], row["rate_hz"]) for row in document["rows"]} == {
        (beside, rate) for beside in ("nothing", "python", "inference") for rate in (50.0, 100.0)
    }
    assert all(row["least_gap_periods"] >= 0.4 for row in document["rows"])
    assert all(
        0.0 <= row["late_p50_ms"] <= row["late_p99_ms"] <= row["late_max_ms"] for row in document["rows"]
    )
