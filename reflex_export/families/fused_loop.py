# SPDX-License-Identifier: Apache-2.0
"""One graph of a prefix and one denoise step: the whole sampler as an ONNX Loop around the step.

Written this way, and not by tracing the loop, a step is in the file once. SmolVLA's ten steps, traced, are 50,000 nodes that take ten
minutes to write and three quarters of one to load.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reflex_export.families.names import ACTIONS, NOISE, NOISY, TIME, VELOCITY

_OF_PREFIX, _OF_STEP, _OF_LOOP = "prefix/", "step/", "loop/"


@dataclass(frozen=True, slots=True)
class Row:
    """One step: x becomes from_x * x + from_network * network(x, time) + from_start * noise, in float32."""

    time: float
    from_x: float
    from_network: float
    from_start: float = 0.0


def euler(steps: int) -> tuple[Row, ...]:
    """Return explicit Euler in equal steps from noise at time 1 to actions at 0."""
    return tuple(Row(1.0 - step / steps, 1.0, -1.0 / steps) for step in range(steps))


def fuse(prefix: Path, step: Path, whole: Path, rows: Sequence[Row]) -> int:
    """Write one graph from `noise` and the inputs of both to `actions`; return its number of nodes.

    The graphs' external data stays in its files, which the new graph names; prefix and step itself are removed.
    """
    import onnx
    from onnx import compose, helper

    before, within = (
        compose.add_prefix(onnx.load(path, load_external_data=False), mark)
        for path, mark in ((prefix, _OF_PREFIX), (step, _OF_STEP))
    )
    inputs, noise, time = _connected(before.graph, within.graph)
    around = _Around(rows, f"{_OF_STEP}{NOISY}", f"{_OF_STEP}{VELOCITY}", time)
    body = _body(within.graph, around, noise)
    loop = helper.make_node("Loop", [_named("steps"), "", NOISE], [ACTIONS], name=_named("loop"), body=body)
    graph = helper.make_graph(
        [*before.graph.node, *around.batch(), loop],
        "sampler",
        [noise, *inputs],
        [helper.make_value_info(ACTIONS, noise.type)],
        [*before.graph.initializer, *within.graph.initializer, *around.initializers()],
    )
    model = helper.make_model(graph, opset_imports=before.opset_import, ir_version=before.ir_version)
    model.functions.extend([*before.functions, *within.functions])
    onnx.save(model, whole)
    for path in (prefix, step):
        path.unlink()
    return len(graph.node) + len(body.node)


def _connected(before: Any, within: Any) -> tuple[list[Any], Any, Any]:
    """Let the step take what the prefix makes, and both the inputs of the whole; return these, the noise and the step's time.

    before, within: graphs of the prefix and the step, whose names have the marks of each in front.
    """
    made = {value.name.removeprefix(_OF_PREFIX): value.name for value in before.output}
    inputs = {value.name.removeprefix(_OF_PREFIX): value for value in before.input}
    later = {value.name.removeprefix(_OF_STEP): value for value in within.input}
    noise, time = later.pop(NOISY), later.pop(TIME)
    names = {f"{_OF_PREFIX}{name}": name for name in inputs}
    names |= {value.name: made.get(name, name) for name, value in later.items()}
    for node in (*before.node, *within.node):
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
    inputs |= {name: value for name, value in later.items() if name not in made}
    for name, value in inputs.items():
        value.name = name
    noise.name = NOISE
    return list(inputs.values()), noise, time


def _body(within: Any, around: _Around, noise: Any) -> Any:
    """Return the graph of one turn of the loop: (its number, whether it goes on, x) -> (whether it goes on, the next x)."""
    from onnx import TensorProto, helper

    return helper.make_graph(
        [*around.times(), *within.node, *around.nexts()],
        "step",
        [
            helper.make_tensor_value_info(_named("number"), TensorProto.INT64, []),
            helper.make_tensor_value_info(_named("goes_on"), TensorProto.BOOL, []),
            helper.make_value_info(around.x, noise.type),
        ],
        [
            helper.make_tensor_value_info(_named("goes_on_still"), TensorProto.BOOL, []),
            helper.make_value_info(_named("next"), noise.type),
        ],
    )


def _named(name: str) -> str:
    return f"{_OF_LOOP}{name}"


@dataclass(frozen=True, slots=True)
class _Around:
    """The nodes around a step that give it its time and make the next x of its answer, by the numbers of the present row.

    x, answer: names of what the step takes and makes. time: the step's input of that, an onnx.ValueInfoProto.
    """

    rows: Sequence[Row]
    x: str
    answer: str
    time: Any

    def initializers(self) -> Iterator[Any]:
        from onnx import helper, numpy_helper

        times = np.array([row.time for row in self.rows])
        times = times.astype(helper.tensor_dtype_to_np_dtype(self.time.type.tensor_type.elem_type))
        yield numpy_helper.from_array(times, _named("times"))
        yield numpy_helper.from_array(np.array(len(self.rows), np.int64), _named("steps"))
        for name, values in self._used().items():
            yield numpy_helper.from_array(np.array(values, np.float32), _named(name))

    def batch(self) -> Iterator[Any]:
        """Yield nodes of the graph around the loop: (1,) how many rows the batch has."""
        from onnx import helper

        yield helper.make_node("Shape", [NOISE], [_named("batch")], start=0, end=1)

    def times(self) -> Iterator[Any]:
        """Yield nodes that make the step's time input."""
        from onnx import helper

        yield helper.make_node("Gather", [_named("times"), _named("number")], [_named("time")])
        yield helper.make_node("Expand", [_named("time"), _named("batch")], [self.time.name])

    def nexts(self) -> Iterator[Any]:
        """Yield nodes that make the next x of the network's answer."""
        from onnx import helper

        yield helper.make_node("Identity", [_named("goes_on")], [_named("goes_on_still")])
        summands = []
        for name, of in (("from_x", self.x), ("from_start", NOISE), ("from_network", self.answer)):
            if name in self._used():
                number, product = _named(f"{name}_now"), _named(f"{name}_part")
                yield helper.make_node("Gather", [_named(name), _named("number")], [number])
                yield helper.make_node("Mul", [number, of], [product])
                summands.append(product)
            elif name == "from_x" and all(row.from_x == 1 for row in self.rows):
                summands.append(of)
        for index, summand in enumerate(summands[1:], 1):
            last = index == len(summands) - 1
            total = _named("next" if last else f"sum_{index}")
            yield helper.make_node(
                "Add", [summands[0] if index == 1 else _named(f"sum_{index - 1}"), summand], [total]
            )

    def _used(self) -> dict[str, list[float]]:
        """Return the columns that change something; that x itself stays, as in Euler's rule, needs no product."""
        columns = {
            name: [getattr(row, name) for row in self.rows]
            for name in ("from_x", "from_start", "from_network")
        }
        return {
            name: values for name, values in columns.items()
            if any(values) and not (name == "from_x" and set(values) == {1.0})
        }  # fmt: skip
