# SPDX-License-Identifier: Apache-2.0
"""The benchmark of control-rate streaming runs. Nothing here looks at a time."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import stream_rate


def test_stream_rate_measures_every_rate_alone_and_beside_a_busy_thread(tmp_path: Path) -> None:
    output = tmp_path / "stream.json"
    assert stream_rate.main(["--seconds", "0.5", "--rates", "50", "100", "--output", str(output)]) == 0
    document = json.loads(output.read_text())
    assert document["benchmark"] == "stream_rate"
    assert {(row["busy"], row["rate_hz"]) for row in document["rows"]} == {
        (busy, rate) for busy in (False, True) for rate in (50.0, 100.0)
    }
    assert all(row["least_gap_periods"] >= 0.4 for row in document["rows"])
