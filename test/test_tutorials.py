# SPDX-License-Identifier: Apache-2.0
"""The tutorials, followed to the letter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from exports import write_tokenizer
from graphs import BOOL, FLOAT, INT64, Graph, loop, targeted
from tutorial import blocks, reader


def test_from_trace_to_fix(tmp_path: Path) -> None:
    with reader(tmp_path) as somebody:
        somebody.follow(blocks("from_trace_to_fix"))
    assert len(list((tmp_path / "datasets" / "grasp").glob("episode_*.npz"))) == 1
    assert (tmp_path / "pictures" / "record-000000.png").is_file()


def test_ab_rollout(tmp_path: Path) -> None:
    with reader(tmp_path) as somebody:
        somebody.follow(blocks("ab_rollout"))
        assert '"split":50' in somebody.printed.replace(" ", ""), "rolled back"
    report = json.loads((tmp_path / "report.json").read_text())
    assert {slot["episodes"] > 0 for slot in report["slots"].values()} == {True}


def foreign_export(path: Path) -> None:
    """The graph and the tokenizer of an export whose names nobody knows; the page describes it."""
    graph, size, tokens = Graph(), 32, 16
    image = graph.input("observation.images.top", FLOAT, [1, 3, size, size])
    words = graph.input("tokens", INT64, [1, tokens])
    heard = graph.to(graph.input("token_mask", BOOL, [1, tokens]), FLOAT)
    spoken = graph.op("Mul", graph.to(words, FLOAT), heard)
    said = graph.shaped(graph.mean(spoken, 1), 1, 1)
    state = graph.input("observation.state", FLOAT, [1, 7])
    noise = graph.input("noise", FLOAT, [1, 50, 7])
    goal = targeted(graph, [(graph.mean(image, 2, 3), 3), (said, 1), (state, 7)], 7)
    graph.output(loop(graph, noise, goal), "action", FLOAT, [1, 50, 7])
    path.mkdir()
    graph.save(path / "model.onnx")
    write_tokenizer(path)
    (path / "tokenizer" / "tokenizer.json").rename(path / "tokenizer.json")


def test_bring_your_export(tmp_path: Path) -> None:
    foreign_export(tmp_path / "other")
    with reader(tmp_path) as somebody:
        somebody.follow(blocks("bring_your_export"))
    with np.load(tmp_path / "my_export" / "parity.npz") as fixture:
        assert int(fixture["seed"]) == 0
