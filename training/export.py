# SPDX-License-Identifier: Apache-2.0
"""Exports the trained policy to ONNX, decomposed and monolithic, with what serving needs beside them."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from reflex_ros.demo.scene import COLOURS, JOINT_NAMES
from training.data import CAMERA_SIZE, IMAGE_SIZE
from training.demonstrator import CHUNK_SIZE
from training.language import TOKEN_COUNT, build_tokenizer, vocabulary
from training.model import JOINTS, Monolithic, ReachPolicy

MODEL_ID = "reach_panda"
FREQUENCY_HZ = 20.0
DENOISING_STEPS = 10
OPSET = 18
POSITION_RANGES_RAD = [
    [-2.8973, 2.8973], [-1.7628, 1.7628], [-2.8973, 2.8973], [-3.0718, -0.0698],
    [-2.8973, 2.8973], [-0.0175, 3.7525], [-2.8973, 2.8973],
]  # fmt: skip
VELOCITY_MAX_RAD_S = [2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61]
PREFIX_INPUTS = ["image", "lang_tokens", "lang_masks"]
PREFIX_OUTPUTS = ["past_k", "past_v", "prefix_pad"]


def load_policy(weights: Path) -> tuple[ReachPolicy, dict[str, Any]]:
    """Returns the policy in evaluation mode and what training stored beside the weights."""
    stored = torch.load(weights, weights_only=True)
    policy = ReachPolicy(len(vocabulary()), len(COLOURS))
    policy.load_state_dict(stored["weights"])
    policy.eval()
    for parameter in policy.parameters():
        parameter.requires_grad_(False)
    return policy, stored


def example_inputs(seed: int) -> dict[str, Tensor]:
    """Random inputs of the right shapes: image, lang_tokens, lang_masks, state, noise."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.arange(TOKEN_COUNT)[None] < 9
    tokens = torch.randint(2, len(vocabulary()), (1, TOKEN_COUNT), generator=generator)
    return {
        "image": torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator) * 2 - 1,
        "lang_tokens": torch.where(words, tokens, 0),
        "lang_masks": words,
        "state": torch.randn(1, JOINTS, generator=generator),
        "noise": torch.randn(1, CHUNK_SIZE, JOINTS, generator=generator),
    }


def export_graph(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    torch.onnx.export(
        module, tuple(inputs.values()), str(path), input_names=list(inputs), output_names=outputs,
        dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
    )  # fmt: skip
    graph = onnx.load(str(path))
    # The exporter notes source paths of the machine it ran on at every node.
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    # Quantisation stumbles over the exporter's notes on intermediate shapes; every reader infers them anyway.
    del graph.graph.value_info[:]
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    del graph.metadata_props[:]
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))


def reflex_config(kind: str, statistics: dict[str, list[float]]) -> dict[str, Any]:
    """The contents of reflex_config.json (docs/reference/exports.md); `kind` is `decomposed` or `monolithic`."""
    decomposed = kind == "decomposed"
    graphs = {"prefix": "vlm_prefix.onnx", "denoise": "expert_denoise.onnx"}
    flow = {"x": "x_t", "time": "timestep", "velocity": "v_t", "start": 1.0, "end": 0.0, "sign": 1}
    return {
        "model_id": MODEL_ID,
        "model_type": MODEL_ID,
        "export_kind": kind,
        "num_denoising_steps": DENOISING_STEPS,
        "chunk_size": CHUNK_SIZE,
        "action_dim": JOINTS,
        "frequency_hz": FREQUENCY_HZ,
        "action_names": list(JOINT_NAMES),
        "graphs": graphs if decomposed else {"monolithic": "model.onnx"},
        "images": [
            {
                "camera": "camera", "input": "image", "mask": None, "height": IMAGE_SIZE, "width": IMAGE_SIZE,
                "layout": "nchw", "range": [-1.0, 1.0], "resize": "stretch", "filter": "area",
                "required": True,
            }
        ],
        "language": {
            "tokens": "lang_tokens", "mask": "lang_masks", "length": TOKEN_COUNT,
            "tokenizer": "tokenizer.json", "template": "{instruction}",
        },
        "state": {"input": "state", "names": list(JOINT_NAMES)},
        "flow": flow if decomposed else {"noise": "noise", "actions": "actions"},
        "links": {},
        "normalization": {
            name: {"mode": "mean_std", "mean": statistics[f"mean_{name}"], "std": statistics[f"std_{name}"]}
            for name in ("state", "action")
        },
    }  # fmt: skip


def embodiment(statistics: dict[str, list[float]]) -> dict[str, Any]:
    """The Panda as this policy knows it; ranges and velocity limits are the ones Franka publishes."""
    return {
        "schema_version": 1,
        "embodiment": "custom",
        "joint_names": list(JOINT_NAMES),
        "action_space": {"type": "continuous", "dim": JOINTS, "ranges": POSITION_RANGES_RAD},
        "velocity_max": VELOCITY_MAX_RAD_S,
        "normalization": {
            key: statistics[key] for key in ("mean_action", "std_action", "mean_state", "std_state")
        },
        "cameras": [
            {"name": "camera", "resolution": [CAMERA_SIZE, CAMERA_SIZE], "fps": 30, "color_space": "rgb8"}
        ],
        "control": {"frequency_hz": FREQUENCY_HZ, "chunk_size": CHUNK_SIZE, "rtc_execution_horizon": 25},
        "constraints": {"max_ee_velocity": 1.7, "collision_check": False},
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def export(weights: Path, folder: Path) -> None:
    policy, stored = load_policy(weights)
    statistics = stored["statistics"]
    monolithic = folder / "monolithic"
    monolithic.mkdir(parents=True, exist_ok=True)
    inputs = example_inputs(seed=0)
    prefix_inputs = {name: inputs[name] for name in PREFIX_INPUTS}
    prefix = policy.prefix(*prefix_inputs.values())
    denoise_inputs = {
        "x_t": inputs["noise"],
        "timestep": torch.ones(1),
        **dict(zip(PREFIX_OUTPUTS, prefix, strict=True)),
        "state": inputs["state"],
    }
    export_graph(policy.prefix, prefix_inputs, PREFIX_OUTPUTS, folder / "vlm_prefix.onnx")
    export_graph(policy.expert, denoise_inputs, ["v_t"], folder / "expert_denoise.onnx")
    export_graph(Monolithic(policy, DENOISING_STEPS), inputs, ["actions"], monolithic / "model.onnx")
    write_json(folder / "reflex_config.json", reflex_config("decomposed", statistics))
    write_json(monolithic / "reflex_config.json", reflex_config("monolithic", statistics))
    write_json(folder / "embodiment.json", embodiment(statistics))
    build_tokenizer().save(str(folder / "tokenizer.json"))
    for name in ("embodiment.json", "tokenizer.json"):
        shutil.copyfile(folder / name, monolithic / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    export(arguments.weights, arguments.out)


if __name__ == "__main__":
    main()
