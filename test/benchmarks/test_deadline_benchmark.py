# SPDX-License-Identifier: Apache-2.0
"""The deadline's benchmark runs against a real server. Nothing here looks at a time."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import deadline


def test_every_late_request_is_answered_from_the_last_good_chunk_or_held(tmp_path: Path) -> None:
    output = tmp_path / "deadline.json"
    arguments = ["--budget-ms", "50", "--requests", "4", "--clients", "2", "--threads", "1"]
    assert deadline.main([*arguments, "--output", str(output)]) == 0
    document = json.loads(output.read_text())
    [row] = document["replies"]
    assert row["replies"] == row["missed"] == row["continued"] + row["held"] == 4
    assert document["hop"]["requests"] == 20
