# SPDX-License-Identifier: Apache-2.0
"""How many threads one operator of a graph is computed with on the CPU, where no setting says it."""

from __future__ import annotations

from pathlib import Path

from reflex_core.export.onnx_data import external_data

ONE_PER_CORE = 0  # onnxruntime's own default: one per physical core
SMALL_BYTES = 8 << 20


def op_threads(graph: Path) -> int:
    """Return 1 for a graph whose weights take less than 8 MB, else ONE_PER_CORE.

    Operators of a small graph take some ten microseconds: a second thread is woken for each of them, and is not through sooner
    than the first one alone would be. By size and not by time, so that the same export is computed the same way at every start
    and in `replay`. `benchmarks.act_overhead --threads 0` against `--threads 2` measures it.
    """
    return 1 if _size_bytes(graph) < SMALL_BYTES else ONE_PER_CORE


def _size_bytes(graph: Path) -> int:
    """Return the size of a graph's file and of the files that it keeps weights in; what is not there counts as large."""
    try:
        size = graph.stat().st_size
        if size < SMALL_BYTES:
            size += sum((graph.parent / location).stat().st_size for location in external_data(graph))
    except (OSError, ValueError):
        return SMALL_BYTES  # onnxruntime says what is wrong with it
    return size
