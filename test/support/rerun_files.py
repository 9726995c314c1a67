# SPDX-License-Identifier: Apache-2.0
"""Files for the Rerun viewer, read by Rerun's own program and reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

QUIET = {"RERUN_ANALYTICS": "0"}


def rerun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Rerun's program, without its statistics."""
    program = Path(sys.executable).parent / "rerun"
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | QUIET,
    )  # fmt: skip


def opens_in_rerun(path: Path) -> bool:
    """True for a file that Rerun can load and interpret."""
    return rerun("rrd", "verify", path).returncode == 0


def chunks(path: Path, recording: bool = True) -> dict[str, list[Any]]:
    """The pieces of a recording (or of its blueprint) by entity path, as Rerun's reader gives them."""
    from rerun.chunk import RrdReader

    reader = RrdReader(path)
    [store, *_] = reader.recordings() if recording else reader.blueprints()
    found: dict[str, list[Any]] = {}
    for chunk in reader.stream(store=store).to_chunks():
        found.setdefault(chunk.entity_path, []).append(chunk)
    return found
