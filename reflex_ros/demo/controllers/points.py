# SPDX-License-Identifier: Apache-2.0
"""Joint trajectories as values: what a trajectory_msgs/JointTrajectory says, in nanoseconds and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Positions, velocities and accelerations of all joints, (n,) each, in rad or m, per second; None: not given."""

    positions: Floats | None
    velocities: Floats | None = None
    accelerations: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One point of a message; its arrays are in the order of the message's names, None where the field is empty."""

    time_from_start_ns: int
    positions: Floats | None = None
    velocities: Floats | None = None
    accelerations: Floats | None = None
    effort: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One message. stamp_ns: what the points' times are counted from, on the controller's clock; 0: from its first update."""

    stamp_ns: int
    names: tuple[str, ...]
    points: tuple[Point, ...]


def rows(
    stamp_ns: int, names: Sequence[str], positions: ArrayLike, dt_s: float, first: int = 0
) -> Trajectory:
    """Return positions (rows, joints) in rad or m as a trajectory without velocities; row i is due at (i + 1) * dt_s.

    first: The first row that is in it: those before have elapsed.
    """
    due = [
        Point(round((index + 1) * dt_s * 1e9), row)
        for index, row in enumerate(np.array(positions, np.float64))
        if index >= first
    ]
    return Trajectory(stamp_ns, tuple(names), tuple(due))
