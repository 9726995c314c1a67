# SPDX-License-Identifier: Apache-2.0
"""Follow joint trajectories as ros2_control's joint_trajectory_controller does by default.

Positions only, linear interpolation, no tolerances. Times are seconds of one clock that the caller chooses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

TrajectoryPoint = tuple[float, ArrayLike]


class TrajectoryRefused(ValueError):  # noqa: N818 - it says what happened
    """The trajectory is not followed and what was followed before stays in force."""


class TrajectoryFollower:
    """Holds the commanded joint positions of one arm over time; pure, without clock, thread or ROS."""

    def __init__(self, joint_names: Sequence[str], start_rad: ArrayLike) -> None:
        """Create it, holding `start_rad` (one angle per joint, in the order of `joint_names`) until a trajectory comes."""
        start = np.array(start_rad, dtype=np.float64)
        if start.shape != (len(joint_names),) or not np.isfinite(start).all():
            raise ValueError(f"Expected {len(joint_names)} finite start angles in rad, got {start_rad!r}.")
        self.joint_names = tuple(joint_names)
        self._times_s = np.zeros(1)
        self._positions_rad = start[None]

    def command(self, now_s: float) -> NDArray[np.float64]:
        """Return the commanded angles at `now_s`, in rad: linear between points, held after the last one."""
        return np.array([np.interp(now_s, self._times_s, column) for column in self._positions_rad.T])

    def set(
        self, now_s: float, stamp_s: float, joint_names: Sequence[str], points: Sequence[TrajectoryPoint]
    ) -> None:
        """Splice a trajectory in: from the present command, straight to its first point still to come.

        `points` are (time_from_start_s, positions_rad in the order of `joint_names`), counted from
        `stamp_s`; a stamp of 0 means now. Points whose time has passed are skipped. No points means: hold
        what is commanded now. Raises TrajectoryRefused for other joints than the arm's, for times that do
        not increase, for positions that are missing or not finite, and for a trajectory that has ended
        already.
        """
        if len(points) == 0:
            self.hold(now_s)
            return
        order = self._order_of(joint_names)
        times_s = self._checked_times([time for time, _ in points]) + (now_s if stamp_s == 0 else stamp_s)
        positions_rad = self._checked_positions([positions for _, positions in points], joint_names)[:, order]
        first = int(np.searchsorted(times_s, now_s, side="right"))
        if first == len(times_s):
            # With stamp 0 and a single point at 0 s the goal is "be there now", not the past.
            if times_s[-1] < now_s:
                raise TrajectoryRefused(
                    f"The trajectory ended {now_s - times_s[-1]:.3f} s ago; expected a point in the future."
                )
            first -= 1
        commanded = self.command(now_s)
        self._times_s = np.concatenate([[now_s], times_s[first:]])
        self._positions_rad = np.concatenate([commanded[None], positions_rad[first:]])

    def hold(self, now_s: float) -> None:
        """Stop at the present command."""
        commanded = self.command(now_s)
        self._times_s = np.array([now_s])
        self._positions_rad = commanded[None]

    def ends_at_s(self) -> float:
        """Return the time of the last point; from then on the command does not change."""
        return float(self._times_s[-1])

    def _order_of(self, joint_names: Sequence[str]) -> list[int]:
        given = list(joint_names)
        unknown = [name for name in given if name not in self.joint_names]
        missing = [name for name in self.joint_names if name not in given]
        if unknown or missing or len(given) != len(self.joint_names):
            raise TrajectoryRefused(
                f"The trajectory's joints do not fit the arm: unknown {unknown}, missing {missing}; "
                f"expected each of {list(self.joint_names)} once, got {given}."
            )
        return [given.index(name) for name in self.joint_names]

    @staticmethod
    def _checked_times(times_from_start_s: Sequence[float]) -> NDArray[np.float64]:
        times = np.array(times_from_start_s, dtype=np.float64)
        if not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) <= 0).any():
            raise TrajectoryRefused(
                "Expected time_from_start to be at least 0 s and to increase from point to point, "
                f"got {times.tolist()}."
            )
        return times

    @staticmethod
    def _checked_positions(rows: Sequence[ArrayLike], joint_names: Sequence[str]) -> NDArray[np.float64]:
        checked = [np.asarray(row, dtype=np.float64) for row in rows]
        for index, row in enumerate(checked):
            if row.shape != (len(joint_names),):
                raise TrajectoryRefused(
                    f"Expected {len(joint_names)} positions at point {index}, got {row.size}."
                )
            if not np.isfinite(row).all():
                bad = [name for name, value in zip(joint_names, row, strict=True) if not np.isfinite(value)]
                raise TrajectoryRefused(
                    f"Expected finite positions at point {index}, got NaN or infinity for {bad}."
                )
        return np.stack(checked)
