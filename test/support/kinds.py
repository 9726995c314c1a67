# SPDX-License-Identifier: Apache-2.0
"""Small exports of kinds other than flow matching, as reflex_export writes them: ACT, and Diffusion Policy with its table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from graphs import FLOAT, INT64, Graph, burning, failing, targeted
from numpy.typing import NDArray
from schedules import EPSILON

JOINTS = [f"panda_joint{number}" for number in range(1, 8)]
REST = [0.0, 0.0, 0.0, -1.5, 0.0, 1.8, 0.0]
DIM, HEIGHT, WIDTH = 7, 24, 32  # pixels, not square
CHUNK, FEATURES = 16, 8

Export = Callable[[Path], None]
Changes = Mapping[str, Any]


def act(*, chunk: int = 40, failure: str = "", burn: int = 0, **changes: Any) -> Export:
    """ACT: one picture and the state become a chunk whose rows differ, without noise.

    failure, burn: as in exports.py. changes: of reflex_config.json.
    """

    def make(path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        graph = Graph(seed=21)
        goal = targeted(graph, _seen(graph), DIM)
        rows = graph.op("Mul", goal, graph.constant(np.linspace(0.2, 1.0, chunk).reshape(1, chunk, 1)))
        rows = burning(graph, failing(graph, rows, "state", failure), "state", burn)
        graph.output(rows, "actions", FLOAT, [1, chunk, DIM])
        graph.save(path / "policy.onnx")
        _write(path, {
            "model_id": "test/act", "model_type": "act", "export_kind": "monolithic", "policy": "deterministic",
            "graphs": {"monolithic": "policy.onnx"}, "actions_output": "actions", "chunk_size": chunk,
        }, changes)  # fmt: skip

    return make


def diffusion(
    table: Mapping[str, Any], *, prediction: str = EPSILON, time: int = INT64, **changes: Any
) -> Export:
    """Diffusion Policy: an encoder, and one step of a network that predicts noise (or the sample, which it knows early)."""

    def make(path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        encoder = Graph(seed=22)
        goal = targeted(encoder, _seen(encoder), DIM)
        encoder.output(goal, "conditioning", FLOAT, [1, 1, DIM])
        encoder.save(path / "encoder.onnx")
        step = Graph(seed=23)
        x = step.input("x_t", FLOAT, [1, CHUNK, DIM])
        known = step.input("conditioning", FLOAT, [1, 1, DIM])
        at = step.shaped(step.to(step.input("t", time, [1]), FLOAT), 1, 1, 1)
        step.output(_answer(step, x, known, at, prediction), "v_t", FLOAT, [1, CHUNK, DIM])
        step.save(path / "unet_step.onnx")
        _write(path, {
            "model_id": "test/diffusion", "model_type": "diffusion", "export_kind": "decomposed", "policy": "diffusion",
            "graphs": {"prefix": "encoder.onnx", "denoise": "unet_step.onnx"}, "chunk_size": CHUNK,
            "flow": {"x": "x_t", "time": "t", "velocity": "v_t"}, "sampler": dict(table),
            "num_denoising_steps": len(table["rows"]),
        }, changes)  # fmt: skip

    return make


def answer(x: NDArray[Any], known: NDArray[Any], time: float, prediction: str = EPSILON) -> NDArray[Any]:
    """What the step graph of `diffusion` computes: x, conditioning (1, 1, 7) and the output (1, rows, 7)."""
    if prediction == EPSILON:
        return np.asarray(np.tanh(0.7 * x + known + 0.003 * time))
    return np.asarray(known + 0.0005 * time * np.tanh(x))


def _answer(graph: Graph, x: str, known: str, time: str, prediction: str) -> str:
    if prediction == EPSILON:
        inner = graph.op("Add", graph.op("Mul", x, graph.constant(0.7)), known)
        return graph.op("Tanh", graph.op("Add", inner, graph.op("Mul", time, graph.constant(0.003))))
    bent = graph.op("Mul", graph.op("Mul", time, graph.constant(0.0005)), graph.op("Tanh", x))
    return graph.op("Add", known, bent)


def _seen(graph: Graph) -> list[tuple[str, int]]:
    colour = graph.mean(graph.input("img_front", FLOAT, [1, 3, HEIGHT, WIDTH]), 2, 3)
    return [(colour, 3), (graph.input("state", FLOAT, [1, DIM]), DIM)]


def _write(path: Path, kind: Mapping[str, Any], changes: Changes) -> None:
    still = {"mode": "mean_std", "mean": REST, "std": [0.002] * DIM}
    written: dict[str, Any] = {
        **kind,
        "action_dim": DIM,
        "action_names": JOINTS,
        "frequency_hz": 20.0,
        "images": [{"camera": "front", "input": "img_front", "mask": None}],
        "state": {"input": "state", "names": JOINTS},
        "normalization": {"state": still | {"std": [0.5] * DIM}, "action": still},
        **changes,
    }
    text = json.dumps({key: value for key, value in written.items() if value is not None}, indent=1)
    (path / "reflex_config.json").write_text(text)
