# SPDX-License-Identifier: Apache-2.0
"""Writes VERIFICATION.md: hashes of the shipped files, torch-against-ONNX parity, closed-loop success."""

from __future__ import annotations

import argparse
import dataclasses
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reflex_core.doctor.manifest import hash_table
from reflex_ros.demo.opengl import choose_backend
from reflex_ros.demo.scene import COLOURS, Scene
from training.evaluate import FIRST_HELD_OUT_SEED, Export, held_out_scenes, run_episodes, summary, unchanged
from training.export import DENOISING_STEPS, example_inputs, load_policy
from training.model import Monolithic

PARITY_SEEDS = range(16)
PARITY_LIMIT = 1e-4
EPISODES = 200
CONTROL_EPISODES = 60
DELAY_S = 0.06
WORDY = (
    "could you please be so kind and carefully bring your gripper over to the {colour} block "
    "that is lying there"
)
LIBRARIES = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "mujoco",
    "numpy",
    "tokenizers",
    "opencv-python-headless",
)


@torch.no_grad()
def parity_table(weights: Path, folder: Path) -> str:
    """Largest absolute difference over PARITY_SEEDS of normalised chunks; raises when above PARITY_LIMIT."""
    policy, _ = load_policy(weights)
    reference = Monolithic(policy, DENOISING_STEPS)
    exports = {"decomposed": Export(folder), "monolithic": Export(folder / "monolithic")}
    difference = dict.fromkeys(("decomposed, torch", "monolithic, torch", "decomposed, monolithic"), 0.0)
    for seed in PARITY_SEEDS:
        inputs = example_inputs(seed)
        chunks = {"torch": reference(*inputs.values()).numpy()}
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        chunks |= {name: export.denoise(arrays) for name, export in exports.items()}
        for pair in difference:
            left, right = pair.split(", ")
            difference[pair] = max(difference[pair], float(np.abs(chunks[left] - chunks[right]).max()))
    if max(difference.values()) > PARITY_LIMIT:
        raise RuntimeError(f"The exports differ by more than {PARITY_LIMIT}: {difference}.")
    rows = [f"| {pair} | {value:.2e} |" for pair, value in difference.items()]
    return "\n".join(["| compared | max abs difference |", "|---|---|", *rows])


def black(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.zeros_like(image)


def dimmed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (image * 0.7).astype(np.uint8)


def reworded(scenes: list[Scene], template: str) -> list[Scene]:
    return [
        dataclasses.replace(scene, instruction=template.format(colour=scene.target_colour))
        for scene in scenes
    ]


def success_tables(folder: Path) -> str:
    scenes = held_out_scenes(EPISODES)
    some = scenes[:CONTROL_EPISODES]
    decomposed, monolithic = Export(folder), Export(folder / "monolithic")
    head = (
        "| {} | reached | 95 % interval | within 2 cm | wrong block | distance median / p90 | chunk |\n"
        + "|---" * 7
        + "|"
    )
    delay = f"{1e3 * DELAY_S:.0f} ms"
    rows = [
        head.format("export, Euler steps, chunk delay"),
        f"| **decomposed, 10, {delay}** | " + summary(run_episodes(decomposed, scenes, DELAY_S)),
        "| decomposed, 10, 0 ms | " + summary(run_episodes(decomposed, scenes, 0.0)),
        f"| monolithic, 10, {delay} | " + summary(run_episodes(monolithic, scenes, DELAY_S)),
        f"| decomposed, 2, {delay} | " + summary(run_episodes(Export(folder, steps=2), scenes, DELAY_S)),
        "",
        f"Controls, decomposed, 10 steps, {delay}, the first {CONTROL_EPISODES} of the same scenes:",
        "",
        head.format("what is changed"),
        "| black image | " + summary(run_episodes(decomposed, some, DELAY_S, black)),
        "| image at 0.7 of its brightness | " + summary(run_episodes(decomposed, some, DELAY_S, dimmed)),
        "| no colour: \"reach the block\" | "
        + summary(run_episodes(decomposed, reworded(some, "reach the block"), DELAY_S)),
        f"| a sentence never trained on, {len(WORDY.split())} words | "
        + summary(run_episodes(decomposed, reworded(some, WORDY), DELAY_S, unchanged)),
    ]  # fmt: skip
    return "\n".join(rows)


def manifest(weights: Path, folder: Path) -> str:
    stored = torch.load(weights, weights_only=True)
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    template = WORDY.format(colour="COLOUR")
    last_seed = FIRST_HELD_OUT_SEED + EPISODES - 1
    return f"""# Verification of reach_panda

Written by `python -m training.verify`. Machine: {platform.machine()}, 2 shared cores, no GPU.
Python {platform.python_version()}, {versions}; OpenGL by MUJOCO_GL={choose_backend()}.

## Files

{hash_table(folder)}

`sha256sum FILE` shows the same numbers; `test/training/test_embedded_export.py` checks them.

## Parity

Normalised chunks, 10 Euler steps, {len(PARITY_SEEDS)} random inputs (`training/export.py`, `example_inputs`)
from seeds {PARITY_SEEDS[0]} to {PARITY_SEEDS[-1]}, ONNX Runtime on the CPU. The limit is {PARITY_LIMIT:g}.

{parity_table(weights, folder)}

`parity.npz` is one simulated observation and the chunk that was made of it here; `reflex doctor` compares elsewhere.

## Held-out images

Training seed {stored["seed"]}; {stored["validation"]}.

## Closed loop

{EPISODES} held-out scenes, `make_scene` with seeds {FIRST_HELD_OUT_SEED} to {last_seed};
physics, camera 224x224, an observation every 25 actions (1.25 s), 5 s per episode. "Chunk delay" is the time
between observation and use; the arm keeps moving in it. Reached: at the end the end effector is within 4 cm
of the point 10 cm above the named block, and no other block's point is nearer. The interval is Wilson's.
The chunk time is the median of prefix and denoising on this machine, one thread.

{success_tables(folder)}

The long sentence is "{template}",
COLOUR being one of {", ".join(COLOURS)}.

## Commands

```
make -C training                                      # data, training, export and this file, from the seed
python -m training.evaluate models/reach_panda --episodes {EPISODES} --delay-s {DELAY_S}
python -m training.evaluate models/reach_panda/monolithic --episodes {EPISODES} --delay-s {DELAY_S}
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--export", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = manifest(arguments.weights, arguments.export)
    (arguments.export / "VERIFICATION.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
