# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the start runs. Nothing here looks at a time."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import startup


def test_startup_measures_a_server_that_is_ready(tmp_path: Path) -> None:
    output = tmp_path / "startup.json"
    assert startup.main(["--starts", "1", "--output", str(output)]) == 0
    [one] = json.loads(output.read_text())["starts"]
    assert one["ready s"] > 0
    assert one["RSS MB"] > one["own MB"] > 10
