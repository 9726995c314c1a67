# SPDX-License-Identifier: Apache-2.0
"""Operators of a small graph are computed by one thread, unless a number is given."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from reflex_core.policy.op_threads import ONE_PER_CORE, SMALL_BYTES, op_threads
from reflex_core.policy.providers import CPU, Placement
from reflex_core.policy.session import EagerSession


def graph(folder: Path, weights: int, *, beside: bool = False) -> Path:
    """Return a graph that adds so many float32 weights; beside: in a file of their own."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [weights], bytes(4 * weights), raw=True)
    names = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [weights]) for name in ("x", "y")]
    added = helper.make_node("Add", ["x", "w"], ["y"])
    made = helper.make_model(
        helper.make_graph([added], "adds", names[:1], names[1:], [tensor]),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=9,
    )  # fmt: skip
    path = folder / "graph.onnx"
    onnx.save(made, str(path), save_as_external_data=beside, location="weights.bin", size_threshold=0)
    return path


@pytest.mark.parametrize("beside", [False, True], ids=["in the graph", "beside it"])
@pytest.mark.parametrize(("weights", "threads"), [(100, 1), (SMALL_BYTES // 4, ONE_PER_CORE)])
def test_a_graph_below_eight_megabytes_is_computed_by_one_thread(
    tmp_path: Path, weights: int, threads: int, *, beside: bool
) -> None:
    path = graph(tmp_path, weights, beside=beside)
    assert op_threads(path) == threads
    session = EagerSession(path, Placement((CPU,)))
    assert session._ort.get_session_options().intra_op_num_threads == threads


def test_a_number_that_is_given_wins(tmp_path: Path) -> None:
    session = EagerSession(graph(tmp_path, 100), Placement((CPU,), intra_op_threads=2))
    assert session._ort.get_session_options().intra_op_num_threads == 2


def test_a_graph_whose_weights_are_missing_is_left_to_onnxruntime(tmp_path: Path) -> None:
    path = graph(tmp_path, 100, beside=True)
    (tmp_path / "weights.bin").unlink()
    assert op_threads(path) == ONE_PER_CORE
    assert op_threads(tmp_path / "none.onnx") == ONE_PER_CORE
