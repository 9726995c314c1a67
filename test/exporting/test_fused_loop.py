# SPDX-License-Identifier: Apache-2.0
"""A prefix and a denoise step become one graph that runs the whole sampler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from reflex_export.families.fused_loop import Row, euler, fuse
from reflex_export.families.xvla import mixed

WIDE, ROWS = 300, 4  # columns of the weights, and rows of a chunk of 2
Sampled = tuple[Path, dict[str, NDArray[Any]], NDArray[np.float32]]


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def saved(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any]
) -> Path:
    """One graph, its weights in a file beside it as those of a large one are."""
    tensors = [numpy_helper.from_array(numbers, name) for name, numbers in weights.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=1000)
    return path


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    """seen, state -> past; x_t, t, past, state -> v_t. Both have a node, a weight and a value of the same name."""
    random = np.random.default_rng(1)
    prefix = saved(
        tmp_path / "vlm_prefix.onnx",
        [
            helper.make_node("MatMul", ["seen", "weight"], ["hidden"], "node"),
            helper.make_node("Tanh", ["hidden"], ["past"]),
        ],
        [value("seen", "batch", 5)],
        [value("past", "batch", WIDE)],
        {"weight": random.standard_normal((5, WIDE)).astype(np.float32)},
    )
    step = saved(
        tmp_path / "expert_denoise.onnx",
        [
            helper.make_node("MatMul", ["past", "weight"], ["hidden"], "node"),
            helper.make_node("Add", ["hidden", "state"], ["with_state"]),
            helper.make_node("Unsqueeze", ["t", "one"], ["time"]),
            helper.make_node("Mul", ["with_state", "time"], ["now"]),
            helper.make_node("Unsqueeze", ["now", "one"], ["for_rows"]),
            helper.make_node("Add", ["for_rows", "x_t"], ["moved"]),
            helper.make_node("Sin", ["moved"], ["v_t"]),
        ],
        [
            value("x_t", "batch", ROWS, 2),
            value("t", "batch"),
            value("past", "batch", WIDE),
            value("state", "batch", 2),
        ],
        [value("v_t", "batch", ROWS, 2)],
        {"weight": random.standard_normal((WIDE, 2)).astype(np.float32), "one": np.array([1])},
    )
    return prefix, step


def session(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def given(batch: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(2)
    shapes = {"noise": (batch, ROWS, 2), "seen": (batch, 5), "state": (batch, 2)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def by_steps(parts: tuple[Path, Path], rows: tuple[Row, ...], inputs: dict[str, Any]) -> NDArray[np.float32]:
    prefix, step = map(session, parts)
    (past,) = prefix.run(None, {"seen": inputs["seen"]})
    x = noise = inputs["noise"]
    for row in rows:
        time = np.full(len(noise), row.time, np.float32)
        (answer,) = step.run(None, {"x_t": x, "t": time, "past": past, "state": inputs["state"]})
        x = (
            np.float32(row.from_x) * x
            + np.float32(row.from_start) * noise
            + np.float32(row.from_network) * answer
        )
    return x


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "rows", [euler(4), mixed(5), (Row(0.5, 0.25, 2.0, 0.125),)], ids=["euler", "mixed", "all"]
)
def test_one_graph_answers_as_prefix_and_steps_do(
    parts: tuple[Path, Path], rows: tuple[Row, ...], batch: int, tmp_path: Path
) -> None:
    inputs = given(batch)
    wanted = by_steps(parts, rows, inputs)
    fuse(*parts, tmp_path / "model.onnx", rows)
    whole = session(tmp_path / "model.onnx")
    assert {put.name for put in whole.get_inputs()} == set(inputs)
    (made,) = whole.run(["actions"], inputs)
    np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-6)


def test_weights_stay_in_the_files_that_they_were_written_into(
    parts: tuple[Path, Path], tmp_path: Path
) -> None:
    nodes = fuse(*parts, tmp_path / "model.onnx", euler(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "expert_denoise.onnx.data", "model.onnx", "vlm_prefix.onnx.data",
    ]  # fmt: skip
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    named = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert named == {"expert_denoise.onnx.data", "vlm_prefix.onnx.data"}
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    assert nodes == len(model.graph.node) + len(loop.attribute[0].g.node)
