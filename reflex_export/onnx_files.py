# SPDX-License-Identifier: Apache-2.0
"""Write the graphs of a policy as ONNX files: any batch where the network allows it, large weights beside the graph."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reflex_core.concurrency.progress import report
from reflex_core.errors import ExportError
from reflex_export.families.base import Graph
from reflex_export.families.blocks import FUSED_FILE
from reflex_export.families.fused_loop import Row, fuse
from reflex_export.families.half_precision import to_half
from reflex_export.loading.causes import disk_full, first_cause, reason
from reflex_export.loading.quiet import quiet
from reflex_export.options import FP16, ExportOptions

OPSET = 18
EXTERNAL_BYTES = (
    200_000_000  # of weights, from where they lie in a file beside the graph: a protobuf ends at 2 GB
)
BATCH = "batch"
_OPERATOR = re.compile(r"\b(?:aten|prims|torchvision|higher_order)[.:]+[\w.]+")


@dataclass(frozen=True, slots=True)
class Written:
    """One graph on disk. bytes: with its external data. nodes: of the graph. any_batch: axis 0 of its inputs may vary.

    why_fixed: why it takes a batch of 1 alone; "" where it takes any, or was not meant to.
    """

    file: Path
    bytes: int
    nodes: int
    any_batch: bool
    why_fixed: str = ""


def write_graphs(graphs: Iterable[Graph], folder: Path, options: ExportOptions) -> str:
    """Write the graphs of a policy; return why they take one observation at a time, "" where they take any batch.

    Raises ExportError naming the graph and the operator that cannot be written.
    """
    written: list[Path] = []
    loops: list[tuple[Row, ...]] = []
    why = ""
    for graph in graphs:
        report(len(written) / (len(written) + 1), graph.file)
        one = write_graph(graph, folder, options.dtype)
        written.append(one.file)
        loops += [graph.loop] if graph.loop else []
        why = (
            why or one.why_fixed or ("" if one.any_batch else f"{graph.file} takes one observation at a time")
        )
    if options.fused and loops:
        prefix, step = written
        fuse(prefix, step, folder / FUSED_FILE, loops[0])
    return why


def write_graph(graph: Graph, folder: Path, dtype: str) -> Written:
    """Write one graph, and `<file>.data` beside it where its weights are large.

    dtype: `fp32`, or `fp16` for weights and computation; inputs and outputs are float32 in both.
    Raises ExportError naming the operator that cannot be written, and what to do; OSError for a full disk.
    """
    path, why = folder / graph.file, ""
    any_batch = graph.batched
    if any_batch:
        try:
            _export(graph, path, any_batch=True)
        except Exception as error:  # whatever torch raises for a network that is fixed to its example
            _raise_if_full(error)
            any_batch, why = False, _reason(error)
    if not any_batch:
        try:
            _export(graph, path, any_batch=False)
        except Exception as error:
            _raise_if_full(error)
            raise _not_written(graph, error) from error
    nodes = _finish(path, dtype)
    files = (path, path.with_name(f"{path.name}.data"))
    return Written(path, sum(file.stat().st_size for file in files if file.exists()), nodes, any_batch, why)


def _export(graph: Graph, path: Path, *, any_batch: bool) -> None:
    import torch

    class ByPosition(torch.nn.Module):
        """torch names the axes of inputs by their position."""

        def __init__(self) -> None:
            super().__init__()
            self.network = graph.module

        def forward(self, *inputs: Any) -> Any:
            return self.network(*inputs)

    examples = tuple(graph.inputs.values())
    shapes = None
    if any_batch:
        # torch takes an axis of 1 for a fixed one
        examples = tuple(torch.cat([example, example]) for example in examples)
        shapes = (tuple({0: torch.export.Dim(BATCH)} for _ in examples),)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in graph.module.state_dict().values())
    with quiet(), torch.no_grad():
        torch.onnx.export(
            ByPosition().eval(),
            examples,
            str(path),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            dynamo=True,
            external_data=weights > EXTERNAL_BYTES,
            dynamic_shapes=shapes,
            optimize=False,
            verbose=False,
        )


def _finish(path: Path, dtype: str) -> int:
    """Take the stack traces out that torch writes on every node, convert to the dtype; return the number of nodes."""
    import onnx

    if dtype == FP16:
        _to_half(path)
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.save(model, path)
    return len(model.graph.node)


def _to_half(path: Path) -> None:
    """Convert weights and computation to float16; inputs and outputs stay float32."""
    import onnx

    data = path.with_name(f"{path.name}.data")
    half = to_half(onnx.load(path))
    data.unlink(missing_ok=True)
    large = sum(len(tensor.raw_data) for tensor in half.graph.initializer) > EXTERNAL_BYTES
    onnx.save(half, path, save_as_external_data=large, location=data.name, size_threshold=1024)


def _reason(error: Exception) -> str:
    """Return in a line why torch could not write a graph: the operator, if one is named, and the first cause."""
    first = reason(error)
    operator = _OPERATOR.search(str(first_cause(error))) or _OPERATOR.search(str(error))
    named = f"{operator[0]}: " if operator and operator[0] not in first else ""
    return f"{named}{first}"


def _raise_if_full(error: Exception) -> None:
    """Raise OSError where torch failed because the disk is full: no other way of writing would do."""
    full = disk_full(error)
    if full is not None:
        raise full from error


def _not_written(graph: Graph, error: Exception) -> ExportError:
    import torch

    return ExportError(
        f"{graph.file}: torch {torch.__version__} cannot write the {graph.role} graph: {_reason(error)}: install the torch and"
        " lerobot that `reflex export --help` names, and if it stays so, report this line with the checkpoint's config.json",
        "not-exportable",
    )
