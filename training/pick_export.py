# SPDX-License-Identifier: Apache-2.0
"""Exports the picking policy to ONNX, decomposed, with what serving needs beside it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reflex_ros.demo.pick_scene import FINGER_NAME, FINGER_OPEN_M, PICK_JOINT_NAMES
from reflex_ros.demo.scene import JOINT_NAMES
from training.data import CAMERA_SIZE
from training.demonstrator import CHUNK_SIZE
from training.export import (
    DENOISING_STEPS,
    FREQUENCY_HZ,
    POSITION_RANGES_RAD,
    PREFIX_INPUTS,
    PREFIX_OUTPUTS,
    VELOCITY_MAX_RAD_S,
    export_graph,
    write_json,
)
from training.language import TOKEN_COUNT, build_tokenizer
from training.pick_language import pick_vocabulary
from training.pick_loop import PICTURE_SIZE
from training.pick_model import ACTION_DIM, PickNetwork
from training.pick_train import load

PICK_MODEL_ID = "pick_panda"
FINGER_VELOCITY_MAX_M_S = 1.0  # above what a row opens by, 2 cm in 0.05 s
ARM_TOPIC, GRIPPER_TOPIC = "~/joint_trajectory", "gripper_controller/commands"


def load_pick_policy(weights: Path) -> tuple[PickNetwork, dict[str, Any]]:
    """Return the network in evaluation mode and what training stored beside the weights."""
    network, stored = load(weights)
    network.eval().requires_grad_(False)
    return network, stored


def example_pick_inputs(seed: int) -> dict[str, Tensor]:
    """Return random inputs of the right shapes: image, lang_tokens, lang_masks, state, noise."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.arange(TOKEN_COUNT)[None] < 9
    tokens = torch.randint(2, len(pick_vocabulary()), (1, TOKEN_COUNT), generator=generator)
    return {
        "image": torch.rand(1, 3, PICTURE_SIZE, PICTURE_SIZE, generator=generator) * 2 - 1,
        "lang_tokens": torch.where(words, tokens, 0),
        "lang_masks": words,
        "state": torch.randn(1, ACTION_DIM, generator=generator),
        "noise": torch.randn(1, CHUNK_SIZE, ACTION_DIM, generator=generator),
    }


def pick_config(mean: list[float], std: list[float]) -> dict[str, Any]:
    """Return the contents of reflex_config.json (docs/reference/exports.md)."""
    return {
        "model_id": PICK_MODEL_ID,
        "model_type": PICK_MODEL_ID,
        "export_kind": "decomposed",
        "num_denoising_steps": DENOISING_STEPS,
        "chunk_size": CHUNK_SIZE,
        "action_dim": ACTION_DIM,
        "frequency_hz": FREQUENCY_HZ,
        "action_names": list(PICK_JOINT_NAMES),
        "graphs": {"prefix": "vlm_prefix.onnx", "denoise": "expert_denoise.onnx"},
        "images": [
            {
                "camera": "camera", "input": "image", "mask": None, "height": PICTURE_SIZE, "width": PICTURE_SIZE,
                "layout": "nchw", "range": [-1.0, 1.0], "resize": "stretch", "filter": "area", "required": True,
            }
        ],
        "language": {
            "tokens": "lang_tokens", "mask": "lang_masks", "length": TOKEN_COUNT, "tokenizer": "tokenizer.json",
            "template": "{instruction}",
        },
        "state": {"input": "state", "names": list(PICK_JOINT_NAMES)},
        "flow": {"x": "x_t", "time": "timestep", "velocity": "v_t", "start": 1.0, "end": 0.0, "sign": 1},
        "action_space": [
            {"columns": [FINGER_NAME], "gripper": {"open": FINGER_OPEN_M, "closed": 0.0}},
        ],
        "links": {},
        "normalization": {kind: {"mode": "mean_std", "mean": mean, "std": std} for kind in ("state", "action")},
    }  # fmt: skip


def pick_embodiment(mean: list[float], std: list[float]) -> dict[str, Any]:
    """Return the Panda with its hand: the arm by a joint trajectory, the hand by a topic of finger positions."""
    return {
        "schema_version": 2,
        "embodiment": "panda_with_hand",
        "joint_names": list(PICK_JOINT_NAMES),
        "action_space": {
            "type": "continuous", "dim": ACTION_DIM, "ranges": [*POSITION_RANGES_RAD, [0.0, FINGER_OPEN_M]],
        },
        "velocity_max": [*VELOCITY_MAX_RAD_S, FINGER_VELOCITY_MAX_M_S],
        "normalization": {"mean_action": mean, "std_action": std, "mean_state": mean, "std_state": std},
        "groups": [
            {
                "name": "arm", "space": "joints", "joints": list(JOINT_NAMES),
                "output": {"kind": "joint_trajectory", "topic": ARM_TOPIC},
            },
            {
                "name": "hand", "space": "gripper", "joints": [FINGER_NAME],
                "gripper": {"open": FINGER_OPEN_M, "closed": 0.0, "saturation_tolerance": 0.1},
                "output": {"kind": "gripper_topic", "topic": GRIPPER_TOPIC, "rate_hz": FREQUENCY_HZ},
            },
        ],
        "cameras": [
            {"name": "camera", "resolution": [CAMERA_SIZE, CAMERA_SIZE], "fps": 30, "color_space": "rgb8"}
        ],
        "control": {"frequency_hz": FREQUENCY_HZ, "chunk_size": CHUNK_SIZE, "rtc_execution_horizon": 10},
        "constraints": {"max_ee_velocity": 1.7, "collision_check": False},
    }  # fmt: skip


def export_pick(weights: Path, folder: Path) -> None:
    network, stored = load_pick_policy(weights)
    mean, std = stored["statistics"]
    folder.mkdir(parents=True, exist_ok=True)
    inputs = example_pick_inputs(seed=0)
    prefix_inputs = {name: inputs[name] for name in PREFIX_INPUTS}
    prefix = network.prefix(*prefix_inputs.values())
    denoise_inputs = {
        "x_t": inputs["noise"],
        "timestep": torch.ones(1),
        **dict(zip(PREFIX_OUTPUTS, prefix, strict=True)),
        "state": inputs["state"],
    }
    export_graph(network.prefix, prefix_inputs, PREFIX_OUTPUTS, folder / "vlm_prefix.onnx")
    export_graph(network.expert, denoise_inputs, ["v_t"], folder / "expert_denoise.onnx")
    write_json(folder / "reflex_config.json", pick_config(mean, std))
    write_json(folder / "embodiment.json", pick_embodiment(mean, std))
    build_tokenizer(pick_vocabulary()).save(str(folder / "tokenizer.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    export_pick(arguments.weights, arguments.out)


if __name__ == "__main__":
    main()
