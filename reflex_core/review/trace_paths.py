# SPDX-License-Identifier: Apache-2.0
"""The recordings below some paths: trace files, bags, and directories of either."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reflex_core.records.trace.parse import TraceError
from reflex_core.replay.sources import is_bag

MOST_FILES = 10_000
SUFFIXES = (".jsonl", ".jsonl.gz")


def recordings(paths: Iterable[Path]) -> list[Path]:
    """Return trace files and bags, those of a directory by name, which is by time. Raises TraceError for a path without any."""
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir() or is_bag(path):
            found[path] = None
            continue
        below = _below(path)
        if not below:
            raise TraceError(f"{path}: holds no trace (.jsonl, .jsonl.gz) and no bag")
        found |= dict.fromkeys(below)
    return list(found)


def _below(directory: Path) -> list[Path]:
    try:
        entries = sorted(directory.rglob("*"))
    except OSError as error:
        raise TraceError(f"{directory}: cannot be read: {error.strerror}") from error
    found = [
        path
        for path in entries
        if (path.name.endswith(SUFFIXES) and path.is_file()) or (path.is_dir() and is_bag(path))
    ]
    if len(found) > MOST_FILES:
        raise TraceError(
            f"{directory}: holds {len(found)} recordings, more than {MOST_FILES}: name some of them"
        )
    return found
