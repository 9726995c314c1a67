# SPDX-License-Identifier: Apache-2.0
"""Whether the graphs give each row of a batch what they give it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.concurrency.progress import report

Arrays = Mapping[str, NDArray[Any]]

SIZES = (2, 4)
LARGEST_DIFFERENCE = 1e-5  # of the largest number of an output, or of 1
ALONE = (1,)
_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


def batch_sizes(graphs: Sequence[Path], rows: Sequence[Arrays]) -> tuple[tuple[int, ...], str]:
    """Return the batches whose rows equal their single runs, and a sentence where that are not all.

    graphs: in the order in which they run; inputs of a later one that an earlier one gives are taken from there. rows: the
    inputs of one inference each, with a batch axis of 1; their number is the largest batch.
    """
    known: list[dict[str, NDArray[Any]]] = [dict(row) for row in rows]
    verified = [size for size in SIZES if size <= len(rows)]
    why = ""
    for number, graph in enumerate(graphs):
        report(number / len(graphs), "batches", graph.name)
        made, failed, problem = _compared(graph, known, verified)
        verified = [size for size in verified if size not in failed]
        why = why or problem
        known = [row | outputs for row, outputs in zip(known, made, strict=True)]
    return (*ALONE, *verified), why


def _compared(
    graph: Path, rows: Sequence[Arrays], sizes: Sequence[int]
) -> tuple[list[dict[str, NDArray[Any]]], set[int], str]:
    """Return the outputs of each row alone, the sizes of which a row differs, and the first difference in words."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    types = {info.name: _TYPES.get(info.type, np.float32) for info in session.get_inputs()}
    names = [info.name for info in session.get_outputs()]

    def run(given: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
        feeds: dict[str, NDArray[Any]] = {
            name: np.concatenate([row[name] for row in given]).astype(kind) for name, kind in types.items()
        }
        return dict(zip(names, session.run(None, feeds), strict=True))

    alone = [run([row]) for row in rows]
    failed, problem = set(), ""
    for size in sizes:
        made = run(rows[:size])
        for name in names:
            differs = max(_difference(made[name][row], alone[row][name][0]) for row in range(size))
            if not differs <= LARGEST_DIFFERENCE:
                failed.add(size)
                problem = problem or (
                    f"{graph.name} gives rows of a batch of {size} other numbers than alone ('{name}': {differs:.1e} of the largest):"
                    " it is served one at a time"
                )
    return alone, failed, problem


def _difference(batched: NDArray[Any], alone: NDArray[Any]) -> float:
    one, other = batched.astype(np.float64), alone.astype(np.float64)
    largest = float(np.abs(one - other).max(initial=0.0))
    return largest / max(1.0, float(np.abs(other).max(initial=0.0)))
