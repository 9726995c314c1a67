# SPDX-License-Identifier: Apache-2.0
"""Seeded picking scenes: three coloured cubes, an instruction that names one, a start pose, and the rule of success."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_ros.demo.scene import COLOURS, HOME_RAD, JOINT_NAMES

FINGER_NAME = "panda_finger_joint1"
PICK_JOINT_NAMES = (*JOINT_NAMES, FINGER_NAME)
PICK_TEMPLATES = (
    "pick up the {colour} cube",
    "pick up the {colour} block",
    "grasp the {colour} cube",
    "lift the {colour} block",
    "take the {colour} cube",
    "grab the {colour} block and lift it",
    "raise the {colour} cube",
    "please pick up the {colour} cube",
    "please pick up the {colour} block on the table",
)
CUBE_COUNT = 3
CUBE_HALF_SIZE_M = 0.02
CUBE_AREA_M = ((0.40, 0.60), (-0.20, 0.20))
CUBE_SPACING_M = 0.11
CUBE_TURN_RAD = 0.15
FINGER_OPEN_M = 0.04
PICK_START_SPREAD_RAD = 0.06
LIFTED_M = 0.10
HELD_S = 1.0
WRONG_CUBE_M = 0.05


@dataclass(frozen=True)
class Cube:
    """One cube on the table: centre in the robot base frame in m, turn about the vertical in rad, a name out of COLOURS."""

    x_m: float
    y_m: float
    turn_rad: float
    colour: str


@dataclass(frozen=True)
class PickScene:
    """The start of an episode: 3 cubes, an instruction, the cube it names, the start pose (7,) in rad; fingers open."""

    seed: int
    cubes: tuple[Cube, ...]
    instruction: str
    target_index: int
    start_joints_rad: tuple[float, ...]

    @property
    def target_colour(self) -> str:
        return self.cubes[self.target_index].colour


def sample_cube_positions(generator: np.random.Generator) -> NDArray[np.float64]:
    """Return [3, 2] cube centres in m, no two closer than CUBE_SPACING_M."""
    low, high = np.transpose(CUBE_AREA_M)
    while True:
        positions = generator.uniform(low, high, (CUBE_COUNT, 2))
        between = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        if between[np.triu_indices(CUBE_COUNT, 1)].min() > CUBE_SPACING_M:
            return positions


def make_pick_scene(seed: int) -> PickScene:
    """Return the scene of this seed; the same seed gives the same scene on every machine."""
    generator = np.random.default_rng(seed)
    positions = sample_cube_positions(generator)
    turns = generator.uniform(-CUBE_TURN_RAD, CUBE_TURN_RAD, CUBE_COUNT)
    colours = generator.choice(list(COLOURS), CUBE_COUNT, replace=False)
    cubes = tuple(
        Cube(float(x), float(y), float(turn), str(colour))
        for (x, y), turn, colour in zip(positions, turns, colours, strict=True)
    )
    target_index = int(generator.integers(CUBE_COUNT))
    template = PICK_TEMPLATES[int(generator.integers(len(PICK_TEMPLATES)))]
    start = np.asarray(HOME_RAD) + generator.normal(0.0, PICK_START_SPREAD_RAD, len(HOME_RAD))
    return PickScene(
        seed=seed,
        cubes=cubes,
        instruction=template.format(colour=cubes[target_index].colour),
        target_index=target_index,
        start_joints_rad=tuple(float(angle) for angle in start),
    )


@dataclass(frozen=True)
class Judgement:
    """What the cubes have done so far in an episode.

    held_s: for how long the named cube has now been more than LIFTED_M above where it began, without a break.
    wrong_cube: whether another cube was ever more than WRONG_CUBE_M above where it began.
    height_m: how far the named cube is above where it began.
    """

    held_s: float = 0.0
    wrong_cube: bool = False
    height_m: float = 0.0

    @property
    def picked_up(self) -> bool:
        # A microsecond of tolerance: held_s is a sum of physics steps.
        return self.held_s >= HELD_S - 1e-6 and not self.wrong_cube


def judge(
    before: Judgement, heights_m: NDArray[np.float64], target_index: int, duration_s: float
) -> Judgement:
    """Return the judgement `duration_s` later. heights_m: [3], of each cube above where it began."""
    height_m = float(heights_m[target_index])
    others = np.delete(heights_m, target_index)
    return Judgement(
        held_s=before.held_s + duration_s if height_m > LIFTED_M else 0.0,
        wrong_cube=before.wrong_cube or bool((others > WRONG_CUBE_M).any()),
        height_m=height_m,
    )
