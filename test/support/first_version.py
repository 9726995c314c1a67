# SPDX-License-Identifier: Apache-2.0
"""What programs of commit 3d37f39 made (test/fixtures/made_by_3d37f39/README.md), and what is said of it today."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from reflex_core.files.share import embedded_policy
from reflex_ros.cli.main import main

TEST = next(parent for parent in Path(__file__).resolve().parents if parent.name == "test")
MADE = TEST / "fixtures" / "made_by_3d37f39"

# everything that was made, and what becomes of it: with --embodiment franka, for the node /reflex
VERDICTS = {
    "settings/serve.yaml": "read",
    "settings/every_node.yaml": "read",
    "settings/embedded.yaml": "read",
    "settings/misspelt.yaml": "refused",
    "embodiments/arm.json": "read",
    "embodiments/degrees.json": "refused",
    "safety/limits.json": "read",
    "safety/degrees.json": "refused",
    "observations/desk-0.json": "read",
    "observations/desk-1.json": "read",
    "exports/mono_smolvla": "read",
    "exports/mono_pi0": "read",
    "exports/mono_pi05": "read",
    "exports/decomposed_state": "read",
    "exports/vlm_stack": "read",
    "exports/expert_stack": "read",
    "exports/gr00t": "read",
    "exports/calm": "read",
    "exports/calm_other": "read",
    "exports/statistics_alone": "read",
    "exports/processors_mean_std": "read",
    "exports/processors_quantiles": "read",
    "exports/processors_own_step": "refused",
    "exports/degrees": "refused",
    "exports/misspelt_key": "refused",
    "exports/measured": "command",
    "exports/sealed": "command",
    "traces/plain.jsonl": "read",
    "traces/hashes.jsonl.gz": "read",
    "traces/pictures.jsonl.gz": "read",
    "traces/resized.jsonl.gz": "read",
    "traces/quantiles.jsonl.gz": "read",
    "traces/two.jsonl.gz": "read",
    "traces/shadow.jsonl.gz": "read",
    "traces/carried.jsonl.gz": "read",
    "traces/demo.jsonl.gz": "read",
    "bags/mcap.bag": "read",
    "bags/sqlite3.bag": "read",
    "audit": "read",
}
WAS_MEASURED = "calibration.json"  # whether it is read depends on the machine


def judged(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status of `reflex doctor --json --upgrade ...`, and what it says of each path."""
    capsys.readouterr()
    status = main(["doctor", "--json", "--upgrade", *map(str, words)])
    document = json.loads(capsys.readouterr().out)
    return status, {entry["path"]: entry for entry in document["files"]}


def embedded_of_then(folder: Path) -> Path:
    """The embedded export as 3d37f39 had it: its graphs are those of today, its description is not."""
    path = Path(shutil.copytree(embedded_policy(), folder / "embedded"))
    shutil.copy(MADE / "embedded" / "reflex_config.json", path)
    return path
