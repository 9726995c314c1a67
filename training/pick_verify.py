# SPDX-License-Identifier: Apache-2.0
"""Writes VERIFICATION.md of the picking policy: hashes, torch-against-ONNX parity, closed-loop success with controls."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from reflex_core.doctor.manifest import hash_table
from reflex_core.doctor.parity import FIXTURE, record
from reflex_core.values import Frame, Observation
from reflex_ros.demo.opengl import choose_backend
from reflex_ros.demo.pick_arm import PickArm
from reflex_ros.demo.pick_scene import PickScene, make_pick_scene
from reflex_ros.demo.scene import COLOURS
from training.a2c2_data import open_policy
from training.pick_evaluate import (
    FIRST_HELD_OUT_PICK_SEED,
    REPLAN_ROWS,
    SUMMARY_HEAD,
    PickExport,
    pick_scenes,
    pick_summary,
    run_pick_episodes,
)
from training.pick_export import example_pick_inputs, load_pick_policy
from training.pick_loop import Image, state_of
from training.pick_model import denoise
from training.verify import LIBRARIES, PARITY_LIMIT, PARITY_SEEDS

EPISODES, FEWER_EPISODES, CONTROL_EPISODES = 200, 100, 20
STEPS, FEW_STEPS = 10, 2
DELAY_ROWS, LONG_DELAY_ROWS = 1, 4
STRANGE = "kindly snatch that {colour} thingy off the table for me"
NOISE_STD = 8.0


def pick_parity(weights: Path, export: PickExport) -> float:
    """Return the largest absolute difference of normalised chunks over PARITY_SEEDS. Raises above PARITY_LIMIT."""
    network, _ = load_pick_policy(weights)
    worst = 0.0
    for seed in PARITY_SEEDS:
        inputs = example_pick_inputs(seed)
        found = export.denoise({name: tensor.numpy() for name, tensor in inputs.items()})
        worst = max(worst, float(np.abs(denoise(network, inputs, STEPS).numpy() - found).max()))
    if worst > PARITY_LIMIT:
        raise RuntimeError(f"The export differs from torch by {worst:.1e}, more than {PARITY_LIMIT}.")
    return worst


def write_parity(folder: Path) -> None:
    """Write parity.npz: one simulated observation and the chunk that is made of it here, for `reflex doctor` elsewhere."""
    policy, arm, scene = open_policy(folder), PickArm(), make_pick_scene(FIRST_HELD_OUT_PICK_SEED)
    try:
        arm.reset(scene)
        pixels = arm.image()
        frame = Frame(pixels, "rgb8", pixels.shape[0], pixels.shape[1])
        state = state_of(arm).astype(np.float32)
        seen = Observation({policy.contract.images[0].camera: frame}, state, scene.instruction)
    finally:
        arm.close()
    record(folder / FIXTURE, policy, seen, PARITY_SEEDS[0], PARITY_LIMIT)


def black(image: Image) -> Image:
    return np.zeros_like(image)


def dimmed(image: Image) -> Image:
    return (image * 0.7).astype(np.uint8)


def noisy(image: Image) -> Image:
    generator = np.random.default_rng(int(image[::16, ::16].sum()))
    return np.clip(image + generator.normal(0.0, NOISE_STD, image.shape), 0, 255).astype(np.uint8)


def another_colour(scene: PickScene) -> str:
    """Return an instruction for the cube after the named one."""
    return f"pick up the {scene.cubes[(scene.target_index + 1) % len(scene.cubes)].colour} cube"


def success_rows(folder: Path) -> str:
    scenes = pick_scenes(FIRST_HELD_OUT_PICK_SEED, EPISODES)
    some = scenes[:CONTROL_EPISODES]
    lines = [f"| Euler steps, delay | {SUMMARY_HEAD} |", "|---" * 6 + "|"]
    for steps, delay, count in (
        (STEPS, DELAY_ROWS, EPISODES),
        (STEPS, LONG_DELAY_ROWS, FEWER_EPISODES),
        (STEPS, 0, FEWER_EPISODES),
        (FEW_STEPS, DELAY_ROWS, FEWER_EPISODES),
    ):
        export = PickExport(folder, steps)
        row = pick_summary(run_pick_episodes(export, scenes[:count], delay_rows=delay), export)
        lines.append(f"| {steps}, {delay * 50} ms | {row}")
        print(lines[-1], flush=True)
    lines += [
        "",
        f"Controls, {STEPS} steps, {DELAY_ROWS * 50} ms, the first {CONTROL_EPISODES} of the same scenes:",
        "",
        f"| what is changed | {SUMMARY_HEAD} |",
        "|---" * 6 + "|",
    ]
    controls = (
        ("black image", {"see": black}),
        ("image at 0.7 of its brightness", {"see": dimmed}),
        (f"noise of {NOISE_STD:.0f} of 255 in every pixel", {"see": noisy}),
        ('no colour: "pick up the cube"', {"say": lambda _: "pick up the cube"}),
        ("another cube named (it counts as another cube lifted)", {"say": another_colour}),
        (
            "words never trained on",
            {"say": lambda scene: STRANGE.format(colour=scene.target_colour)},
        ),
    )
    for name, changed in controls:
        export = PickExport(folder, STEPS)
        outcomes = run_pick_episodes(export, some, delay_rows=DELAY_ROWS, **changed)  # type: ignore[arg-type]
        lines.append(f"| {name} | {pick_summary(outcomes, export)}")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def pick_manifest(weights: Path, see: Path, folder: Path) -> str:
    seen = torch.load(see, weights_only=True)["note"]
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    parity = pick_parity(weights, PickExport(folder, STEPS))
    last_seed = FIRST_HELD_OUT_PICK_SEED + EPISODES - 1
    return f"""# Verification of pick_panda

Written by `python -m training.pick_verify`. Machine: {platform.machine()}, 2 shared cores, no GPU.
Python {platform.python_version()}, {versions}; OpenGL by MUJOCO_GL={choose_backend()}.

## Files

{hash_table(folder)}

`parity.npz` is one simulated observation and the chunk that was made of it here; `reflex doctor` compares elsewhere.
`sha256sum FILE` shows the same hashes; `test/training/test_pick_export.py` checks them.

## Parity

Normalised chunks, {STEPS} Euler steps, {len(PARITY_SEEDS)} random inputs (`example_pick_inputs`), torch against ONNX Runtime on
the CPU: at most {parity:.1e} apart. The limit is {PARITY_LIMIT:g}.

## Where it sees the named cube

After the stage `see`: {seen}.

## Closed loop

{EPISODES} held-out scenes (or the first of them), `make_pick_scene` with seeds {FIRST_HELD_OUT_PICK_SEED} to {last_seed}; physics with
contacts, camera 224x224, a picture every {REPLAN_ROWS} rows ({REPLAN_ROWS / 20:.1f} s), 6 s per episode. Delay: the time between a picture and
the use of its chunk; the arm keeps moving. Picked up: the named cube is more than 10 cm above where it began for 1 s on
end, and no other cube was ever more than 5 cm up. Median time: until that second begins. The interval is Wilson's. The
chunk time is the median of prefix and denoising on this machine under load, one thread.

{success_rows(folder)}

The words are "{STRANGE.format(colour="COLOUR")}", COLOUR being one of {", ".join(COLOURS)}.

## Commands

```
make -C training pick                                 # data, training, export and this file, from the seed
python -m training.pick_evaluate models/pick_panda --episodes {EPISODES} --delay-rows {DELAY_ROWS}
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--see", type=Path, required=True, help="weights of the stage `see`, for its note")
    parser.add_argument("--export", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_parity(arguments.export)
    text = pick_manifest(arguments.weights, arguments.see, arguments.export)
    (arguments.export / "VERIFICATION.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
