# SPDX-License-Identifier: Apache-2.0
"""Seeded reach scenes: three coloured blocks, an instruction that names one, a start pose, a success rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

JOINT_NAMES = tuple(f"panda_joint{index}" for index in range(1, 8))
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.70, 0.15),
    "blue": (0.10, 0.20, 0.90),
    "yellow": (0.90, 0.80, 0.10),
}
INSTRUCTION_TEMPLATES = (
    "reach the {colour} block",
    "touch the {colour} cube",
    "move to the {colour} block",
    "go to the {colour} box",
    "point at the {colour} block",
    "hover over the {colour} cube",
    "move the arm above the {colour} block",
    "please reach the {colour} cube",
    "please move the arm slowly over to the {colour} block on the table",
)
HOME_RAD = (0.0, 0.195, 0.0, -2.43, 0.0, 2.62, 0.785)
START_SPREAD_RAD = 0.08
BLOCK_COUNT = 3
BLOCK_HALF_SIZE_M = 0.025
BLOCK_AREA_M = ((0.36, 0.62), (-0.28, 0.28))
BLOCK_SPACING_M = 0.11
HOVER_HEIGHT_M = 0.10
SUCCESS_DISTANCE_M = 0.04


@dataclass(frozen=True)
class Block:
    """One block on the table: centre in the robot base frame, in metres, and a name out of COLOURS."""

    x_m: float
    y_m: float
    colour: str


@dataclass(frozen=True)
class Scene:
    """The start of an episode: 3 blocks, an instruction, the block it names, the start pose (7,) in rad."""

    seed: int
    blocks: tuple[Block, ...]
    instruction: str
    target_index: int
    start_joints_rad: tuple[float, ...]

    @property
    def target_colour(self) -> str:
        return self.blocks[self.target_index].colour


def sample_block_positions(generator: np.random.Generator) -> NDArray[np.float64]:
    """Return [3, 2] block centres in metres, no two closer than BLOCK_SPACING_M."""
    low, high = np.transpose(BLOCK_AREA_M)
    while True:
        positions = generator.uniform(low, high, (BLOCK_COUNT, 2))
        between = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        if between[np.triu_indices(BLOCK_COUNT, 1)].min() > BLOCK_SPACING_M:
            return positions


def make_scene(seed: int) -> Scene:
    """Return the scene of this seed; the same seed gives the same scene on every machine."""
    generator = np.random.default_rng(seed)
    positions = sample_block_positions(generator)
    colours = generator.choice(list(COLOURS), BLOCK_COUNT, replace=False)
    blocks = tuple(
        Block(float(x), float(y), str(colour)) for (x, y), colour in zip(positions, colours, strict=True)
    )
    target_index = int(generator.integers(BLOCK_COUNT))
    template = INSTRUCTION_TEMPLATES[int(generator.integers(len(INSTRUCTION_TEMPLATES)))]
    start = np.asarray(HOME_RAD) + generator.normal(0.0, START_SPREAD_RAD, len(HOME_RAD))
    return Scene(
        seed=seed,
        blocks=blocks,
        instruction=template.format(colour=blocks[target_index].colour),
        target_index=target_index,
        start_joints_rad=tuple(float(angle) for angle in start),
    )


def hover_points_m(scene: Scene) -> NDArray[np.float64]:
    """Return [3, 3]: the point HOVER_HEIGHT_M above the top of each block."""
    height = 2 * BLOCK_HALF_SIZE_M + HOVER_HEIGHT_M
    return np.array([[block.x_m, block.y_m, height] for block in scene.blocks])


def distances_m(scene: Scene, end_effector_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [3]: distance from the end effector to each block's hover point."""
    distances: NDArray[np.float64] = np.linalg.norm(hover_points_m(scene) - end_effector_m, axis=1)
    return distances


def is_reached(scene: Scene, end_effector_m: NDArray[np.float64]) -> bool:
    """Return True when the named block is the nearest one and its hover point is within SUCCESS_DISTANCE_M."""
    distances = distances_m(scene, end_effector_m)
    return int(np.argmin(distances)) == scene.target_index and bool(
        distances[scene.target_index] < SUCCESS_DISTANCE_M
    )
