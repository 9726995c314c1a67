# SPDX-License-Identifier: Apache-2.0
"""Where recorded requests come from: a trace, or a bag where the caller can open one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.reader import TraceReader
from reflex_core.replay.comparison import Source

BAG_SUFFIXES = (".mcap", ".db3")
BAG_FILE = "metadata.yaml"

OpenBag = Callable[[Path], Source]


def open_source(path: Path, open_bag: OpenBag | None = None) -> Source:
    """Open a trace file, or return what `open_bag` makes of a bag's file or directory. Raises TraceError."""
    if path.is_dir() and not is_bag(path):
        traces = sorted(file.name for file in path.glob("*.jsonl*"))
        hint = (
            f"name one of its traces, such as {traces[-1]}" if traces else "it is no bag and holds no trace"
        )
        raise TraceError(f"{path}: is a directory; {hint}")
    if not path.is_dir() and path.suffix not in BAG_SUFFIXES:
        return TraceReader(path)
    if open_bag is None:
        raise TraceError(
            f"{path}: is a bag, which this version does not replay; name a .jsonl or .jsonl.gz trace"
        )
    return open_bag(path)


def is_bag(path: Path) -> bool:
    """Return whether a directory is a bag."""
    return (path / BAG_FILE).is_file() or any(next(path.glob(f"*{suffix}"), None) for suffix in BAG_SUFFIXES)
