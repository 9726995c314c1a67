# SPDX-License-Identifier: Apache-2.0
"""Reads traces for a report: one record at a time, the files in the order in which they were begun."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reflex_core.ab.tally import Tally
from reflex_core.files.regular_file import real_path
from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.reader import TraceReader

PATTERNS = ("*.jsonl", "*.jsonl.gz")


def trace_files(paths: Sequence[Path]) -> list[Path]:
    """Return the given files and those in the given directories, each once. Raises TraceError where there is none."""
    found: dict[Path, Path] = {}
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(file for pattern in PATTERNS for file in path.glob(pattern))
            if not inside:
                raise TraceError(f"{path}: no *.jsonl or *.jsonl.gz in it")
        found |= {real_path(file): file for file in inside}
    return list(found.values())


def add_traces(paths: Sequence[Path], tally: Tally) -> list[str]:
    """Count every record and finish the tally; returns what was wrong but could be read around. Raises TraceError."""
    warnings: list[str] = []
    for path in sorted(trace_files(paths), key=_started_at):
        with TraceReader(path) as reader:
            for document in reader.documents():
                tally.add(document, reader.header)
            warnings += reader.warnings
    tally.finish()
    return warnings


def _started_at(path: Path) -> tuple[str, int, str]:
    with TraceReader(path) as reader:
        part = reader.header.get("part")
        return str(reader.header.get("started_at")), part if isinstance(part, int) else 0, path.name
