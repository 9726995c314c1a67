# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the messages runs. Nothing here looks at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import message_cost


def test_message_cost_measures_both_messages_and_the_motion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_cost, "CALLS", 1)
    output = tmp_path / "messages.json"
    assert message_cost.main(["--rounds", "1", "--output", str(output)]) == 0
    stages = [row["stage"] for row in json.loads(output.read_text())["stages"]]
    assert [stage.split(",")[0] for stage in stages] == [
        "ActionChunk",
        "JointTrajectory",
        "motion through the chunk",
    ]
