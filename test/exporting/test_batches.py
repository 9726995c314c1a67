# SPDX-License-Identifier: Apache-2.0
"""A batch is verified only where every row of it is what the graph gives that row alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from graphs import FLOAT, Graph

from reflex_export.comparison.batches import batch_sizes

ROWS = [{"seen": np.array([[number, 1.0]], np.float32)} for number in range(4)]


def doubled(path: Path, given: str = "seen", made: str = "made") -> Path:
    graph = Graph()
    seen = graph.input(given, FLOAT, ["batch", 2])
    graph.output(graph.op("Add", seen, seen), made, FLOAT, ["batch", 2])
    graph.save(path)
    return path


def mixing(path: Path, given: str = "made") -> Path:
    """Adds the first row to all of them, a thousandth of it."""
    graph = Graph()
    seen = graph.input(given, FLOAT, ["batch", 2])
    first = graph.op("Gather", seen, graph.constant([0], np.int64))
    little = graph.op("Mul", first, graph.constant(1e-3))
    graph.output(graph.op("Add", seen, little), "mixed", FLOAT, ["batch", 2])
    graph.save(path)
    return path


def test_rows_that_equal_their_single_runs_are_verified_through_all_graphs(tmp_path: Path) -> None:
    graphs = [doubled(tmp_path / "one.onnx"), doubled(tmp_path / "two.onnx", "made", "more")]
    assert batch_sizes(graphs, ROWS) == ((1, 2, 4), "")


def test_rows_that_feel_the_others_are_not_and_the_graph_is_named(tmp_path: Path) -> None:
    sizes, why = batch_sizes([doubled(tmp_path / "one.onnx"), mixing(tmp_path / "two.onnx")], ROWS)
    assert sizes == (1,)
    assert why.startswith("two.onnx gives rows of a batch of 2 other numbers than alone ('mixed': ")


def test_no_larger_batch_is_tried_than_there_are_rows(tmp_path: Path) -> None:
    assert batch_sizes([doubled(tmp_path / "one.onnx")], ROWS[:3]) == ((1, 2), "")
