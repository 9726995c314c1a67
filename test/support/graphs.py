# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the small ONNX graphs in exports.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
WIDTH = 32  # SmolVLA, pi0 and pi0.5 pad states and actions to this
FEATURES = 8
TOKENS = 16
STEPS = 10
VOCABULARY = 32


class Graph:
    """A graph under construction; every method returns the name of a tensor.

    free_batch: the first axis of every input and output, 1 otherwise, may be any.
    """

    def __init__(self, seed: int = 7, *, free_batch: bool = False) -> None:
        self.free_batch = free_batch
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._random = np.random.default_rng(seed)

    def input(self, name: str, kind: int, shape: list[int | str]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, kind, self._rows(shape)))
        return name

    def output(self, tensor: str, name: str, kind: int, shape: list[int | str]) -> None:
        self._nodes.append(helper.make_node("Identity", [tensor], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind, self._rows(shape)))

    def _rows(self, shape: list[int | str]) -> list[int | str]:
        return ["batch", *shape[1:]] if self.free_batch else shape

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def weights(self, *shape: int) -> str:
        return self.constant(self._random.normal(scale=shape[0] ** -0.5, size=shape))

    def op(self, kind: str, *tensors: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(tensors), [name], **attributes))
        return name

    def to(self, tensor: str, kind: int) -> str:
        return self.op("Cast", tensor, to=kind)

    def shaped(self, tensor: str, *shape: int) -> str:
        kept = (0, *shape[1:]) if self.free_batch and shape else shape
        return self.op("Reshape", tensor, self.constant(kept, np.int64))

    def mean(self, tensor: str, *axes: int) -> str:
        return self.op("ReduceMean", tensor, self.constant(axes, np.int64), keepdims=0)

    def save(self, path: Path) -> None:
        graph = helper.make_graph(self._nodes, path.stem, self._inputs, self._outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def embedded(graph: Graph, cameras: list[str], size: int, tokens: int = TOKENS) -> tuple[str, str, int]:
    """Images and words as one sequence: (1, length, FEATURES) embeddings, (1, length) mask, length."""
    parts, masks = [], []
    images = [graph.input(f"img_{camera}", FLOAT, [1, 3, size, size]) for camera in cameras]
    flags = [graph.input(f"mask_{camera}", BOOL, [1]) for camera in cameras]
    for image, flag in zip(images, flags, strict=True):
        colour = graph.shaped(graph.mean(image, 2, 3), 1, 1, 3)
        parts.append(graph.op("MatMul", colour, graph.weights(3, FEATURES)))
        masks.append(graph.shaped(flag, 1, 1))
    words = graph.input("lang_tokens", INT64, [1, tokens])
    masks.append(graph.input("lang_masks", BOOL, [1, tokens]))
    parts.append(graph.op("Gather", graph.weights(VOCABULARY, FEATURES), words))
    mask = graph.to(graph.op("Concat", *(graph.to(mask, FLOAT) for mask in masks), axis=1), BOOL)
    return graph.op("Concat", *parts, axis=1), mask, len(cameras) + tokens


def pooled(graph: Graph, sequence: str, mask: str, length: int) -> str:
    """(1, FEATURES) sum of (1, length, FEATURES) over what the mask leaves, divided by length."""
    weight = graph.shaped(graph.to(mask, FLOAT), 1, length, 1)
    return graph.mean(graph.op("Mul", sequence, weight), 1)


def targeted(graph: Graph, parts: list[tuple[str, int]], width: int) -> str:
    """(1, 1, width) where the flow goes, from (1, n) parts given with their n."""
    joined = graph.op("Concat", *(name for name, _ in parts), axis=1)
    goal = graph.op("Tanh", graph.op("MatMul", joined, graph.weights(sum(size for _, size in parts), width)))
    return graph.shaped(goal, 1, 1, width)


def velocity(graph: Graph, x: str, time: str, goal: str) -> str:
    """dx/dt, time as (1, 1, 1)."""
    drift = graph.op("Mul", time, graph.constant(0.1))
    return graph.op("Add", graph.op("Sub", x, goal), drift)


def loop(graph: Graph, noise: str, goal: str, steps: int = STEPS) -> str:
    """The whole Euler loop from t = 1 to 0, unrolled."""
    x = noise
    for step in range(steps):
        slope = velocity(graph, x, graph.constant([[[1 - step / steps]]]), goal)
        x = graph.op("Sub", x, graph.op("Mul", slope, graph.constant(1 / steps)))
    return x


def delayed(graph: Graph, tensor: str, products: int, size: int = 384) -> str:
    """The tensor unchanged, after that many size x size matrix products that depend on it."""
    if not products:
        return tensor
    first = graph.op("ReduceMax", tensor, keepdims=0)
    block = graph.op("Add", graph.constant(np.eye(size)), first)
    turn = graph.constant(np.roll(np.eye(size), 1, axis=0))
    for _ in range(products):
        block = graph.op("MatMul", block, turn)
    nothing = graph.op("Mul", graph.op("ReduceMin", block, keepdims=0), graph.constant(0.0))
    return graph.op("Add", tensor, nothing)


def folded(graph: Graph, tensor: str, products: int, size: int = 512) -> str:
    """The tensor unchanged, plus that many products of constants, which onnxruntime does when it loads."""
    if not products:
        return tensor
    block = turn = graph.constant(np.roll(np.eye(size), 1, axis=0))
    for _ in range(products):
        block = graph.op("MatMul", block, turn)
    nothing = graph.op("Mul", graph.op("ReduceMin", block, keepdims=0), graph.constant(0.0))
    return graph.op("Add", tensor, nothing)


def failing(graph: Graph, tensor: str, state: str, failure: str) -> str:
    """The tensor, until the first state exceeds 2: then NaN (`nan`) or an error of onnxruntime (`raise`).

    `always` is NaN whatever the state is.
    """
    if not failure:
        return tensor
    first = graph.op("Slice", state, *(graph.constant([bound], np.int64) for bound in (0, 1, 1)))
    if graph.free_batch:
        first = graph.shaped(first, 1, 1, 1)
    if failure == "raise":
        row = graph.to(graph.op("Greater", first, graph.constant(2.0)), INT64)
        return graph.op("Add", tensor, graph.op("Gather", graph.constant([0.0]), row))
    room = graph.constant(np.nan) if failure == "always" else graph.op("Sub", graph.constant(2.0), first)
    nothing = graph.op("Mul", graph.op("Sqrt", room), graph.constant(0.0))
    return graph.op("Add", tensor, nothing)


def mixing(graph: Graph, tensor: str, share: float) -> str:
    """The tensor, moved towards the mean of its batch by a share; alone it stays as it is."""
    if not share:
        return tensor
    mean = graph.op("ReduceMean", tensor, graph.constant([0], np.int64), keepdims=1)
    towards = graph.op("Mul", graph.op("Sub", mean, tensor), graph.constant(share))
    return graph.op("Add", tensor, towards)


def computing(graph: Graph, tensor: str, products: int, tokens: int = 1, size: int = 384) -> str:
    """The tensor unchanged, after that many products of each request's tokens with size x size weights, each its own.

    With one token the weights decide how long it takes, with many the arithmetic.
    """
    if not products:
        return tensor
    most = graph.op("ReduceMax", tensor, graph.constant([1, 2], np.int64), keepdims=1)
    wide = graph.op("Mul", most, graph.constant(np.ones((tokens, size))))
    for _ in range(products):
        wide = graph.op("Tanh", graph.op("MatMul", wide, graph.weights(size, size)))
    least = graph.op("ReduceMin", wide, graph.constant([1, 2], np.int64), keepdims=1)
    return graph.op("Add", tensor, graph.op("Mul", least, graph.constant(0.0)))


def burning(graph: Graph, tensor: str, state: str, products: int, size: int = 384) -> str:
    """The tensor unchanged; once the first state exceeds 2, after that many size x size matrix products."""
    if not products:
        return tensor
    first = graph.op("Slice", state, *(graph.constant([bound], np.int64) for bound in (0, 1, 1)))
    if graph.free_batch:
        first = graph.op("ReduceMax", first, keepdims=0)
    above = graph.to(graph.op("Greater", first, graph.constant(2.0)), INT64)
    count = graph.shaped(graph.op("Mul", above, graph.constant(products, np.int64)))
    block = graph.op("Add", graph.constant(np.eye(size)), graph.op("ReduceMax", tensor, keepdims=0))
    turn = graph.constant(np.roll(np.eye(size), 1, axis=0))
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["going"]),
            helper.make_node("MatMul", ["block", turn], ["turned"]),
        ],
        "burn",
        [
            helper.make_tensor_value_info("round", INT64, []),
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("block", FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("going", BOOL, []),
            helper.make_tensor_value_info("turned", FLOAT, [size, size]),
        ],
    )
    burnt = graph.op("Loop", count, "", block, body=body)
    nothing = graph.op("Mul", graph.op("ReduceMin", burnt, keepdims=0), graph.constant(0.0))
    return graph.op("Add", tensor, nothing)
