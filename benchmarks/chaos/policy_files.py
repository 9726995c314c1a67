# SPDX-License-Identifier: Apache-2.0
"""The exports that are served: small, stepped, guided, and sick wherever the first joint is in one of four bands.

The first joint is at rest at 0 rad; each band is a few thousandths of a rad wide, so that a robot in it is still near its chunk.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.exports import ROOT

sys.path.append(str(ROOT / "test" / "support"))
from exports import PANDA_JOINTS, PANDA_MEAN, statistics, write_config, write_tokenizer
from graphs import BOOL, FEATURES, FLOAT, INT64, WIDTH, Graph, embedded, pooled, targeted, velocity

SPREAD = 0.002  # rad of one standard deviation, of states and actions
SIDE = 32  # pixels of an image
CHUNK = 20
STEPS = 4
SIZE = 256  # of the matrices whose products take time

GRIPPER = [{"columns": ["gripper"], "gripper": {"open": 2.0, "closed": -0.2}}]
SO100_JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
SO100_MEAN = [0.0, 1.75, -1.57, -0.65, 0.0, 0.9]

NAN, RAISE, SLOW, HANG = "nan", "raise", "slow", "hang"
# where the first joint makes the model sick, in standard deviations
BANDS = {NAN: (2.5, 3.5), RAISE: (4.5, 5.5), SLOW: (6.5, 7.5), HANG: (8.5, 9.5)}
SLOW_PRODUCTS, HANG_PRODUCTS = 60, 60_000  # per step: about 40 ms, and far more than any deadline

HOLDING = {
    "panda": (PANDA_JOINTS, PANDA_MEAN),
    "so100": (SO100_JOINTS, SO100_MEAN),
}


@dataclass(frozen=True, slots=True)
class Arm:
    """A kind of robot: names, rest pose in rad, seconds from row to row, and the limits that its embodiment gives."""

    name: str
    joints: tuple[str, ...]
    rest: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    speed: tuple[float, ...]
    dt_s: float


def arm(name: str) -> Arm:
    """Return the kind of robot, its limits read from the shipped preset."""
    joints, rest = HOLDING[name]
    preset = preset_of(name)
    columns = [preset["joint_names"].index(joint) for joint in joints]
    ranges = [preset["action_space"]["ranges"][column] for column in columns]
    speed = [preset["velocity_max"][column] for column in columns]
    low, high = zip(*ranges, strict=True)
    return Arm(name, tuple(joints), tuple(rest), tuple(low), tuple(high), tuple(speed), dt_of(preset))


def dt_of(preset: dict[str, Any]) -> float:
    """Return the seconds from row to row."""
    return 1.0 / float(preset["control"]["frequency_hz"])


def preset_of(name: str) -> dict[str, Any]:
    """Return the embodiment file of a kind of robot."""
    file = ROOT / "config" / "embodiments" / f"{'franka' if name == 'panda' else name}.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def sick_in(band: str) -> float:
    """Return the middle of a band, in rad."""
    low, high = BANDS[band]
    return SPREAD * (low + high) / 2


def make_export(path: Path, name: str, seed: int = 1) -> Path:
    """Write an export for a kind of robot: a prefix graph and one denoise step. seed: of its weights."""
    joints, rest = HOLDING[name]
    prefix = Graph(seed=seed)
    sequence, mask, length = embedded(prefix, ["base"], SIDE)
    for key in ("past_k_0", "past_v_0"):
        block = prefix.op("MatMul", sequence, prefix.weights(FEATURES, FEATURES))
        prefix.output(prefix.shaped(block, 1, 1, length, FEATURES), key, FLOAT, [1, 1, length, FEATURES])
    prefix.output(mask, "prefix_pad_masks", BOOL, [1, length])

    step = Graph(seed=seed + 100)
    pasts = [step.input(key, FLOAT, [1, 1, length, FEATURES]) for key in ("past_k_0", "past_v_0")]
    mask = step.input("prefix_pad_masks", BOOL, [1, length])
    parts = [(pooled(step, step.shaped(past, 1, length, FEATURES), mask, length), FEATURES) for past in pasts]
    start, time = step.input("x_t", FLOAT, [1, CHUNK, WIDTH]), step.input("t", FLOAT, [1])
    state = step.input("state", FLOAT, [1, WIDTH])
    parts.append((step.op("Clip", state, step.constant(-2.0), step.constant(2.0)), WIDTH))
    made = velocity(step, start, step.shaped(time, 1, 1, 1), targeted(step, parts, WIDTH))
    step.output(sickened(step, made, state), "v_t", FLOAT, [1, CHUNK, WIDTH])
    path.mkdir(parents=True)
    more = {"action_space": GRIPPER} if "gripper" in joints else {}
    write_config(
        path, model_id=f"chaos/{name}-{seed}", model_type="pi05_decomposed", export_kind="decomposed", chunk_size=CHUNK,
        action_dim=len(joints), max_state_dim=WIDTH, action_names=list(joints), num_denoising_steps=STEPS,
        frequency_hz=preset_of(name)["control"]["frequency_hz"],
        normalization=statistics(len(joints), list(rest), SPREAD), state={"input": "state", "names": list(joints)},
        decomposed={
            "vlm_prefix_onnx": "vlm_prefix.onnx", "expert_denoise_onnx": "expert_denoise.onnx",
            "past_kv_tensor_names": ["past_k_0", "past_v_0"], "per_step_expert": True, "expert_takes_state": True,
        },
        **more,
    )  # fmt: skip
    write_tokenizer(path)
    prefix.save(path / "vlm_prefix.onnx")
    step.save(path / "expert_denoise.onnx")
    return path


def sickened(graph: Graph, tensor: str, state: str) -> str:
    """Return the tensor unchanged, but NaN, an error or a long wait where the first state is in a band."""
    first = graph.op("Slice", state, *(graph.constant([bound], np.int64) for bound in (0, 1, 1)))
    inside = {band: between(graph, first, BANDS[band]) for band in BANDS}
    index = graph.shaped(graph.to(inside[RAISE], INT64), 1)
    tensor = graph.op("Add", tensor, graph.op("Gather", graph.constant([0.0]), index))
    nothing = graph.op("Where", inside[NAN], graph.constant(np.nan), graph.constant(0.0))
    tensor = graph.op("Add", tensor, graph.shaped(nothing, 1, 1, 1))
    rounds = [
        graph.op("Mul", graph.to(inside[band], INT64), graph.constant(products, np.int64))
        for band, products in ((SLOW, SLOW_PRODUCTS), (HANG, HANG_PRODUCTS))
    ]
    return looped(graph, tensor, graph.shaped(graph.op("Add", *rounds)))


def between(graph: Graph, value: str, bounds: Sequence[float]) -> str:
    """Return a boolean tensor of the value's shape."""
    above = graph.op("Greater", value, graph.constant(bounds[0]))
    return graph.op("And", above, graph.op("Less", value, graph.constant(bounds[1])))


def looped(graph: Graph, tensor: str, count: str) -> str:
    """Return the tensor unchanged, after so many matrix products."""
    from onnx import helper

    block = graph.op("Add", graph.constant(np.eye(SIZE)), graph.op("ReduceMax", tensor, keepdims=0))
    turn = graph.constant(np.roll(np.eye(SIZE), 1, axis=0))
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["going"]),
            helper.make_node("MatMul", ["block", turn], ["turned"]),
        ],
        "rounds",
        [
            helper.make_tensor_value_info("round", INT64, []),
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("block", FLOAT, [SIZE, SIZE]),
        ],
        [
            helper.make_tensor_value_info("going", BOOL, []),
            helper.make_tensor_value_info("turned", FLOAT, [SIZE, SIZE]),
        ],
    )
    burnt = graph.op("Loop", count, "", block, body=body)
    nothing = graph.op("Mul", graph.op("ReduceMin", burnt, keepdims=0), graph.constant(0.0))
    return graph.op("Add", tensor, nothing)
