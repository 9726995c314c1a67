# SPDX-License-Identifier: Apache-2.0
"""Scenes with an ambiguous instruction, and when one of them counts as reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reflex_ros.demo.scene import BLOCK_COUNT, SUCCESS_DISTANCE_M, Scene, distances_m

ANY_BLOCK = "reach any block"
CLEAR, ANY, TWINS = "names one block", "names no block", "names two blocks"


def names_one(scene: Scene) -> Scene:
    """Return the scene unchanged."""
    return scene


def names_none(scene: Scene) -> Scene:
    """Return the same scene with an instruction that leaves the choice open."""
    return replace(scene, instruction=ANY_BLOCK)


def names_two(scene: Scene) -> Scene:
    """Return the same scene with the block after the named one in its colour: the instruction now fits both."""
    blocks = list(scene.blocks)
    other = (scene.target_index + 1) % BLOCK_COUNT
    blocks[other] = replace(blocks[other], colour=scene.target_colour)
    return replace(scene, blocks=tuple(blocks))


TASKS: Mapping[str, Callable[[Scene], Scene]] = {CLEAR: names_one, ANY: names_none, TWINS: names_two}


def reached_one_of_them(scene: Scene, end_effector_m: NDArray[np.float64]) -> bool:
    """Return True when the nearest block is one that the instruction allows and its hover point is within the success distance."""
    distances = distances_m(scene, end_effector_m)
    nearest = int(np.argmin(distances))
    allowed = scene.instruction == ANY_BLOCK or scene.blocks[nearest].colour == scene.target_colour
    return allowed and bool(distances[nearest] < SUCCESS_DISTANCE_M)
