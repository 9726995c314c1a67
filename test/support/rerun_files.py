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


def numbers(found: list[Any]) -> list[float]:
    """The scalars of the pieces of one entity, gaps left out."""
    return [value for cell in _column(found, "Scalars:scalars") for value in cell]


def texts(found: list[Any]) -> list[str]:
    """The texts of the pieces of one entity."""
    return [
        text
        for kind in ("TextDocument:text", "TextLog:text")
        for cell in _column(found, kind)
        for text in cell
    ]


def _column(found: list[Any], name: str) -> list[Any]:
    batches = [chunk.to_record_batch() for chunk in found]
    return [
        cell
        for batch in batches
        if name in batch.schema.names
        for cell in batch.column(name).to_pylist()
        if cell
    ]
