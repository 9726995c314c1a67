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


def remembering(
    path: Path, *, joints: Sequence[str], rest: Sequence[float], frequency_hz: float = 20.0
) -> None:
    """Write a policy of two observations for a robot at rest: its first two columns lean by the brightness that it saw.

    Column 0 is `rest` and 1e-5 times the mean of the earlier picture (0 to 255), column 1 the same of the newest, column 2
    `rest` and 1e-3 times the earlier first joint.
    """
    path.mkdir(parents=True, exist_ok=True)
    graph = Graph()
    grey = graph.mean(graph.input("eye", FLOAT, [1, 2, 3, SIDE, SIDE]), 2, 3, 4)
    joint = graph.op(
        "Slice", graph.input("body", FLOAT, [1, 2, len(joints)]),
        *(graph.constant([bound], "int64") for bound in (0, 1, 2)),
    )  # fmt: skip
    first = graph.shaped(
        graph.op("Slice", joint, *(graph.constant([bound], "int64") for bound in (0, 1, 1))), 1, 1
    )
    seen = graph.op(
        "Concat",
        graph.op("Mul", grey, graph.constant(1e-5)),
        graph.op("Mul", first, graph.constant(1e-3)),
        graph.constant([[0.0] * (len(joints) - 3)]),
        axis=1,
    )
    row = graph.op("Add", graph.shaped(seen, 1, 1, len(joints)), graph.constant([[list(rest)]]))
    start = graph.input("noise", FLOAT, [1, 50, len(joints)])
    made = graph.op("Add", graph.op("Mul", start, graph.constant(0.0)), row)
    graph.output(made, "actions", FLOAT, [1, 50, len(joints)])
    graph.save(path / "model.onnx")
    written = {
        "model_id": "test/remembering", "model_type": "remembering", "export_kind": "monolithic",
        "graphs": {"monolithic": "model.onnx"}, "chunk_size": 50, "action_dim": len(joints), "action_names": list(joints),
        "images": [{"camera": "front", "input": "eye", **RAW}], "state": {"input": "body", "names": list(joints)},
        "flow": {"noise": "noise", "actions": "actions"}, "normalization": {"mode": "identity"}, "units": "radians",
        "observation_steps": 2, "frequency_hz": frequency_hz,
    }  # fmt: skip
    (path / "reflex_config.json").write_text(json.dumps(written))
