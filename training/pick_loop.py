# SPDX-License-Identifier: Apache-2.0
"""Closed loop of a picking policy in the simulator, 20 rows a second, a chunk late by a chosen number of rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from reflex_ros.demo.pick_arm import PickArm
from reflex_ros.demo.pick_scene import Judgement, PickScene, judge

ROW_S = 0.05
ROWS_LIMIT = 120
PICTURE_SIZE = 112
Image = NDArray[np.uint8]


class PickPolicy(Protocol):
    """A chunk [50, 8] in rad and m from a picture of the camera, an instruction and the state (8,)."""

    def __call__(self, image: Image, instruction: str, state: NDArray[np.float64]) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class PickOutcome:
    """How an episode went. row: the one with which the second of holding began, ROWS_LIMIT where it did not."""

    picked_up: bool
    wrong_cube: bool
    row: int


def shrink_picture(image: Image) -> Image:
    """Return the camera's picture at the size the network takes; serving must do exactly this."""
    small = cv2.resize(image, (PICTURE_SIZE, PICTURE_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def state_of(arm: PickArm) -> NDArray[np.float64]:
    """Return the state (8,): 7 angles in rad and the finger in m."""
    return np.append(arm.joint_positions_rad, arm.finger_m)


def run_rows(
    arm: PickArm,
    scene: PickScene,
    policy: PickPolicy,
    *,
    instruction: str,
    delay_rows: int,
    replan_rows: int,
    limit_rows: int = ROWS_LIMIT,
    see: Callable[[Image], Image] = lambda image: image,
    before_row: Callable[[int], None] = lambda _row: None,
    disturb: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda row: row,
) -> PickOutcome:
    """Drive the arm from where it stands until the cube is picked up or the rows are used up.

    A chunk of the picture at row t is used from row t + delay_rows on; its first rows are then past.
    """
    start_m, judgement = arm.cubes_m, Judgement()
    waiting: deque[tuple[int, NDArray[np.float64]]] = deque()
    rest = state_of(arm)
    born, chunk = 0, rest[None]
    for row in range(limit_rows):
        if row % replan_rows == 0:
            waiting.append((row, policy(see(arm.image()), instruction, state_of(arm))))
        if waiting and row >= waiting[0][0] + delay_rows:
            born, chunk = waiting.popleft()
        before_row(row)
        action = disturb(chunk[min(row - born, len(chunk) - 1)])
        arm.step(action[:7], float(action[7]), ROW_S)
        judgement = judge(judgement, arm.cubes_m[:, 2] - start_m[:, 2], scene.target_index, ROW_S)
        if judgement.picked_up:
            return PickOutcome(True, False, row - round(judgement.held_s / ROW_S) + 1)
    return PickOutcome(False, judgement.wrong_cube, limit_rows)
