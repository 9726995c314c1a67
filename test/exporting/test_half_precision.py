# SPDX-License-Identifier: Apache-2.0
"""A graph in float16 still knows its angles."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from reflex_export.families.half_precision import to_half

FASTEST = 1570.0  # rad for a flow time of 1: 2 pi over the shortest period of pi0
WIDTH = 16


def value(name: str, kind: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.fixture
def model() -> Any:
    """A flow time and a token's position become sines, which weights mix; one constant is of both an angle and a sum."""
    random = np.random.default_rng(3)
    rates = np.geomspace(1.0, FASTEST, WIDTH // 2, dtype=np.float32)
    weights = {
        "rates": rates[None], "mixing": random.standard_normal((WIDTH, 8)).astype(np.float32), "minus": np.array([-1]),
        "limit": np.array(0, np.int64), "one_step": np.array(1, np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node(
            "Constant",
            [],
            ["half"],
            "half_node",
            value=numpy_helper.from_array(np.array(0.5, np.float32), "half"),
        ),
        helper.make_node("Unsqueeze", ["t", "minus"], ["column"], "column_node"),
        helper.make_node("Mul", ["column", "rates"], ["turned"], "turned_node"),
        helper.make_node("Add", ["turned", "half"], ["angles"], "angles_node"),
        helper.make_node("Sin", ["angles"], ["sines"], "sines_node"),
        helper.make_node("Cos", ["angles"], ["cosines"], "cosines_node"),
        helper.make_node("Concat", ["sines", "cosines"], ["waves"], "waves_node", axis=1),
        helper.make_node("MatMul", ["waves", "mixing"], ["mixed"], "mixed_node"),
        helper.make_node("Add", ["mixed", "half"], ["out"], "out_node"),
    ]
    kinds = {
        "turned": WIDTH // 2,
        "angles": WIDTH // 2,
        "sines": WIDTH // 2,
        "cosines": WIDTH // 2,
        "waves": WIDTH,
        "mixed": 8,
    }
    graph = helper.make_graph(
        nodes, "waves",
        [value("t", TensorProto.FLOAT, "batch")],
        [value("out", TensorProto.FLOAT, "batch", 8)],
        [numpy_helper.from_array(numbers, name) for name, numbers in weights.items()],
        value_info=[
            value("column", TensorProto.FLOAT, "batch", 1),
            *(value(name, TensorProto.FLOAT, "batch", width) for name, width in kinds.items()),
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: Any, times: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {"t": times})
    return np.asarray(made)


def test_a_flow_time_keeps_its_sines(model: Any) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    times = (1 - np.arange(10) / 10).astype(np.float32)
    wanted = run(model, times)
    plainly = onnx.ModelProto()
    plainly.CopyFrom(model)
    plainly = convert_float_to_float16(plainly, keep_io_types=True, disable_shape_infer=True)
    assert np.abs(run(plainly, times) - wanted).max() > 0.5
    half = to_half(model)
    onnx.checker.check_model(half, full_check=True)
    np.testing.assert_allclose(run(half, times), wanted, rtol=0, atol=0.01)


def test_weights_and_sums_are_half_as_large(model: Any) -> None:
    half = to_half(model)
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert kinds["mixing"] == TensorProto.FLOAT16
    assert kinds["rates"] == TensorProto.FLOAT
    assert {put.type.tensor_type.elem_type for put in (*half.graph.input, *half.graph.output)} == {
        TensorProto.FLOAT
    }
