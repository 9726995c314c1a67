# SPDX-License-Identifier: Apache-2.0
"""Lets an export of the picking policy pick up cubes in the simulator, and counts. Nothing of reflex_core is used.

python -m training.pick_evaluate models/pick_panda --episodes 200 --delay-rows 1
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from reflex_ros.demo.pick_arm import PickArm
from reflex_ros.demo.pick_scene import PickScene, make_pick_scene
from training.evaluate import open_session, wilson_interval
from training.language import encode
from training.pick_loop import Image, PickOutcome, run_rows, shrink_picture

FIRST_HELD_OUT_PICK_SEED = 10_000
FIRST_CHOOSING_SEED = 9_000  # scenes for choosing; the held-out ones are for the model card alone
REPLAN_ROWS = 10
SUMMARY_HEAD = "picked up | 95 % interval | another cube lifted | median time | chunk"


class PickExport:
    """One decomposed export; its chunks are [50, 8] in rad and m."""

    def __init__(self, folder: Path, steps: int = 10, seed: int = 0) -> None:
        config = json.loads((folder / "reflex_config.json").read_text(encoding="utf-8"))
        self.steps = steps
        self.spent_s: list[float] = []
        self._normalization = {
            kind: (np.array(values["mean"]), np.array(values["std"]))
            for kind, values in config["normalization"].items()
        }
        self._tokenizer = Tokenizer.from_file(str(folder / config["language"]["tokenizer"]))
        self._sessions = {name: open_session(folder / file) for name, file in config["graphs"].items()}
        self._generator = np.random.default_rng(seed)

    def denoise(self, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the normalised chunk [1, 50, 8] of image, lang_tokens, lang_masks, state and noise."""
        prefix, denoise = self._sessions["prefix"], self._sessions["denoise"]
        observed = {name: inputs[name] for name in ("image", "lang_tokens", "lang_masks")}
        names = [output.name for output in prefix.get_outputs()]
        cache = dict(zip(names, prefix.run(None, observed), strict=True))
        x = inputs["noise"]
        for step in range(self.steps):
            timestep = np.array([1.0 - step / self.steps], dtype=np.float32)
            feed = {"x_t": x, "timestep": timestep, "state": inputs["state"], **cache}
            x = x - denoise.run(None, feed)[0] / np.float32(self.steps)
        return x

    def __call__(self, image: Image, instruction: str, state: NDArray[np.float64]) -> NDArray[np.float64]:
        started_s = time.perf_counter()
        ids, mask = encode(self._tokenizer, [instruction])
        mean, std = self._normalization["state"]
        small = shrink_picture(image).transpose(2, 0, 1)[None]
        noise = self._generator.standard_normal((1, 50, len(state))).astype(np.float32)
        chunk = self.denoise(
            {
                "image": (small / np.float32(127.5) - 1).astype(np.float32),
                "lang_tokens": ids,
                "lang_masks": mask,
                "state": ((state - mean) / std).astype(np.float32)[None],
                "noise": noise,
            }
        )[0]
        mean, std = self._normalization["action"]
        self.spent_s.append(time.perf_counter() - started_s)
        return np.asarray(chunk.astype(np.float64) * std + mean)


def pick_scenes(first_seed: int, count: int) -> list[PickScene]:
    return [make_pick_scene(first_seed + index) for index in range(count)]


def run_pick_episodes(
    policy: PickExport,
    scenes: Sequence[PickScene],
    *,
    delay_rows: int,
    replan_rows: int = REPLAN_ROWS,
    see: Callable[[Image], Image] = lambda image: image,
    say: Callable[[PickScene], str] = lambda scene: scene.instruction,
) -> list[PickOutcome]:
    arm, outcomes = PickArm(), []
    for scene in scenes:
        arm.reset(scene)
        outcomes.append(
            run_rows(
                arm, scene, policy, instruction=say(scene), delay_rows=delay_rows, replan_rows=replan_rows, see=see
            )
        )  # fmt: skip
    arm.close()
    return outcomes


def pick_summary(outcomes: Sequence[PickOutcome], policy: PickExport) -> str:
    """Return one Markdown table row with the columns of SUMMARY_HEAD."""
    count, picked_up = len(outcomes), sum(outcome.picked_up for outcome in outcomes)
    low, high = wilson_interval(picked_up, count)
    times_s = [outcome.row * 0.05 for outcome in outcomes if outcome.picked_up]
    median = f"{np.median(times_s):.1f} s" if times_s else "-"
    return (
        f"{picked_up}/{count} = {100 * picked_up / count:.1f} % | {max(100 * low, 0.0):.1f}-{100 * high:.1f} % | "
        f"{sum(outcome.wrong_cube for outcome in outcomes)} | {median} | {1e3 * np.median(policy.spent_s):.1f} ms |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=FIRST_HELD_OUT_PICK_SEED)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--delay-rows", type=int, default=1)
    parser.add_argument("--replan-rows", type=int, default=REPLAN_ROWS)
    arguments = parser.parse_args()
    policy = PickExport(arguments.export, arguments.steps)
    scenes = pick_scenes(arguments.first_seed, arguments.episodes)
    outcomes = run_pick_episodes(
        policy, scenes, delay_rows=arguments.delay_rows, replan_rows=arguments.replan_rows
    )
    for scene, outcome in zip(scenes, outcomes, strict=True):
        if not outcome.picked_up:
            print(f"seed {scene.seed}: {outcome}, {scene.instruction!r}")
    print(f"| {SUMMARY_HEAD} |")
    print("| " + pick_summary(outcomes, policy))


if __name__ == "__main__":
    main()
