# SPDX-License-Identifier: Apache-2.0
"""Small graphs with the inputs that an exporter describes, in place of those that torch would write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from graphs import BOOL, FLOAT, INT64, Graph

from reflex_export.checkpoint import Checkpoint
from reflex_export.export import TorchSide
from reflex_export.families.table import family
from reflex_export.options import ExportOptions
from reflex_export.result import Difference, Verification

DIFFUSION_ROWS = [[90, 1.0, -0.5, 0.5, 0.5, 0.0, 0.0], [0, 1.0, -0.1, 1.0, 0.0, 0.0, 0.0]]
COLUMNS = [
    "time", "x0_from_x", "x0_from_network", "next_from_x0", "next_from_x", "next_from_network", "next_from_noise"
]  # fmt: skip


def described(checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:
    """What only a loaded policy knows: here the table of a schedule of two steps."""
    if checkpoint.family != "diffusion":
        return {}
    table = {"columns": COLUMNS, "rows": DIFFUSION_ROWS, "clip": 1.0}
    return {"sampler": table, "num_denoising_steps": len(DIFFUSION_ROWS)}


def write_graphs(checkpoint: Checkpoint, folder: Path, options: ExportOptions) -> None:
    """Write every graph that the family's description names; their answers depend on every input."""
    description = family(checkpoint.family).describe(checkpoint, options)
    first = Graph()
    seen = _seen(first, checkpoint, description)
    rows, files = checkpoint.horizon, description["graphs"]
    if "monolithic" in files and "noise" not in description.get("flow", {}):
        shape = [1, rows, checkpoint.action_dim]
        first.output(_spread(first, seen, shape), description["actions_output"], FLOAT, shape)
        first.save(folder / files["monolithic"])
        return
    width = checkpoint.action_dim if checkpoint.family == "diffusion" else _width(checkpoint)
    shape = [1, rows, width]
    if "monolithic" in files:
        noise = first.input("noise", FLOAT, shape)
        first.output(first.op("Add", noise, _spread(first, seen, shape)), "actions", FLOAT, shape)
        first.save(folder / files["monolithic"])
        return
    first.output(seen, "past_k", FLOAT, [1, 1, 1])
    first.save(folder / files["prefix"])
    step = Graph()
    noisy, past = step.input("x_t", FLOAT, shape), step.input("past_k", FLOAT, [1, 1, 1])
    time = step.input("t", INT64 if checkpoint.family == "diffusion" else FLOAT, [1])
    at = step.shaped(step.to(time, FLOAT), 1, 1, 1)
    velocity = step.op("Add", step.op("Mul", noisy, at), _spread(step, past, shape))
    step.output(velocity, "v_t", FLOAT, shape)
    step.save(folder / files["denoise"])


def _width(checkpoint: Checkpoint) -> int:
    return int(checkpoint.config["max_action_dim"])


def _seen(graph: Graph, checkpoint: Checkpoint, description: Mapping[str, Any]) -> str:
    """Everything that the policy reads as one number, (1, 1, 1)."""
    history = [checkpoint.observation_steps] if checkpoint.observation_steps > 1 else []
    parts = []
    for slot in description["images"]:
        picture = graph.input(slot["input"], FLOAT, [1, *history, 3, slot["height"], slot["width"]])
        parts.append(_one(graph, picture))
        if slot["mask"]:
            parts.append(_one(graph, graph.to(graph.input(slot["mask"], BOOL, [1]), FLOAT)))
    if "language" in description:
        length = description["language"]["length"]
        tokens = graph.to(graph.input("lang_tokens", INT64, [1, length]), FLOAT)
        words = graph.op("Div", tokens, graph.constant(500.0))
        if description["language"]["mask"]:
            words = graph.op("Mul", words, graph.to(graph.input("lang_masks", BOOL, [1, length]), FLOAT))
        parts.append(_one(graph, words))
    if "input" in description.get("state", {}):
        parts.append(_one(graph, graph.input("state", FLOAT, [1, *history, description["state"]["width"]])))
    for name in description.get("constants", {}):
        parts.append(_one(graph, graph.to(graph.input(name, INT64, [1]), FLOAT)))
    total = parts[0]
    for part in parts[1:]:
        total = graph.op("Add", total, part)
    return total


def _one(graph: Graph, tensor: str) -> str:
    return graph.shaped(graph.op("ReduceMean", tensor, keepdims=0), 1, 1, 1)


def _spread(graph: Graph, number: str, shape: list[int]) -> str:
    """One number as rows and columns that all differ, between -1 and 1."""
    ramp = np.linspace(-1.0, 1.0, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return graph.op("Tanh", graph.op("Mul", graph.constant(ramp), number))


def small_side(difference: float = 1e-6, **replaced: Any) -> TorchSide:
    """The part of an export that needs torch, with graphs that cost nothing and a comparison that found `difference`."""

    def write(_: object, checkpoint: Checkpoint, folder: Path, options: ExportOptions) -> str:
        write_graphs(checkpoint, folder, options)
        return "they are small"

    def compare(
        answers: object, checkpoint: Checkpoint, folder: Path, options: ExportOptions, why_alone: str
    ) -> Verification:
        joints = tuple(Difference(name, difference, difference / 2, 1.0, "rad") for name in checkpoint.joints)
        stages = (
            Difference("pictures", 0.0, 0.0, 1.0),
            Difference("chunk", difference, difference / 2, 1.0, "rad"),
        )
        return Verification(
            ("random, 640x480",), stages, joints, options.largest_difference, (1,), 0.5, {"lerobot": "0.6.1"}
        )

    own: dict[str, Any] = {
        "load": lambda _: object(),
        "describe": lambda _, checkpoint, options: described(checkpoint, options),
        "answers": lambda *_: object(),
        "write": write,
        "compare": compare,
    }
    return TorchSide(**(own | replaced))
