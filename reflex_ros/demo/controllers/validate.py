# SPDX-License-Identifier: Apache-2.0
"""Which messages joint_trajectory_controller refuses, in the order in which it looks (ros2_controllers 4.42 to 6.9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from reflex_ros.demo.controllers.options import ControllerOptions
from reflex_ros.demo.controllers.points import Floats, Point, Trajectory

REST = 1.2e-7  # rad/s or m/s: the last velocity counts as zero up to the precision of a float32


class TrajectoryRefused(ValueError):  # noqa: N818 - it says what happened
    """The trajectory is not followed and what was followed before stays in force. rule: which check refused it."""

    def __init__(self, rule: int, sentence: str) -> None:
        super().__init__(sentence)
        self.rule = rule


class TrajectoryNotFinite(TrajectoryRefused):
    """The trajectory holds NaN or infinity, which the real controller hands to its hardware: a fault of who sent it."""


def check(trajectory: Trajectory, joints: Sequence[str], now_ns: int, options: ControllerOptions) -> None:
    """Raise TrajectoryRefused where a controller of `joints` would not follow the trajectory at `now_ns` on its clock."""
    _check_names(trajectory.names, joints, options)
    if not trajectory.points:
        raise TrajectoryRefused(3, "Expected at least one point in the trajectory, got none.")
    _check_known(trajectory.names, joints)
    if not options.allow_nonzero_velocity_at_trajectory_end:
        _check_end(trajectory)
    _check_past(trajectory, now_ns)
    for index, point in enumerate(trajectory.points):
        _check_time(trajectory.points, index)
        _check_lengths(point, index, len(trajectory.names), options)
    _check_finite(trajectory)


def _check_names(names: Sequence[str], joints: Sequence[str], options: ControllerOptions) -> None:
    if len(names) != len(joints) and not options.allow_partial_joints_goal:
        raise TrajectoryRefused(
            1, f"Expected the {len(joints)} joints {', '.join(joints)}, got {len(names)}: {', '.join(names)}."
        )
    if not names:
        raise TrajectoryRefused(2, "Expected the names of the joints, got none.")


def _check_known(names: Sequence[str], joints: Sequence[str]) -> None:
    unknown = [name for name in names if name not in joints]
    if unknown:
        raise TrajectoryRefused(4, f"Expected joints of {', '.join(joints)}, got {', '.join(unknown)}.")


def _check_end(trajectory: Trajectory) -> None:
    velocities = trajectory.points[-1].velocities
    if velocities is not None and (np.abs(velocities) > REST).any():
        raise TrajectoryRefused(
            5, f"Expected velocity 0 at the last point, got {np.abs(velocities).max():.3g} per second."
        )


def _check_past(trajectory: Trajectory, now_ns: int) -> None:
    ended_ns = trajectory.stamp_ns + trajectory.points[-1].time_from_start_ns
    if trajectory.stamp_ns != 0 and ended_ns < now_ns:
        raise TrajectoryRefused(
            6, f"Expected a point in the future, got a trajectory that ended {(now_ns - ended_ns) * 1e-9:.3f} s ago."
        )  # fmt: skip


def _check_time(points: Sequence[Point], index: int) -> None:
    if index == 0:
        return
    before_ns, time_ns = points[index - 1].time_from_start_ns, points[index].time_from_start_ns
    if time_ns <= before_ns:
        raise TrajectoryRefused(
            7,
            f"Expected time_from_start to increase, got {time_ns * 1e-9:.3f} s at point {index} after {before_ns * 1e-9:.3f} s.",
        )


def _check_lengths(point: Point, index: int, count: int, options: ControllerOptions) -> None:
    given = (point.positions, point.velocities, point.accelerations)
    integrated = options.allow_integration_in_goal_trajectories and any(field is not None for field in given)
    if point.positions is None and not integrated:
        raise TrajectoryRefused(8, f"Expected {count} positions at point {index}, got none.")
    for name, field in zip(("positions", "velocities", "accelerations"), given, strict=True):
        if field is not None and len(field) != count:
            raise TrajectoryRefused(8, f"Expected {count} {name} at point {index}, got {len(field)}.")
    if point.effort is not None:
        raise TrajectoryRefused(
            9, f"Expected no effort at point {index}: the controller commands positions only."
        )


def _check_finite(trajectory: Trajectory) -> None:
    for index, point in enumerate(trajectory.points):
        for name, field in _fields(point):
            bad = [
                joint for joint, value in zip(trajectory.names, field, strict=True) if not np.isfinite(value)
            ]
            if bad:
                raise TrajectoryNotFinite(
                    0, f"Expected finite {name} at point {index}, got NaN or infinity for {', '.join(bad)}."
                )


def _fields(point: Point) -> Iterator[tuple[str, Floats]]:
    for name in ("positions", "velocities", "accelerations"):
        field = getattr(point, name)
        if field is not None:
            yield name, field
