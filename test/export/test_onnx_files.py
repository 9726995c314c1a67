# SPDX-License-Identifier: Apache-2.0
"""Graphs are written for any batch where that can be traced, for one observation where it cannot, or refused by their operator."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from reflex_core.errors import ExportError
from reflex_export.families.base import Graph
from reflex_export.onnx_files import EXTERNAL_BYTES, write_graph
from reflex_export.options import FP16, FP32


class Doubling(torch.nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, width)

    def forward(self, seen: Any) -> Any:
        return self.layer(seen) * 2


class OfOne(torch.nn.Module):
    """Takes the four numbers of one observation for a square."""

    def forward(self, seen: Any) -> Any:
        return seen.view(2, 2)[None]


class Unwritable(torch.nn.Module):
    """An operator that ONNX has not."""

    def forward(self, seen: Any) -> Any:
        return torch.linalg.eigvals(seen.reshape(-1, 2, 2)).real


def graph(module: torch.nn.Module, width: int = 4, **fields: Any) -> Graph:
    example = {"seen": torch.linspace(-1, 1, width).reshape(1, width)}
    return Graph("monolithic", "model.onnx", module.eval(), example, ("made",), **fields)


def run(file: Path, seen: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {"seen": seen})[0]


def test_a_graph_takes_any_batch_and_says_nothing_of_who_wrote_it(tmp_path: Path) -> None:
    module = Doubling()
    written = write_graph(graph(module), tmp_path, FP32)
    assert (written.any_batch, written.why_fixed) == (True, "")
    seen = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    wanted = module(torch.from_numpy(seen)).detach().numpy()
    np.testing.assert_allclose(run(written.file, seen), wanted, atol=1e-6)
    model = onnx.load(written.file)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert b"test_onnx_files" not in written.file.read_bytes()


def test_a_network_that_is_fixed_to_its_example_is_written_for_one(tmp_path: Path) -> None:
    written = write_graph(graph(OfOne()), tmp_path, FP32)
    assert not written.any_batch
    assert re.search("view|shape|inconsistent", written.why_fixed), written.why_fixed
    assert run(written.file, np.ones((1, 4), np.float32)).shape == (1, 2, 2)


def test_a_family_may_ask_for_one_alone(tmp_path: Path) -> None:
    written = write_graph(graph(Doubling(), batched=False), tmp_path, FP32)
    assert (written.any_batch, written.why_fixed) == (False, "")
    assert onnx.load(written.file).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_an_operator_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as refused:
        write_graph(graph(Unwritable()), tmp_path, FP32)
    message = str(refused.value)
    assert message.startswith("model.onnx: torch ")
    assert "eig" in message
    assert "install the torch and lerobot" in message
    assert "\n" not in message


def test_a_full_disk_is_no_operator_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        write_graph(graph(Doubling()), tmp_path, FP32)


def test_large_weights_lie_beside_the_graph_in_both_precisions(tmp_path: Path) -> None:
    width = int((EXTERNAL_BYTES / 4) ** 0.5) + 300
    module = Doubling(width)
    seen = np.random.default_rng(0).normal(size=(2, width)).astype(np.float32)
    wanted = module(torch.from_numpy(seen)).detach().numpy()
    sizes = []
    for dtype, tolerance in ((FP32, 1e-4), (FP16, 2e-2)):
        folder = tmp_path / dtype
        folder.mkdir()
        written = write_graph(graph(module, width), folder, dtype)
        np.testing.assert_allclose(run(written.file, seen), wanted, atol=tolerance)
        sizes.append(written.bytes)
    assert {path.name for path in (tmp_path / FP32).iterdir()} == {"model.onnx", "model.onnx.data"}
    assert (tmp_path / FP32 / "model.onnx").stat().st_size < 100_000
    assert 0.45 < sizes[1] / sizes[0] < 0.55
