# SPDX-License-Identifier: Apache-2.0
"""Drives the simulated arm with an export, closed loop, and counts the episodes that reach the named block.

Nothing of reflex_core is used: this is an independent reading of the export.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from reflex_ros.demo.arm import Arm
from reflex_ros.demo.controllers.options import ControllerOptions
from reflex_ros.demo.controllers.points import rows
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController
from reflex_ros.demo.scene import JOINT_NAMES, Scene, distances_m, make_scene
from training.data import shrink
from training.language import encode

FIRST_HELD_OUT_SEED = 10_000
EPISODE_S = 5.0
REPLAN_S = 1.25
COMMAND_PERIOD_S = 0.01
FROM_COMMAND = ControllerOptions(interpolate_from_desired_state=True)
Float = NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    """One episode: how far from the named hover point, whether another block was nearer, mean chunk time."""

    distance_m: float
    reached: bool
    wrong_block: bool
    chunk_ms: float


def open_session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Export:
    """One export directory, decomposed or monolithic; its chunks are normalised and [1, 50, 7]."""

    def __init__(self, folder: Path, steps: int = 10) -> None:
        config = json.loads((folder / "reflex_config.json").read_text(encoding="utf-8"))
        self.steps = steps
        self.period_s = 1.0 / config["frequency_hz"]
        self.normalization = config["normalization"]
        self.tokenizer = Tokenizer.from_file(str(folder / config["language"]["tokenizer"]))
        self.sessions = {name: open_session(folder / file) for name, file in config["graphs"].items()}

    def denoise(self, inputs: dict[str, NDArray[Any]]) -> Float:
        """`inputs`: image, lang_tokens, lang_masks, state, noise; Euler from time 1 to 0."""
        if "monolithic" in self.sessions:
            actions: Float = self.sessions["monolithic"].run(None, inputs)[0]
            return actions
        observed = {name: inputs[name] for name in ("image", "lang_tokens", "lang_masks")}
        names = [output.name for output in self.sessions["prefix"].get_outputs()]
        prefix = dict(zip(names, self.sessions["prefix"].run(None, observed), strict=True))
        x = inputs["noise"]
        for step in range(self.steps):
            timestep = np.array([1.0 - step / self.steps], dtype=np.float32)
            feed = {"x_t": x, "timestep": timestep, "state": inputs["state"], **prefix}
            x = x - self.sessions["denoise"].run(None, feed)[0] / np.float32(self.steps)
        return x

    def inputs(
        self, image: NDArray[np.uint8], joints_rad: Any, instruction: str, noise: Float
    ) -> dict[str, Any]:
        ids, mask = encode(self.tokenizer, [instruction])
        state = self.normalization["state"]
        return {
            "image": (shrink(image).transpose(2, 0, 1)[None] / np.float32(127.5) - 1).astype(np.float32),
            "lang_tokens": ids,
            "lang_masks": mask,
            "state": ((joints_rad - np.array(state["mean"])) / state["std"]).astype(np.float32)[None],
            "noise": noise,
        }

    def predict(
        self, image: NDArray[np.uint8], joints_rad: Any, instruction: str, noise: Float
    ) -> NDArray[np.float64]:
        """Returns the chunk [50, 7] in rad."""
        action = self.normalization["action"]
        chunk = self.denoise(self.inputs(image, joints_rad, instruction, noise))[0]
        return np.asarray(chunk.astype(np.float64) * action["std"] + action["mean"])


def run_episode(
    export: Export,
    arm: Arm,
    scene: Scene,
    delay_s: float,
    see: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
) -> Outcome:
    """Observes every REPLAN_S; the chunk arrives `delay_s` later, stamped with the observation's time."""
    arm.reset(scene)
    controller = JointTrajectoryController(
        JOINT_NAMES, arm.joint_positions_rad, round(COMMAND_PERIOD_S * 1e9), FROM_COMMAND
    )
    generator = np.random.default_rng(scene.seed)
    replan_ticks, delay_ticks = round(REPLAN_S / COMMAND_PERIOD_S), round(delay_s / COMMAND_PERIOD_S)
    chunk, stamp_s, spent_s = np.empty((0, len(JOINT_NAMES))), 0.0, []
    for tick in range(round(EPISODE_S / COMMAND_PERIOD_S)):
        # Offset from zero, because a stamp of zero means "now".
        now_s = 1.0 + tick * COMMAND_PERIOD_S
        if tick % replan_ticks == 0:
            noise = generator.standard_normal((1, 50, len(JOINT_NAMES))).astype(np.float32)
            image, joints = see(arm.image()), arm.joint_positions_rad
            start = time.perf_counter()
            chunk, stamp_s = export.predict(image, joints, scene.instruction, noise), now_s
            spent_s.append(time.perf_counter() - start)
        if tick % replan_ticks == delay_ticks:
            elapsed = int(delay_s / export.period_s + 1e-9)
            late = rows(round(stamp_s * 1e9), JOINT_NAMES, chunk, export.period_s, elapsed)
            controller.set(round(now_s * 1e9), late)
        arm.step(controller.sample(round(now_s * 1e9), arm.joint_positions_rad)[0], COMMAND_PERIOD_S)
    nearest = int(np.argmin(distances_m(scene, arm.end_effector_m)))
    return Outcome(
        distance_m=arm.distance_m(scene),
        reached=arm.reached(scene),
        wrong_block=nearest != scene.target_index,
        chunk_ms=1e3 * float(np.mean(spent_s)),
    )


def unchanged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image


def run_episodes(
    export: Export,
    scenes: Sequence[Scene],
    delay_s: float,
    see: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = unchanged,
) -> list[Outcome]:
    arm = Arm()
    outcomes = [run_episode(export, arm, scene, delay_s, see) for scene in scenes]
    arm.close()
    return outcomes


def held_out_scenes(count: int) -> list[Scene]:
    return [make_scene(FIRST_HELD_OUT_SEED + index) for index in range(count)]


def wilson_interval(successes: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927)."""
    share = successes / count
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (centre - half) / scale, (centre + half) / scale


def summary(outcomes: Sequence[Outcome]) -> str:
    """One Markdown table row: reached, interval, within 2 cm, wrong block, distance, chunk time."""
    count, reached = len(outcomes), sum(outcome.reached for outcome in outcomes)
    low, high = wilson_interval(reached, count)
    distance_cm = 100 * np.array([outcome.distance_m for outcome in outcomes])
    chunk_ms = np.median([outcome.chunk_ms for outcome in outcomes])
    return (
        f"{reached}/{count} = {100 * reached / count:.1f} % | {100 * low:.1f}-{100 * high:.1f} % | "
        f"{100 * np.mean(distance_cm < 2):.0f} % | {sum(outcome.wrong_block for outcome in outcomes)} | "
        f"{np.median(distance_cm):.2f} / {np.quantile(distance_cm, 0.9):.2f} cm | {chunk_ms:.1f} ms |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--delay-s", type=float, default=0.06)
    arguments = parser.parse_args()
    scenes = held_out_scenes(arguments.episodes)
    outcomes = run_episodes(Export(arguments.export, arguments.steps), scenes, arguments.delay_s)
    for scene, outcome in zip(scenes, outcomes, strict=True):
        if not outcome.reached:
            print(
                f"seed {scene.seed}: {100 * outcome.distance_m:.1f} cm, wrong block {outcome.wrong_block}, "
                f"{scene.instruction!r}"
            )
    print("| reached | 95 % interval | within 2 cm | wrong block | distance median / p90 | chunk |")
    print("| " + summary(outcomes))


if __name__ == "__main__":
    main()
