# SPDX-License-Identifier: Apache-2.0
"""An export with names of its own, which docs/tutorials/bring_your_export.md describes."""

from __future__ import annotations

from pathlib import Path

from exports import write_tokenizer
from graphs import BOOL, FLOAT, INT64, Graph, loop, targeted


def foreign_export(path: Path) -> None:
    """The graph and the tokenizer of an export with unknown names; the page describes it."""
    graph, size, tokens = Graph(), 32, 16
    image = graph.input("observation.images.top", FLOAT, [1, 3, size, size])
    words = graph.input("tokens", INT64, [1, tokens])
    heard = graph.to(graph.input("token_mask", BOOL, [1, tokens]), FLOAT)
    spoken = graph.op("Mul", graph.to(words, FLOAT), heard)
    instruction = graph.shaped(graph.mean(spoken, 1), 1, 1)
    state = graph.input("observation.state", FLOAT, [1, 7])
    noise = graph.input("noise", FLOAT, [1, 50, 7])
    goal = targeted(graph, [(graph.mean(image, 2, 3), 3), (instruction, 1), (state, 7)], 7)
    graph.output(loop(graph, noise, goal), "action", FLOAT, [1, 50, 7])
    path.mkdir()
    graph.save(path / "model.onnx")
    write_tokenizer(path)
    (path / "tokenizer" / "tokenizer.json").rename(path / "tokenizer.json")
