# SPDX-License-Identifier: Apache-2.0
"""Exports whose actions are what they were fed: every picture's mean, and every number of the state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from graphs import BOOL, FLOAT, INT64, Graph

ROWS = 4
SIDE = 8
Shape = Sequence[int | str]

RAW = {"resize": "stretch", "range": [0.0, 255.0]}


def seeing(
    path: Path,
    *,
    eye: Shape = (1, 3, SIDE, SIDE),
    body: Shape = (1, 2),
    mask: Shape = (),
    domain: Shape = (),
    noise: Shape = (1, ROWS, "width"),
    cameras: Sequence[str] = ("front",),
    **config: Any,
) -> Path:
    """Write an export; each row of its chunk is the mean of every picture (0 to 255), the state, the mask, and the domain.

    eye, body, mask, domain: shapes of its inputs, () for none. cameras: of `eye`, each with its `stack` where there are several.
    config: more keys of reflex_config.json.
    """
    path.mkdir(parents=True, exist_ok=True)
    graph = Graph()
    parts, width = [], 0
    for name, shape, kind, kept in (
        ("eye", eye, FLOAT, eye[:-3]), ("body", body, FLOAT, body), ("mask", mask, BOOL, mask), ("domain", domain, INT64, domain),
    ):  # fmt: skip
        if not shape:
            continue
        given = graph.to(graph.input(name, kind, list(shape)), FLOAT)
        count = prod(size if isinstance(size, int) else 1 for size in kept)
        if name == "eye":
            given = graph.mean(given, *range(len(shape) - 3, len(shape)))
        parts.append(graph.shaped(given, 1, 1, count))
        width += count
    start = graph.input("noise", FLOAT, [width if size == "width" else size for size in noise])
    nothing = graph.op("Mul", start, graph.constant(0.0))
    made = graph.op("Add", nothing, graph.op("Concat", *parts, axis=2))
    graph.output(made, "actions", FLOAT, [noise[0], ROWS, width])
    graph.save(path / "model.onnx")
    slots: list[dict[str, Any]] = [
        {"camera": name, "input": "eye", **RAW}
        | ({"mask": "mask"} if mask else {})
        | ({"stack": number} if len(cameras) > 1 else {})
        for number, name in enumerate(cameras)
    ]
    written = {
        "model_id": "test/seeing", "model_type": "seeing", "export_kind": "monolithic", "action_dim": width,
        "graphs": {"monolithic": "model.onnx"}, "chunk_size": ROWS, "images": slots,
        "state": {"input": "body", "names": [f"axis_{number}" for number in range(int(body[-1]))]},
        "flow": {"noise": "noise", "actions": "actions"}, "normalization": {"mode": "identity"},
    }  # fmt: skip
    (path / "reflex_config.json").write_text(json.dumps(written | config))
    return path
