# SPDX-License-Identifier: Apache-2.0
"""Exports that no well-known exporter makes: their own names, layouts, types and directions of time.

The network of a probe shows what went into it. Whatever the noise, its flow lands on an action that holds the mean
colour as the network saw it, the sum of the tokens, how many of them counted, and the robot state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from graphs import BOOL, FLOAT, INT64, Graph
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, pre_tokenizers

INT32, FLOAT16, UINT8 = TensorProto.INT32, TensorProto.FLOAT16, TensorProto.UINT8

RED, GREEN, BLUE, TOKEN_SUM, TOKEN_COUNT, STATE = range(6)
HORIZON, TOKENS = 12, 8
VOCABULARY = ["<pad>", "<unk>", "reach", "the", "red", "green", "cube", "Task", "State", ":", ",", ";"]
NUMBERS = [str(number) for number in range(256)]


def words(path: Path, pad: str = "<pad>") -> None:
    """A word-level tokenizer: token n is VOCABULARY[n], then the numbers 0 to 255."""
    vocabulary = {word: number for number, word in enumerate([pad, *VOCABULARY[1:], *NUMBERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))


def probe(
    path: Path,
    *,
    size: tuple[int | str, int | str] = (32, 32),
    layout: str = "nchw",
    pixel: int = FLOAT,
    token: int = INT64,
    kind: int = FLOAT,
    state: int = 2,
    wrist: bool = False,
    time: tuple[float, float, int] = (1.0, 0.0, 1),
    layers: int = 1,
    split: bool = True,
    fused: bool = False,
    steps: int = 4,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a probe and its reflex_config.json; `config` replaces or, with None, removes top-level keys.

    time: flow start, end and sign. layers: how many tensors the prefix hands over, each under two names.
    """
    path.mkdir(parents=True, exist_ok=True)
    eyes = Graph(1)
    seen = _seen(eyes, size, layout, pixel, token, wrist)
    hand = Graph(2) if split else eyes
    context = _handed_over(eyes, hand, seen, layers, 7 if wrist else 5) if split else seen
    dim = state + (7 if wrist else 5)
    if state:
        context = hand.op("Concat", context, hand.to(hand.input("body", kind, [1, state]), FLOAT), axis=1)
    goal = hand.shaped(context, 1, 1, dim)
    x = hand.to(hand.input("sample", kind, [1, HORIZON, dim]), FLOAT)
    if fused:
        made = hand.op("Add", goal, hand.op("Mul", x, hand.constant(0.0)))
    else:
        start, end, sign = time
        left = hand.op("Sub", hand.constant(end), hand.to(hand.input("tau", kind, [1]), FLOAT))
        slope = hand.op("Div", hand.op("Sub", goal, x), hand.shaped(left, 1, 1, 1))
        made = hand.op("Mul", slope, hand.constant(float(sign)))
    hand.output(hand.to(made, kind), "answer", kind, [1, HORIZON, dim])
    if split:
        eyes.save(path / "eyes.onnx")
    hand.save(path / "hand.onnx")
    words(path / "words.json")
    written = _description(size, layout, state, wrist, time, layers, split, fused, steps, dim) | dict(
        config or {}
    )
    text = json.dumps({key: value for key, value in written.items() if value is not None}, indent=1)
    (path / "reflex_config.json").write_text(text)
    return path


def clock(path: Path, kind: int, *, steps: int = 4, divides: bool = False, **config: Any) -> Path:
    """An export that only tells the time: its velocity is 100 in the first column and the time it is fed in the second.

    divides: both over the time, so that there is no number at time 0.
    """
    path.mkdir(parents=True, exist_ok=True)
    graph = Graph()
    x = graph.input("x_t", FLOAT, [1, HORIZON, 2])
    time = graph.shaped(graph.to(graph.input("t", kind, [1]), FLOAT), 1, 1, 1)
    row = graph.op("Concat", graph.constant([[[100.0]]]), time, axis=2)
    if divides:
        row = graph.op("Div", row, time)
    graph.output(graph.op("Add", graph.op("Mul", x, graph.constant(0.0)), row), "v_t", FLOAT, [1, HORIZON, 2])
    graph.save(path / "model.onnx")
    names = {"x": "x_t", "time": "t", "velocity": "v_t"}
    written = {
        "model_type": "clock", "export_kind": "monolithic", "graphs": {"denoise": "model.onnx"}, "action_dim": 2,
        "num_denoising_steps": steps,
    } | config  # fmt: skip
    written["flow"] = names | config["flow"]
    (path / "reflex_config.json").write_text(json.dumps(written))
    return path


def retyped(file: Path, name: str, kind: int) -> Path:
    """The graph's input `name` takes another type from now on, cast to what it was. Returns the export's folder."""
    model = onnx.load(str(file))
    info = next(info for info in model.graph.input if info.name == name)
    was = info.type.tensor_type.elem_type
    info.type.tensor_type.elem_type = kind
    for node in model.graph.node:
        node.input[:] = [f"{name} cast" if source == name else source for source in node.input]
    model.graph.node.insert(0, helper.make_node("Cast", [name], [f"{name} cast"], to=was))
    onnx.save(model, str(file))
    return file.parent


def _seen(
    eyes: Graph, size: tuple[int | str, int | str], layout: str, pixel: int, token: int, wrist: bool
) -> str:
    """(1, 5) mean colour, token sum, token count; with a wrist camera also its mean red and its mask."""
    shape: list[int | str] = [1, 3, *size] if layout == "nchw" else [1, *size, 3]
    axes = (2, 3) if layout == "nchw" else (1, 2)
    parts = [eyes.mean(eyes.to(eyes.input("eye", pixel, shape), FLOAT), *axes)]
    heard = eyes.to(eyes.input("heard", BOOL, [1, TOKENS]), FLOAT)
    spoken = eyes.op("Mul", eyes.to(eyes.input("spoken", token, [1, TOKENS]), FLOAT), heard)
    axis = eyes.constant([1], "int64")
    parts += [eyes.op("ReduceSum", spoken, axis), eyes.op("ReduceSum", heard, axis)]
    if wrist:
        colour = eyes.mean(eyes.to(eyes.input("eye_wrist", pixel, shape), FLOAT), *axes)
        first, one = eyes.constant([0], "int64"), eyes.constant([1], "int64")
        parts.append(eyes.op("Slice", colour, first, one, eyes.constant([1], "int64")))
        parts.append(eyes.shaped(eyes.to(eyes.input("has_wrist", BOOL, [1]), FLOAT), 1, 1))
    return eyes.op("Concat", *parts, axis=1)


def _handed_over(eyes: Graph, hand: Graph, seen: str, layers: int, dim: int) -> str:
    """The prefix gives `layers` equal parts as memory.<n>.value, the expert takes them as past.<n>."""
    share = eyes.op("Mul", seen, eyes.constant(1.0 / layers))
    total = ""
    for layer in range(layers):
        eyes.output(share, f"memory.{layer}.value", FLOAT, [1, dim])
        past = hand.input(f"past.{layer}", FLOAT, [1, dim])
        total = hand.op("Add", total, past) if total else past
    return total


def _description(
    size: tuple[int | str, int | str], layout: str, state: int, wrist: bool, time: tuple[float, float, int],
    layers: int, split: bool, fused: bool, steps: int, dim: int,
) -> dict[str, Any]:  # fmt: skip
    free = {"height": 32, "width": 32} if isinstance(size[0], str) else {}
    images: list[dict[str, Any]] = [
        {
            "camera": "front",
            "input": "eye",
            "mask": None,
            "layout": layout,
            "range": [0.0, 1.0],
            "resize": "stretch",
        }
        | free
    ]
    if wrist:
        images.append(
            images[0] | {"camera": "wrist", "input": "eye_wrist", "mask": "has_wrist", "required": False}
        )
    flow: dict[str, Any] = {"x": "sample", "time": "tau", "velocity": "answer"}
    flow |= {"start": time[0], "end": time[1], "sign": time[2]}
    return {
        "model_id": "somebody/probe",
        "model_type": "probe",
        "export_kind": "decomposed" if split else "monolithic",
        "num_denoising_steps": steps,
        "chunk_size": HORIZON,
        "action_dim": dim,
        "graphs": {"prefix": "eyes.onnx", "denoise": "hand.onnx"} if split else {"monolithic": "hand.onnx"},
        "images": images,
        "language": {
            "tokens": "spoken",
            "mask": "heard",
            "tokenizer": "words.json",
            "template": "{instruction}",
        },
        "state": {"input": "body", "names": [f"axis_{number}" for number in range(state)]} if state else None,
        "flow": {"noise": "sample", "actions": "answer"} if fused else flow,
        "links": {f"past.{layer}": f"memory.{layer}.value" for layer in range(layers)} if split else {},
    }
