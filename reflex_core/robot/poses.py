# SPDX-License-Identifier: Apache-2.0
"""Poses of a tool, and how the differences in a chunk become poses: by the frame they are written in, and what they start from.

A wrong frame inverts what a tool that points down does along z, so that neither is ever a default.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.rotations import matrix_of_quaternion, quaternion_of_matrix, slerp

Doubles = NDArray[np.float64]

BASE_FRAME, TOOL_FRAME = FRAMES = ("base", "tool")
ROW_BEFORE, CHUNK_START = STARTS = ("row_before", "chunk_start")


@dataclass(frozen=True, slots=True)
class Poses:
    """position: (..., 3) m. rotation: (..., 3, 3) matrices of the tool's axes in the base."""

    position: Doubles
    rotation: Doubles

    def __getitem__(self, row: int) -> Poses:
        return Poses(self.position[row], self.rotation[row])


def composed(start: Poses, deltas: Poses, frame: str, starts_from: str) -> Poses:
    """Return (n) poses of (n) differences.

    Args:
        start: The pose of the observation that the chunk was computed from.
        deltas: Of each row.
        frame: BASE_FRAME: p + dp and dR R. TOOL_FRAME: T dT, in the axes of the tool that a row starts from.
        starts_from: CHUNK_START: every row starts from `start` (UMI, GR00T). ROW_BEFORE: from the pose before it.
    """
    poses, at = [], start
    for row in range(len(deltas.position)):
        at = _moved(start if starts_from == CHUNK_START else at, deltas[row], frame)
        poses.append(at)
    return _stacked(poses)


def differences(start: Poses, poses: Poses, frame: str, starts_from: str) -> Poses:
    """Return the (n) differences that `composed` makes these (n) poses of."""
    deltas, at = [], start
    for row in range(len(poses.position)):
        deltas.append(_between(at, poses[row], frame))
        at = start if starts_from == CHUNK_START else poses[row]
    return _stacked(deltas)


def on_the_way(start: Poses, poses: Poses, elapsed_rows: float) -> Poses:
    """Return the pose after so many rows of a chunk of (n) poses that begins at `start`, between two rows on the straight way."""
    at = min(max(elapsed_rows, 0.0), float(len(poses.position)))
    low = min(int(np.floor(at + 1e-6)), len(poses.position) - 1)
    one, other = (start if low == 0 else poses[low - 1]), poses[low]
    share = max(at - low, 0.0)
    turned = slerp(quaternion_of_matrix(one.rotation), quaternion_of_matrix(other.rotation), share)
    return Poses(one.position + share * (other.position - one.position), matrix_of_quaternion(turned))


def _moved(pose: Poses, delta: Poses, frame: str) -> Poses:
    if frame == BASE_FRAME:
        return Poses(pose.position + delta.position, delta.rotation @ pose.rotation)
    return Poses(pose.position + pose.rotation @ delta.position, pose.rotation @ delta.rotation)


def _between(pose: Poses, then: Poses, frame: str) -> Poses:
    back, away = pose.rotation.T, then.position - pose.position
    if frame == BASE_FRAME:
        return Poses(away, then.rotation @ back)
    return Poses(back @ away, back @ then.rotation)


def _stacked(poses: list[Poses]) -> Poses:
    if not poses:
        return Poses(np.zeros((0, 3)), np.zeros((0, 3, 3)))
    return Poses(np.stack([one.position for one in poses]), np.stack([one.rotation for one in poses]))
