# SPDX-License-Identifier: Apache-2.0
"""Training images: simulated scenes with the arm anywhere on its way to one of the blocks."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from reflex_ros.console.terminal import Bar
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import (
    BLOCK_AREA_M,
    COLOURS,
    HOME_RAD,
    START_SPREAD_RAD,
    Block,
    Scene,
    sample_block_positions,
)
from training.expert import build_goal_function

CAMERA_SIZE = 224
IMAGE_SIZE = 96
COLOUR_NAMES = tuple(COLOURS)
BRIGHTNESS = (0.75, 1.15)
CHANNEL_GAIN = (0.94, 1.06)
STATE_NOISE_RAD = 0.02
VISITED_POSE_NOISE_RAD = 0.06
STATES_PER_SCENE = 3


@dataclass(frozen=True)
class Dataset:
    """images [N, 96, 96, 3], joints_rad [N, 7], blocks_m [N, 3, 2], colours [N, 3], goals_rad [N, 3, 7]."""

    images: NDArray[np.uint8]
    joints_rad: NDArray[np.float64]
    blocks_m: NDArray[np.float64]
    colours: NDArray[np.int64]
    goals_rad: NDArray[np.float64]


def shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The camera's image at the size the network takes; serving must do exactly this."""
    small = cv2.resize(image, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def vary_light(image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    gain = generator.uniform(*BRIGHTNESS) * generator.uniform(*CHANNEL_GAIN, 3)
    return np.clip(image * gain, 0, 255).astype(np.uint8)


def generate(count: int, seed: int) -> Dataset:
    """Renders `count` observations; the same seed gives the same ones."""
    generator = np.random.default_rng(seed)
    goal: Callable[[NDArray[np.float64]], NDArray[np.float64]] = build_goal_function()
    arm = Arm(image_size=CAMERA_SIZE)
    images: list[NDArray[np.uint8]] = []
    joints, positions, colours = [], [], []
    bar = Bar(unit="images", plain=partial(print, flush=True))
    while len(images) < count:
        bar.draw(len(images) / count, len(images))
        blocks_m = sample_block_positions(generator)
        colour_index = generator.choice(len(COLOUR_NAMES), len(blocks_m), replace=False)
        blocks = tuple(Block(x, y, COLOUR_NAMES[c]) for (x, y), c in zip(blocks_m, colour_index, strict=True))
        arm.reset(Scene(seed=0, blocks=blocks, instruction="", target_index=0, start_joints_rad=HOME_RAD))
        if generator.random() < 0.5:
            start = np.asarray(HOME_RAD) + generator.normal(0, START_SPREAD_RAD, 7)
        else:
            # A robot that has just served another instruction stands above some other point of the table.
            visited = generator.uniform(*np.transpose(BLOCK_AREA_M))
            start = goal(visited) + generator.normal(0, VISITED_POSE_NOISE_RAD, 7)
        end = goal(blocks_m[generator.integers(len(blocks_m))])
        # Replanning observes the arm half-way and close to the goal, not only at the start.
        for share in (0.0, generator.uniform(0.0, 1.0), generator.uniform(0.6, 1.0))[:STATES_PER_SCENE]:
            arm.set_joints(start + (end - start) * share + generator.normal(0, STATE_NOISE_RAD, 7))
            images.append(shrink(vary_light(arm.image(), generator)))
            joints.append(arm.joint_positions_rad)
            positions.append(blocks_m)
            colours.append(colour_index)
    bar.clear()
    arm.close()
    blocks_array = np.array(positions[:count])
    return Dataset(
        images=np.array(images[:count]),
        joints_rad=np.array(joints[:count]),
        blocks_m=blocks_array,
        colours=np.array(colours[:count], dtype=np.int64),
        goals_rad=goal(blocks_array),
    )


def load(path: Path) -> Dataset:
    with np.load(path) as arrays:
        return Dataset(**{name: arrays[name] for name in arrays.files})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.out, **vars(generate(arguments.count, arguments.seed)))


if __name__ == "__main__":
    main()
