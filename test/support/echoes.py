# SPDX-License-Identifier: Apache-2.0
"""Exports whose network shows what went into it: its chunk holds the tokens, the state and the pixels it was given.

Row i, column TOKEN: token i; MASK: whether it counts; STATE: number i of the state; RED to BLUE: the mean of the first
picture; GIVEN: row i of the start noise in its column. So a chunk of physical units shows what the other end does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from graphs import BOOL, FLOAT, INT64, Graph
from odd_exports import words

TOKEN, MASK, STATE, RED, GREEN, BLUE, GIVEN = range(7)
ROWS, DIM, SIDE = 32, 7, 16
CAMERAS = {
    "smolvla": ("cam1", "cam2", "cam3"),
    "pi0": ("base", "wrist_l", "wrist_r"),
    "pi05": ("base", "wrist_l", "wrist_r"),
}


def echo(path: Path, family: str = "pi0", *, felt: int = 32, image: bool = True, **config: Any) -> Path:
    """Write one; `config` replaces keys of the minimal description, with None removes them.

    felt: how many numbers of the state the graph takes, 0 for no such input.
    """
    path.mkdir(parents=True, exist_ok=True)
    graph = Graph()
    names = CAMERAS.get(family, ("front",)) if image else ()
    pictures = [graph.input(f"img_{name}", FLOAT, [1, 3, SIDE, SIDE]) for name in names]
    masks = [graph.input(f"mask_{name}", BOOL, [1]) for name in names if family in CAMERAS]
    tokens = graph.to(graph.input("lang_tokens", INT64, [1, ROWS]), FLOAT)
    heard = graph.to(graph.input("lang_masks", BOOL, [1, ROWS]), FLOAT)
    columns = [graph.shaped(tokens, 1, ROWS, 1), graph.shaped(heard, 1, ROWS, 1)]
    body = graph.input("state", FLOAT, [1, felt]) if felt else graph.constant(np.zeros((1, 1)))
    padding = graph.constant(np.zeros((1, ROWS - (felt or 1))))
    full = graph.op("Concat", body, padding, axis=1) if (felt or 1) < ROWS else body
    columns.append(graph.shaped(full, 1, ROWS, 1))
    seen = graph.mean(pictures[0], 2, 3) if pictures else graph.constant(np.zeros((1, 3)))
    columns.append(graph.op("Expand", graph.shaped(seen, 1, 1, 3), graph.constant([1, ROWS, 3], np.int64)))
    noise = graph.input("noise", FLOAT, [1, ROWS, DIM])
    bounds = [graph.constant([bound], np.int64) for bound in (GIVEN, DIM, 2)]
    columns.append(graph.op("Slice", noise, *bounds))
    made = graph.op("Concat", *columns, axis=2)
    for mask in masks:  # an input that nothing reads would be left out
        nothing = graph.op("Mul", graph.shaped(graph.to(mask, FLOAT), 1, 1, 1), graph.constant(0.0))
        made = graph.op("Add", made, nothing)
    for picture in pictures[1:]:
        nothing = graph.op("Mul", graph.op("ReduceMax", picture, keepdims=0), graph.constant(0.0))
        made = graph.op("Add", made, nothing)
    graph.output(made, "actions", FLOAT, [1, ROWS, DIM])
    graph.save(path / "model.onnx")
    (path / "tokenizer").mkdir(exist_ok=True)
    words(path / "tokenizer" / "tokenizer.json")
    written = {
        "model_id": "somebody/echo", "model_type": family, "export_kind": "monolithic", "num_denoising_steps": 1,
        "chunk_size": ROWS, "action_dim": DIM, "normalization": {"state": {"mode": "identity"}, "action": {"mode": "identity"}},
    } | config  # fmt: skip
    text = json.dumps({key: value for key, value in written.items() if value is not None})
    (path / "reflex_config.json").write_text(text)
    return path
