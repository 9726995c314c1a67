# SPDX-License-Identifier: Apache-2.0
"""Trains the policy on one thread, for a fixed number of iterations, so that a seed gives the same weights.

Phase 1 teaches the convolutions alone to find and name blocks. Phase 2 trains everything on the flow loss,
with two auxiliary losses on the prefix: the same detection, and the position of the named block.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from reflex_ros.console.terminal import Bar
from reflex_ros.demo.arm import build_model
from reflex_ros.demo.scene import BLOCK_AREA_M, BLOCK_HALF_SIZE_M
from training import data as datasets
from training.data import COLOUR_NAMES, Dataset
from training.demonstrator import demonstrate
from training.language import (
    ANY_BLOCK,
    ANY_BLOCK_SHARE,
    build_tokenizer,
    encode,
    sample_instruction,
    vocabulary,
)
from training.model import IMAGE_TOKENS_PER_SIDE, ReachPolicy

DETECTION_ITERATIONS = 600
DETECTION_BATCH = 48
DETECTION_RATE = 2e-3
FLOW_ITERATIONS = 2300
FLOW_IMAGES = 16
INSTRUCTIONS_PER_IMAGE = 3
FLOW_RATE = 1.5e-3
DETECTION_WEIGHT = 0.5
MINIMUM_STD_RAD = 0.1
IMAGE_NOISE = 0.03
BACKGROUND_WEIGHT = 0.3
EMA_DECAY = 0.998
REPORT_EVERY = 50

AREA_CENTRE_M = np.mean(BLOCK_AREA_M, axis=1)
AREA_HALF_M = np.ptp(BLOCK_AREA_M, axis=1) / 2


def compute_statistics(dataset: Dataset) -> dict[str, list[float]]:
    """Mean and std per joint of states and demonstrated actions; a std below MINIMUM_STD_RAD is raised to it.

    The floor keeps joints that hardly move from weighing as much in the loss as those that carry the arm.
    """
    actions = np.concatenate(
        [demonstrate(dataset.joints_rad, dataset.goals_rad[:, block]) for block in range(3)]
    )
    values = {"state": dataset.joints_rad, "action": actions.reshape(-1, 7)}
    statistics = {}
    for name, rows in values.items():
        statistics[f"mean_{name}"] = rows.mean(axis=0, dtype=np.float64).tolist()
        statistics[f"std_{name}"] = np.maximum(rows.std(axis=0, dtype=np.float64), MINIMUM_STD_RAD).tolist()
    return statistics


def project_blocks(blocks_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Image position [..., 2] (column, row), in image tokens, of block centres [..., 2] on the table."""
    model = build_model()
    state = mujoco.MjData(model)
    mujoco.mj_kinematics(model, state)
    mujoco.mj_camlight(model, state)
    camera = model.camera("policy").id
    height = np.full((*blocks_m.shape[:-1], 1), BLOCK_HALF_SIZE_M)
    seen = (np.concatenate([blocks_m, height], axis=-1) - state.cam_xpos[camera]) @ state.cam_xmat[
        camera
    ].reshape(3, 3)
    focal = 0.5 / math.tan(math.radians(model.cam_fovy[camera]) / 2)
    column = 0.5 + focal * seen[..., 0] / -seen[..., 2]
    row = 0.5 - focal * seen[..., 1] / -seen[..., 2]
    return np.stack([column, row], axis=-1) * IMAGE_TOKENS_PER_SIDE


class Sampler:
    """Draws training batches; every random number comes from one seeded generator."""

    def __init__(self, dataset: Dataset, statistics: dict[str, list[float]], seed: int) -> None:
        self.dataset = dataset
        self.generator = np.random.default_rng(seed)
        self.tokenizer = build_tokenizer()
        self.statistics = {name: np.asarray(values) for name, values in statistics.items()}
        self.projected = project_blocks(dataset.blocks_m)

    def pick(self, count: int) -> NDArray[np.int64]:
        return self.generator.integers(0, len(self.dataset.images), count)

    def images(self, rows: NDArray[np.int64], noise: float) -> Tensor:
        """float [N, 3, 96, 96] in [-1, 1], each channel shifted a little."""
        image = torch.from_numpy(self.dataset.images[rows]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        shift = self.generator.normal(0, noise, (len(rows), 3, 1, 1)).astype(np.float32)
        return (image + torch.from_numpy(shift)).contiguous(memory_format=torch.channels_last)

    def detection(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Per image token: class [N, 36] (0 none, 1.. colour), and offset [N, 36, 2] of the block in it."""
        side = IMAGE_TOKENS_PER_SIDE
        classes = np.zeros((len(rows), side * side), np.int64)
        offsets = np.zeros((len(rows), side * side, 2), np.float32)
        cell = np.clip(np.floor(self.projected[rows]), 0, side - 1)
        token = (cell[..., 1] * side + cell[..., 0]).astype(np.int64)
        image = np.arange(len(rows))[:, None]
        classes[image, token] = 1 + self.dataset.colours[rows]
        offsets[image, token] = self.projected[rows] - cell - 0.5
        return torch.from_numpy(classes), torch.from_numpy(offsets)

    def instructions(
        self, rows: NDArray[np.int64], per_image: int
    ) -> tuple[list[str], NDArray[np.int64], NDArray[Any]]:
        """Sentences, the block each one means, whether it names one; `per_image` of them for every row."""
        sentences, meant, named = [], [], []
        for row in rows:
            order = self.generator.permutation(3)
            for turn in range(per_image):
                is_named = self.generator.random() >= ANY_BLOCK_SHARE
                block = int(order[turn % 3])
                colour = COLOUR_NAMES[self.dataset.colours[row, block]]
                sentences.append(
                    sample_instruction(colour, self.generator)
                    if is_named
                    else str(self.generator.choice(ANY_BLOCK))
                )
                meant.append(block)
                named.append(is_named)
        return sentences, np.array(meant), np.array(named, dtype=np.float32)

    def normalise(self, values: NDArray[Any], kind: str) -> Tensor:
        scaled = (values - self.statistics[f"mean_{kind}"]) / self.statistics[f"std_{kind}"]
        return torch.from_numpy(scaled.astype(np.float32))


def detection_loss(prefix: Any, seen: Tensor, classes: Tensor, offsets: Tensor) -> Tensor:
    guess = prefix.detection(seen)
    weight = torch.ones(1 + len(COLOUR_NAMES))
    weight[0] = BACKGROUND_WEIGHT
    named = functional.cross_entropy(guess[..., :-2].flatten(0, 1), classes.flatten(), weight=weight)
    there = (classes > 0).float()
    placed = (((guess[..., -2:] - offsets) ** 2).sum(-1) * there).sum() / there.sum()
    return named + placed


def cosine_rate(peak: float, iteration: int, total: int, warm_up: int, floor: float) -> float:
    decay = 0.5 * (1 + math.cos(math.pi * iteration / total))
    return peak * min(1.0, (iteration + 1) / warm_up) * (floor + (1 - floor) * decay)


def train_detection(policy: ReachPolicy, sampler: Sampler, iterations: int) -> None:
    prefix = policy.prefix
    parameters = [*prefix.stem.parameters(), *prefix.project.parameters(), *prefix.detection.parameters()]
    optimiser = torch.optim.AdamW(parameters, DETECTION_RATE, weight_decay=1e-3)
    bar = Bar()
    for iteration in range(iterations):
        optimiser.param_groups[0]["lr"] = cosine_rate(DETECTION_RATE, iteration, iterations, 30, 0.1)
        rows = sampler.pick(DETECTION_BATCH)
        loss = detection_loss(prefix, prefix.see(sampler.images(rows, IMAGE_NOISE)), *sampler.detection(rows))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        bar.draw((iteration + 1) / iterations, "training: detection")
        if iteration % REPORT_EVERY == 0:
            bar.clear()
            print(
                f"detection {iteration}/{iterations} cpu {time.process_time():.0f} s loss {loss.item():.4f}",
                flush=True,
            )


def train_flow(policy: ReachPolicy, sampler: Sampler, iterations: int) -> ReachPolicy:
    """Returns the exponential moving average of the weights."""
    dataset, generator = sampler.dataset, sampler.generator
    average = copy.deepcopy(policy)
    optimiser = torch.optim.AdamW(policy.parameters(), FLOW_RATE, weight_decay=1e-3, betas=(0.9, 0.98))
    reported, bar = np.zeros(2), Bar()
    for iteration in range(iterations):
        optimiser.param_groups[0]["lr"] = cosine_rate(FLOW_RATE, iteration, iterations, 100, 0.02)
        rows = sampler.pick(FLOW_IMAGES)
        sentences, meant, named = sampler.instructions(rows, INSTRUCTIONS_PER_IMAGE)
        ids, mask = (torch.from_numpy(array) for array in encode(sampler.tokenizer, sentences))
        repeated = np.repeat(rows, INSTRUCTIONS_PER_IMAGE)
        joints = dataset.joints_rad[repeated]
        state = sampler.normalise(joints, "state")
        actions = sampler.normalise(demonstrate(joints, dataset.goals_rad[repeated, meant]), "action")
        target = torch.from_numpy(
            ((dataset.blocks_m[repeated, meant] - AREA_CENTRE_M) / AREA_HALF_M).astype(np.float32)
        )

        seen = policy.prefix.see(sampler.images(rows, IMAGE_NOISE))
        detection = detection_loss(policy.prefix, seen, *sampler.detection(rows))
        past_k, past_v, prefix_pad, words = policy.prefix.read(
            seen.repeat_interleave(INSTRUCTIONS_PER_IMAGE, 0), ids, mask
        )
        is_named = torch.from_numpy(named)
        guess_error = ((policy.prefix.guess_target(words, mask) - target) ** 2).mean(1)
        guess = (guess_error * is_named).sum() / is_named.sum()

        noise = torch.from_numpy(generator.standard_normal(actions.shape).astype(np.float32))
        timestep = torch.from_numpy(generator.beta(1.5, 1.0, len(actions)).astype(np.float32)) * 0.999 + 0.001
        t = timestep[:, None, None]
        velocity = policy.expert(t * noise + (1 - t) * actions, timestep, past_k, past_v, prefix_pad, state)
        flow = functional.mse_loss(velocity, noise - actions)

        optimiser.zero_grad(set_to_none=True)
        (flow + guess + DETECTION_WEIGHT * detection).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimiser.step()
        decay = min(EMA_DECAY, (1 + iteration) / (10 + iteration))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), policy.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        reported += (flow.item(), guess.item())
        bar.draw((iteration + 1) / iterations, "training: flow")
        if (iteration + 1) % REPORT_EVERY == 0:
            bar.clear()
            flow_mean, guess_mean = reported / REPORT_EVERY
            print(
                f"flow {iteration + 1}/{iterations} cpu {time.process_time():.0f} s flow {flow_mean:.4f} "
                f"target {guess_mean:.4f}",
                flush=True,
            )
            reported[:] = 0
    return average


@torch.no_grad()
def validate(
    policy: ReachPolicy, dataset: Dataset, statistics: dict[str, list[float]], steps: int = 10
) -> str:
    """One line: target position error in cm and error of the last action in rad on held-out images."""
    sampler = Sampler(dataset, statistics, seed=0)
    rows = np.arange(len(dataset.images))
    meant = rows % 3
    colours = dataset.colours[rows, meant]
    sentences = [sample_instruction(COLOUR_NAMES[colour], sampler.generator) for colour in colours]
    ids, mask = (torch.from_numpy(array) for array in encode(sampler.tokenizer, sentences))
    past_k, past_v, prefix_pad, words = policy.prefix.read(
        policy.prefix.see(sampler.images(rows, 0.0)), ids, mask
    )
    guess_m = policy.prefix.guess_target(words, mask).numpy() * AREA_HALF_M + AREA_CENTRE_M
    miss_cm = 100 * np.linalg.norm(guess_m - dataset.blocks_m[rows, meant], axis=1)
    state = sampler.normalise(dataset.joints_rad, "state")
    x = torch.from_numpy(sampler.generator.standard_normal((len(rows), 50, 7)).astype(np.float32))
    for step in range(steps):
        timestep = torch.full((len(rows),), 1 - step / steps)
        x = x - policy.expert(x, timestep, past_k, past_v, prefix_pad, state) / steps
    last = x[:, -1].numpy() * statistics["std_action"] + statistics["mean_action"]
    wanted = demonstrate(dataset.joints_rad, dataset.goals_rad[rows, meant])[:, -1]
    error = np.abs(last - wanted).max(axis=1)
    return (
        f"held-out images {len(rows)}: target position median {np.median(miss_cm):.2f} cm "
        f"p90 {np.quantile(miss_cm, 0.9):.2f} cm; largest joint error of the last action "
        f"median {np.median(error):.4f} rad p90 {np.quantile(error, 0.9):.4f} rad"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detection-iterations", type=int, default=DETECTION_ITERATIONS)
    parser.add_argument("--flow-iterations", type=int, default=FLOW_ITERATIONS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Tiny optimiser moments become denormal numbers, which are many times slower on a CPU.
    torch.set_flush_denormal(True)
    torch.manual_seed(arguments.seed)

    dataset = datasets.load(arguments.data)
    statistics = compute_statistics(dataset)
    sampler = Sampler(dataset, statistics, arguments.seed)
    policy = ReachPolicy(len(vocabulary()), len(COLOUR_NAMES))
    policy.prefix.stem.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    print(f"{sum(parameter.numel() for parameter in policy.parameters())} parameters", flush=True)
    train_detection(policy, sampler, arguments.detection_iterations)
    average = train_flow(policy, sampler, arguments.flow_iterations).eval()
    result = validate(average, datasets.load(arguments.held_out), statistics)
    print(result, flush=True)
    torch.save(
        {
            "weights": average.state_dict(),
            "statistics": statistics,
            "validation": result,
            "seed": arguments.seed,
        },
        arguments.out,
    )


if __name__ == "__main__":
    main()
