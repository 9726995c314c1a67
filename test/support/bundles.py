# SPDX-License-Identifier: Apache-2.0
"""Small exports of other programs: policy_packages as physicalai 0.3.0 reads them, with graphs whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from graphs import FLOAT, Graph
from numpy.typing import NDArray
from safetensors.numpy import save_file

HEIGHT, WIDTH, DIM, ROWS = 24, 32, 7, 16  # pixels, not square
JOINTS = [f"panda_joint{number}" for number in range(1, 8)]
MEANS = np.linspace(-0.5, 0.5, DIM, dtype=np.float32)
SPREADS = np.linspace(0.2, 0.8, DIM, dtype=np.float32)
COLOUR_MEAN, COLOUR_SPREAD = np.array([0.4, 0.5, 0.6], np.float32), np.array([0.2, 0.3, 0.25], np.float32)
NORMALIZED = ["observation.state", "observation.images.top"]


def package_graph(path: Path, *, width: int = DIM, outside: str = "", noise: bool = False) -> None:
    """A chunk (1, 16, width) from a picture and a state, under LeRobot's names of the features.

    outside: keep the weights in a file of this name. noise: it is added to the chunk.
    """
    graph = Graph(seed=31)
    colour = graph.mean(graph.input("observation.images.top", FLOAT, [1, 3, HEIGHT, WIDTH]), 2, 3)
    state = graph.input("observation.state", FLOAT, [1, width])
    seen = graph.op(
        "Add",
        graph.op("MatMul", colour, graph.weights(3, width)),
        graph.op("MatMul", state, graph.weights(width, width)),
    )
    rows = graph.op(
        "Mul",
        graph.shaped(graph.op("Tanh", seen), 1, 1, width),
        graph.constant(np.linspace(0.2, 1.0, ROWS).reshape(1, ROWS, 1)),
    )
    if noise:
        rows = graph.op("Add", rows, graph.input("noise", FLOAT, [1, ROWS, width]))
    graph.output(rows, "action", FLOAT, [1, ROWS, width])
    graph.save(path)
    if outside:
        import onnx

        model = onnx.load(path)
        onnx.save(
            model,
            path,
            save_as_external_data=True,
            location=outside,
            size_threshold=64,
            convert_attribute=False,
        )


def package(folder: Path, **changes: Any) -> Path:
    """A policy_package of a graph that normalises nothing itself. changes: of `model`; None leaves a key out."""
    folder.mkdir(parents=True)
    package_graph(folder / "model.onnx")
    save_file(
        {
            "observation.state/mean": MEANS, "observation.state/std": SPREADS, "action/mean": MEANS, "action/std": SPREADS,
            "observation.images.top/mean": COLOUR_MEAN.reshape(3, 1, 1),
            "observation.images.top/std": COLOUR_SPREAD.reshape(3, 1, 1),
        },
        folder / "stats.safetensors",
    )  # fmt: skip
    model = {
        "n_obs_steps": 1,
        "runner": {"type": "action_chunking", "chunk_size": ROWS, "n_action_steps": 8},
        "artifacts": {"onnx": "model.onnx"},
        "preprocessors": [
            {"type": "to_float_tensor"},
            {
                "type": "normalize",
                "artifact": "stats.safetensors",
                "mode": "mean_std",
                "features": NORMALIZED,
            },
        ],
        "postprocessors": [
            {
                "type": "denormalize",
                "artifact": "stats.safetensors",
                "mode": "mean_std",
                "features": ["action"],
            },
            {"type": "action_chunk_trimmer", "n_action_steps": 10},
        ],
        "callbacks": [{"type": "latency_monitor"}],
        **changes,
    }
    columns = {"shape": [DIM], "dtype": "float32", "order": JOINTS}
    manifest = {
        "format": "policy_package",
        "version": "1.0",
        "policy": {"name": "act", "source": {"class_path": "physicalai.policies.act.policy.ACT"}},
        "model": {key: value for key, value in model.items() if value is not None},
        "hardware": {
            "robots": [{"name": "main", "type": "Panda", "state": columns, "action": columns}],
            "cameras": [{"name": "top", "shape": [3, HEIGHT, WIDTH]}],
        },
        "metadata": {"created_by": "another program"},
    }
    write(folder, manifest)
    return folder


def write(folder: Path, manifest: Mapping[str, Any]) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest))


def manifest_of(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text())


def by_hand(folder: Path, pixels: NDArray[np.uint8], state: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the package answers: its graph in onnxruntime, between formulas that are written out here. (16, 7)"""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    image = (pixels.astype(np.float32) / 255 - COLOUR_MEAN) / COLOUR_SPREAD
    feeds = {
        "observation.images.top": image.transpose(2, 0, 1)[None].astype(np.float32),
        "observation.state": ((state - MEANS) / SPREADS)[None],
    }
    chunk: NDArray[np.float32] = session.run(["action"], feeds)[0][0] * SPREADS + MEANS
    return chunk
