# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph in float16, but for what loses its meaning there: angles, whose sine a rounded one has nothing to do with.

Above 1024 float16 counts in whole numbers, and the flow time of pi0 and SmolVLA is multiplied by up to 1570 rad.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ANGLES = ("Sin", "Cos")
CONSTANT = "Constant"
UNTOUCHED = ("Range",)  # has no float16 in ONNX
_WIDENED = "_cast_to_fp32"  # how the converter ends the name of a value that it casts for a float32 node


def to_half(model: Any) -> Any:
    """Return a model whose weights and computation are float16; its inputs and outputs stay float32.

    model: onnx.ModelProto with its weights, and types for all values, as torch writes them.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    angles = _angles(model.graph)
    half = convert_float_to_float16(
        model,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *UNTOUCHED],
        node_block_list=[node.name for node in angles],
    )
    _join(half.graph)
    return half


def _angles(graph: Any) -> list[Any]:
    """Return the nodes that make angles and take their sines, with constants that nothing else uses."""
    maker = {name: node for node in graph.node for name in node.output}
    left = [node for node in graph.node if node.op_type in ANGLES]
    found: dict[str, Any] = {}
    while left:
        node = left.pop()
        if node.name not in found:
            found[node.name] = node
            made_by = [maker[name] for name in node.input if name in maker]
            left += [node for node in made_by if node.op_type != CONSTANT]
    own = [copy for node in found.values() for copy in _with_own_constants(node, maker)]
    graph.node.extend(own)
    return [*found.values(), *own]


def _with_own_constants(node: Any, maker: Mapping[str, Any]) -> Iterator[Any]:
    """Yield copies of the constants that a node takes, and let it take those."""
    for index, name in enumerate(node.input):
        if name in maker and maker[name].op_type == CONSTANT:
            copy = type(node)()
            copy.CopyFrom(maker[name])
            copy.name = copy.output[0] = f"{node.name}/constant_{index}"
            node.input[index] = copy.output[0]
            yield copy


def _join(graph: Any) -> None:
    """Let a value that was rounded to float16 and made float32 again be what it was before: between two float32 nodes.

    The converter writes such a cast once for each node that takes its value; one is kept.
    """
    from onnx import TensorProto

    casts, once = {}, []
    for node in graph.node:
        if node.op_type == "Cast":
            if node.output[0] in casts:
                continue
            casts[node.output[0]] = (node.input[0], node.attribute[0].i)
        once.append(node)
    wide = {}
    for name, (source, kind) in casts.items():
        before, between = casts.get(source, ("", 0))
        if (kind, between) == (TensorProto.FLOAT, TensorProto.FLOAT16) and name.endswith(_WIDENED):
            wide[name] = before
    for node in once:
        for index, name in enumerate(node.input):
            node.input[index] = wide.get(name, name)
    kept = [node for node in once if not set(node.output) <= wide.keys()]
    ordered = list(_ordered(kept))
    del graph.node[:]
    graph.node.extend(ordered)


def _ordered(nodes: list[Any]) -> Iterator[Any]:
    """Yield the nodes so that each comes after those whose values it takes, else in the order that they have."""
    maker = {name: index for index, node in enumerate(nodes) for name in node.output}
    made: set[int] = set()
    for first in range(len(nodes)):
        left = [first]
        while left:
            makers = (maker.get(name) for name in nodes[left[-1]].input)
            missing = next((index for index in makers if index is not None and index not in made), None)
            if missing is not None:
                left.append(missing)
            elif (index := left.pop()) not in made:
                made.add(index)
                yield nodes[index]
