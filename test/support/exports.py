# SPDX-License-Identifier: Apache-2.0
"""Small ONNX exports in every layout that the engine serves.

Each network is real in kind: pixels, words and state are embedded and pooled under their masks into a target,
and the flow pulls the noise towards it: dx/dt = x - target + t/10. So every input changes the actions, and a
fused loop and a per-step export of the same weights agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from graphs import (
    BOOL,
    FEATURES,
    FLOAT,
    INT64,
    STEPS,
    TOKENS,
    VOCABULARY,
    WIDTH,
    Graph,
    burning,
    computing,
    delayed,
    embedded,
    failing,
    folded,
    loop,
    mixing,
    pooled,
    targeted,
    velocity,
)
from kinds import act, diffusion
from schedules import ddim_table, ddpm_table
from seen_exports import RAW, SIDE, remembering, seeing
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["reach", "pick", "place", "push", "the", "red", "green", "blue", "cube", "ball", "bowl", "warm"]
PANDA_JOINTS = [f"panda_joint{number}" for number in range(1, 8)]
PANDA_FINGER = "panda_finger_joint1"
SO101_JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
PANDA_MEAN = [0.0, 0.0, 0.0, -1.5, 0.0, 1.8, 0.0]
CAMERAS = {
    "smolvla": ["cam1", "cam2", "cam3"],
    "pi0": ["base", "wrist_l", "wrist_r"],
    "pi05": ["base", "wrist_l", "wrist_r"],
}

Export = Callable[[Path], None]


def write_config(path: Path, **config: Any) -> None:
    path.mkdir(parents=True, exist_ok=True)
    base = {"target": "test", "opset": 19, "num_denoising_steps": STEPS}
    (path / "reflex_config.json").write_text(json.dumps(base | config, indent=1))


def write_tokenizer(path: Path) -> None:
    """A word-level tokenizer over WORDS; what it does not know is one unknown token per word."""
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (path / "tokenizer").mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer" / "tokenizer.json"))


def statistics(dim: int, mean: list[float] | None = None, spread: float = 0.5) -> dict[str, Any]:
    block = {"mode": "mean_std", "mean": mean or [0.1] * dim, "std": [spread] * dim}
    return {"state": block, "action": block}


def monolithic(
    family: str,
    *,
    size: int = 32,
    chunk: int = 10,
    robot: bool = False,
    spread: float = 0.5,
    run_work: int = 0,
    load_work: int = 0,
    failure: str = "",
    burn: int = 0,
    free_batch: bool = False,
    mix: float = 0.0,
    weights: int = 0,
    tokens: int = 1,
    joints: Sequence[str] = PANDA_JOINTS,
    mean: list[float] | None = None,
    **more: Any,
) -> Export:
    """SmolVLA, pi0 or pi0.5 as one graph with the loop fused in. `robot` makes it fit the franka preset, or other joints.

    free_batch: it runs any number of requests at once; mix: which then share their chunks a little. weights, tokens: products
    of so many tokens of each request with matrices of weights. more: fields of its config.
    """

    def make(path: Path) -> None:
        graph = Graph(free_batch=free_batch)
        sequence, mask, length = embedded(graph, CAMERAS[family], size)
        parts = [(pooled(graph, sequence, mask, length), FEATURES)]
        state = graph.input("state", FLOAT, [1, WIDTH]) if family != "pi05" else ""
        if state:
            parts.append((state, WIDTH))
        noise = graph.input("noise", FLOAT, [1, chunk, WIDTH])
        actions = loop(graph, noise, targeted(graph, parts, WIDTH))
        actions = folded(graph, delayed(graph, actions, run_work), load_work)
        actions = computing(graph, mixing(graph, actions, mix), weights, tokens)
        actions = burning(graph, actions, state, burn)
        graph.output(failing(graph, actions, state, failure), "actions", FLOAT, [1, chunk, WIDTH])
        config: dict[str, Any] = {"action_dim": WIDTH, "max_state_dim": WIDTH}
        if robot:
            config = {
                "action_dim": len(joints),
                "action_names": joints,
                "frequency_hz": 20.0,
                "normalization": statistics(len(joints), mean or PANDA_MEAN, spread),
                "state": {"names": joints},
            }
        write_config(
            path,
            model_id=f"test/{family}-mono",
            model_type=family,
            export_kind="monolithic",
            chunk_size=chunk,
            tokenizer_path="tokenizer",
            **(config | more),
        )
        write_tokenizer(path)
        graph.save(path / "model.onnx")

    return make


def decomposed(
    *,
    per_step: bool = False,
    takes_state: bool = False,
    size: int = 32,
    chunk: int = 10,
    free_batch: bool = False,
) -> Export:
    """pi0.5 in two graphs that share per-layer keys and values; the expert is a whole loop or one step."""
    layers, dim = 2, 7

    def make(path: Path) -> None:
        prefix = Graph(seed=1, free_batch=free_batch)
        sequence, mask, length = embedded(prefix, CAMERAS["pi05"], size)
        names = [f"past_{kind}_{layer}" for layer in range(layers) for kind in "kv"]
        for name in names:
            block = prefix.op("MatMul", sequence, prefix.weights(FEATURES, FEATURES))
            prefix.output(prefix.shaped(block, 1, 1, length, FEATURES), name, FLOAT, [1, 1, length, FEATURES])
        prefix.output(mask, "prefix_pad_masks", BOOL, [1, length])

        expert = Graph(seed=2, free_batch=free_batch)
        pasts = [expert.input(name, FLOAT, [1, 1, length, FEATURES]) for name in names]
        mask = expert.input("prefix_pad_masks", BOOL, [1, length])
        parts = [
            (pooled(expert, expert.shaped(past, 1, length, FEATURES), mask, length), FEATURES)
            for past in pasts
        ]
        start = expert.input("x_t" if per_step else "noise", FLOAT, [1, chunk, WIDTH])
        time = expert.input("t", FLOAT, [1]) if per_step else ""
        if takes_state:
            parts.append((expert.input("state", FLOAT, [1, WIDTH]), WIDTH))
        goal = targeted(expert, parts, WIDTH)
        made = (
            velocity(expert, start, expert.shaped(time, 1, 1, 1), goal)
            if per_step
            else loop(expert, start, goal)
        )
        expert.output(made, "v_t" if per_step else "actions", FLOAT, [1, chunk, WIDTH])
        write_config(
            path,
            model_id="test/pi05-split",
            model_type="pi05_decomposed",
            export_kind="decomposed",
            chunk_size=chunk,
            action_dim=WIDTH,
            normalization=statistics(dim),
            state={"input": "state"} if takes_state else None,
            decomposed={
                "vlm_prefix_onnx": "vlm_prefix.onnx",
                "expert_denoise_onnx": "expert_denoise.onnx",
                "past_kv_tensor_names": names,
                "per_step_expert": per_step,
                "expert_takes_state": takes_state,
            },
        )
        write_tokenizer(path)
        prefix.save(path / "vlm_prefix.onnx")
        expert.save(path / "expert_denoise.onnx")

    return make


def _expert(path: Path, chunk: int, dim: int, vlm: bool) -> None:
    """One step of a bare expert, or of one that attends to the keys and values of a language model."""
    graph = Graph(seed=3)
    x = graph.input("noisy_actions", FLOAT, ["b", chunk, dim])
    time = graph.input("timestep", FLOAT, ["b"])
    positions = graph.to(graph.input("position_ids", INT64, ["b", chunk]), FLOAT)
    wave = graph.op("Sin", graph.shaped(positions, 1, chunk, 1))
    parts = [(graph.shaped(graph.mean(wave, 1), 1, 1), 1)]
    if vlm:
        offset = graph.to(graph.input("prefix_offset", INT64, ["b", 1]), FLOAT)
        mask = graph.op(
            "Unsqueeze",
            graph.to(graph.input("kv_mask", BOOL, ["b", "s"]), FLOAT),
            graph.constant([0, 3], np.int64),
        )
        parts.append((graph.op("Mul", offset, graph.constant(0.01)), 1))
        for name in ("vlm_k", "vlm_v"):
            values = graph.op("Mul", graph.input(name, FLOAT, [2, "b", "s", FEATURES]), mask)
            parts.append((graph.mean(values, 0, 2), FEATURES))
    goal = targeted(graph, parts, dim)
    made = velocity(graph, graph.op("Add", x, wave), graph.shaped(time, 1, 1, 1), goal)
    graph.output(made, "velocity", FLOAT, ["b", chunk, dim])
    graph.save(path)


def expert_stack(*, chunk: int = 10, dim: int = 7) -> Export:
    """The oldest layout: an expert alone, that sees neither image nor words."""

    def make(path: Path) -> None:
        write_config(
            path, model_id="test/expert", action_chunk_size=chunk, action_dim=dim, expert={"action_dim": dim}
        )
        _expert(path / "expert_stack.onnx", chunk, dim, vlm=False)

    return make


def gr00t(*, chunk: int = 10, dim: int = 7) -> Export:
    """GR00T's action head: one step, four of them."""

    def make(path: Path) -> None:
        write_config(
            path,
            model_id="test/gr00t",
            model_type="gr00t",
            export_kind="monolithic",
            chunk_size=chunk,
            action_dim=dim,
            num_denoising_steps=4,
        )
        _expert(path / "model.onnx", chunk, dim, vlm=False)

    return make


def vlm_stack(*, size: int = 32, chunk: int = 10, dim: int = 7, hidden: int = 12) -> Export:
    """SmolVLA piece by piece: vision encoder, text embedder, state projection, prefill, expert."""

    def make(path: Path) -> None:
        write_config(
            path,
            model_id="test/smolvla-stack",
            action_chunk_size=chunk,
            action_dim=dim,
            expert={"action_dim": dim},
            vlm_hidden_size=hidden,
            vlm_prefix_onnx="vision_encoder.onnx",
            text_embedder_onnx="text_embedder.onnx",
            decoder_prefill_onnx="decoder_prefill.onnx",
            language={"length": TOKENS},
            normalization=statistics(dim),
        )
        write_tokenizer(path)
        vision = Graph(seed=4)
        colour = vision.mean(vision.input("pixel_values", FLOAT, ["b", 3, size, size]), 2, 3)
        seen = vision.op("MatMul", vision.shaped(colour, 1, 1, 3), vision.weights(3, hidden))
        vision.output(seen, "image_embeds", FLOAT, ["b", 1, hidden])
        vision.save(path / "vision_encoder.onnx")
        text = Graph(seed=5)
        words = text.op(
            "Gather", text.weights(VOCABULARY, hidden), text.input("input_ids", INT64, ["b", "t"])
        )
        text.output(words, "text_embeds", FLOAT, ["b", "t", hidden])
        text.save(path / "text_embedder.onnx")
        prefill = Graph(seed=6)
        embeds = prefill.input("inputs_embeds", FLOAT, ["b", "s", hidden])
        mask = prefill.to(prefill.input("attention_mask", INT64, ["b", "s"]), FLOAT)
        embeds = prefill.op("Mul", embeds, prefill.op("Unsqueeze", mask, prefill.constant([2], np.int64)))
        for name in ("vlm_k", "vlm_v"):
            rows = [prefill.op("MatMul", embeds, prefill.weights(hidden, FEATURES)) for _ in range(2)]
            stacked = [prefill.op("Unsqueeze", row, prefill.constant([0], np.int64)) for row in rows]
            prefill.output(prefill.op("Concat", *stacked, axis=0), name, FLOAT, [2, "b", "s", FEATURES])
        prefill.save(path / "decoder_prefill.onnx")
        weights = np.random.default_rng(9).normal(scale=0.2, size=(hidden, WIDTH)).astype(np.float32)
        np.save(path / "state_proj_weight.npy", weights)
        np.save(path / "state_proj_bias.npy", np.full(hidden, 0.1, np.float32))
        _expert(path / "expert_stack.onnx", chunk, dim, vlm=True)

    return make


def echo(*, size: int = 64) -> Export:
    """SmolVLA's inputs without a network: row r of the chunk is the mean of row r of the first picture (columns 0 to 2),
    the mean of its column r (3 to 5), and whether the second camera is there (6).
    """

    def make(path: Path) -> None:
        graph = Graph()
        first, second = (graph.input(f"img_cam{number}", FLOAT, [1, 3, size, size]) for number in (1, 2))
        graph.input("mask_cam1", BOOL, [1])
        there = graph.shaped(graph.to(graph.input("mask_cam2", BOOL, [1]), FLOAT), 1, 1, 1)
        noise = graph.op("Mul", graph.input("noise", FLOAT, [1, size, 7]), graph.constant(0.0))
        parts = [graph.op("Transpose", graph.mean(first, axis), perm=[0, 2, 1]) for axis in (3, 2)]
        unread = graph.op("Mul", graph.shaped(graph.mean(second, 1, 2, 3), 1, 1, 1), graph.constant(0.0))
        column = graph.op("Add", graph.op("Expand", there, graph.constant([1, size, 1], np.int64)), unread)
        made = graph.op("Add", noise, graph.op("Concat", *parts, column, axis=2))
        graph.output(made, "actions", FLOAT, [1, size, 7])
        write_config(
            path, model_id="test/echo", model_type="smolvla", export_kind="monolithic", chunk_size=size, action_dim=7,
            normalization={"action": {"mode": "identity"}},
        )  # fmt: skip
        graph.save(path / "model.onnx")

    return make


def two_observations(*, frequency_hz: float = 0.1, **config: Any) -> Export:
    """Each row of the chunk: the mean of the picture before this one and of this one, then both states."""

    def make(path: Path) -> None:
        wanted = {"observation_steps": 2, "frequency_hz": frequency_hz} | config
        seeing(path, eye=(1, 2, 3, SIDE, SIDE), body=(1, 2, 2), **wanted)

    return make


def one_observation(path: Path) -> None:
    """Each row of the chunk: the mean of the picture, then the state."""
    seeing(path, frequency_hz=0.1)


def of_other_shapes(path: Path) -> None:
    """Two cameras of exactly 12x8 stacked in one input, a state of three axes, and a constant."""
    images = [
        {"camera": name, "input": "eye", "stack": number, "size": "exact", "range": RAW["range"]}
        for number, name in enumerate(("top", "wrist"))
    ]
    seeing(path, eye=(1, 2, 3, SIDE, 12), body=(1, 1, 2), domain=(1,), images=images, constants={"domain": 3})


# What conftest.py's export_dir("name") gives. "mono_pi0_7" and all that follow it have the seven joints of a
# Panda at 20 Hz and fit --embodiment franka; "failing" ones fail once panda_joint1 is above 1 rad, and "burning"
# computes for many seconds then, unless it is cancelled.
EXPORTS: Mapping[str, Export] = {
    "mono_smolvla": monolithic("smolvla"),
    "mono_pi0": monolithic("pi0"),
    "mono_pi05": monolithic("pi05"),
    # any number of requests in one run: weights-bound, rows that influence each other, and one that fails
    "batched": monolithic("pi0", chunk=50, robot=True, spread=0.002, weights=8, free_batch=True),
    "batched_mixing": monolithic("pi0", robot=True, free_batch=True, mix=0.01),
    "batched_nan": monolithic("pi0", robot=True, failure="nan", free_batch=True),
    "batched_raise": monolithic("pi0", robot=True, failure="raise", free_batch=True),
    "batched_burning": monolithic("pi0", robot=True, burn=5000, free_batch=True),
    "batched_per_step": decomposed(per_step=True, takes_state=True, free_batch=True),
    "decomposed": decomposed(),
    "decomposed_per_step": decomposed(per_step=True),
    "decomposed_state": decomposed(takes_state=True),
    "decomposed_state_per_step": decomposed(per_step=True, takes_state=True),
    "expert_stack": expert_stack(),
    "vlm_stack": vlm_stack(),
    "gr00t": gr00t(),
    "echo": echo(),
    "of_other_shapes": of_other_shapes,
    # a control period of 10 s and one of 1 ms: the next request is always within, or always beyond, two of them
    "one_observation": one_observation,
    "two_observations": two_observations(),
    "remembering": lambda path: remembering(path, joints=PANDA_JOINTS, rest=PANDA_MEAN),
    "two_observations_fast": two_observations(frequency_hz=1000.0),
    "mono_pi0_7": monolithic("pi0", chunk=50, robot=True),
    # a DROID policy: the hand of the franka preset too, which it counts from 0 (open) to 1 (closed)
    "droid": monolithic(
        "pi0",
        chunk=50,
        robot=True,
        spread=0.002,
        joints=[*PANDA_JOINTS, PANDA_FINGER],
        mean=[*PANDA_MEAN, 0.3],
        action_space=[{"columns": [PANDA_FINGER], "gripper": {"open": 0.0, "closed": 1.0}}],
    ),
    "droid_nan": monolithic(
        "pi0",
        chunk=50,
        robot=True,
        failure="nan",
        joints=[*PANDA_JOINTS, PANDA_FINGER],
        mean=[*PANDA_MEAN, 0.3],
        action_space=[{"columns": [PANDA_FINGER], "gripper": {"open": 0.0, "closed": 1.0}}],
    ),
    "mono_pi0_7_224": monolithic("pi0", size=224, chunk=50, robot=True),
    "fourteen": monolithic(
        "pi0", robot=True, joints=[f"joint{number}" for number in range(14)], mean=[0.0] * 14
    ),
    # as LeRobot trains for an SO-101; fits --embodiment so101
    "so101": monolithic(
        "pi0",
        chunk=50,
        robot=True,
        joints=SO101_JOINTS,
        mean=[0.0] * 5 + [50.0],
        frequency_hz=30.0,
        units=["degrees"] * 5 + ["percent"],
    ),
    "wide": monolithic("pi0", robot=True, spread=3.0),  # leaves the joint ranges
    "failing_nan": monolithic("pi0", robot=True, failure="nan"),
    "failing_raise": monolithic("pi0", robot=True, failure="raise"),
    "always_nan": monolithic("pi0", robot=True, failure="always"),
    "burning": monolithic("pi0", robot=True, burn=5000),
    "slow": monolithic("pi0", robot=True, run_work=200),
    # chunks of these are slow and smooth enough for the franka preset when the arm stands at PANDA_MEAN
    "calm": monolithic("pi0", chunk=50, robot=True, spread=0.002),
    "calm_other": monolithic("pi0", chunk=50, robot=True, spread=0.001),
    "calm_nan": monolithic("pi0", chunk=50, robot=True, spread=0.002, failure="nan"),
    "calm_raise": monolithic("pi0", chunk=50, robot=True, spread=0.002, failure="raise"),
    "calm_burning": monolithic("pi0", chunk=50, robot=True, spread=0.002, burn=5000),
    # for deadlines of seconds: no machine is through with it before
    "calm_burning_long": monolithic("pi0", chunk=50, robot=True, spread=0.002, burn=100_000),
    "act": act(),
    "act_ensemble": act(temporal_ensemble_coeff=0.1),
    "act_nan": act(failure="nan"),
    "act_burning": act(burn=5000),
    "diffusion_ddim": diffusion(ddim_table(10)),
    "diffusion_ddpm": diffusion(ddpm_table(20)),
    "heavy": monolithic("pi0", robot=True, run_work=100, load_work=60),
}
