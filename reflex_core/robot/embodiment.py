# SPDX-License-Identifier: Apache-2.0
"""A robot's description: joints, ranges, rates, cameras, statistics."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.groups import Group
from reflex_core.robot.kinematics.description import Kinematics
from reflex_core.robot.lerobot_calibration import Calibrated

Doubles = NDArray[np.float64]

SATURATION_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera the robot has; resolution is (width, height) in pixels."""

    name: str
    resolution: tuple[int, int]
    fps: float
    color_space: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and standard deviation per dimension, float64, physical units."""

    mean: Doubles
    std: Doubles


@dataclass(frozen=True, slots=True)
class TwoEnded:
    """A gripper or a payload release: the action dimension `component_idx` that moves between two ends.

    threshold: in 0..1 of the range; at or above it the action is the upper end, below it the lower. None: continuous.
    inverted: the policy counts from the other end. saturation_tolerance: share of the range by which a policy may overshoot an
    end: it saturates there by design, so that being moved to the end does not count as a clamp.
    """

    component_idx: int
    threshold: float | None
    inverted: bool = False
    saturation_tolerance: float = SATURATION_TOLERANCE


@dataclass(frozen=True, slots=True)
class Embodiment:
    """One robot. Every array has one entry per action dimension; ranges are rad, m, or 0..1 for a gripper.

    velocity_max, acceleration_max: per second and per second squared, inf where the file holds null; None: not given.
    travel: (action_dim, 2) position at 0 and at 100 percent of a joint's calibrated travel, NaN where the file gives none:
    what policies that count in shares of it mean. max_ee_velocity: m/s. max_gripper_velocity: units of the gripper's range per second.
    groups: which robot interface commands which columns; empty for schema v1: one commands all. further_grippers: beside `gripper`.
    calibrated: what LeRobot's degrees and shares of a travel are on this very arm; None where the file does not say.
    kinematics: where its tool and its bodies are; None where the file does not describe them. collision_check: its bodies must not touch.
    """

    name: str
    joint_names: tuple[str, ...]
    action_min: Doubles
    action_max: Doubles
    velocity_max: Doubles | None
    action_statistics: Statistics
    state_statistics: Statistics
    cameras: tuple[Camera, ...]
    frequency_hz: float
    chunk_size: int
    execution_horizon: int
    acceleration_max: Doubles | None = None
    gripper: TwoEnded | None = None
    payload_release: TwoEnded | None = None
    max_ee_velocity: float = 50.0
    max_gripper_velocity: float | None = None
    travel: Doubles | None = None
    groups: tuple[Group, ...] = ()
    further_grippers: tuple[TwoEnded, ...] = ()
    calibrated: Calibrated | None = None
    kinematics: Kinematics | None = None
    collision_check: bool = False

    def usual_position(self) -> NDArray[np.float32]:
        """Return (action_dim,) float32 the mean of the state's statistics inside the ranges, else the middle of those."""
        mean, middle = self.state_statistics.mean, (self.action_min + self.action_max) / 2
        known = mean if len(mean) == self.action_dim else middle
        return np.minimum(np.maximum(known, self.action_min), self.action_max).astype(np.float32)

    @property
    def two_ended(self) -> tuple[TwoEnded, ...]:
        """The dimensions with two ends: every gripper, and the payload release."""
        parts = (self.gripper, *self.further_grippers, self.payload_release)
        return tuple(part for part in parts if part is not None)

    @property
    def action_dim(self) -> int:
        """How many numbers one action has."""
        return len(self.action_min)

    @property
    def gripper_is_last(self) -> bool:
        """True when the robot can also be served without its gripper: it is the last dimension and not the only one."""
        if self.gripper is None or self.further_grippers:
            return False
        return 0 < self.gripper.component_idx == self.action_dim - 1

    def without_gripper(self) -> Embodiment:
        """Return the robot less its last dimension, the gripper; of the state too, where that has a number per joint.

        Raises ValueError when there is no gripper or it is not the last dimension.
        """
        if not self.gripper_is_last:
            raise ValueError(f"embodiment '{self.name}' has no gripper as its last dimension")
        last = self.action_dim - 1
        release = self.payload_release
        state = self.state_statistics
        return replace(
            self,
            joint_names=self.joint_names[:last],
            action_min=self.action_min[:last],
            action_max=self.action_max[:last],
            velocity_max=None if self.velocity_max is None else self.velocity_max[:last],
            acceleration_max=None if self.acceleration_max is None else self.acceleration_max[:last],
            action_statistics=_first(self.action_statistics, last),
            state_statistics=_first(state, last) if len(state.mean) == self.action_dim else state,
            gripper=None,
            payload_release=None if release is not None and release.component_idx == last else release,
            max_gripper_velocity=None,
            travel=None if self.travel is None else self.travel[:last],
            calibrated=None if self.calibrated is None else self.calibrated.first(last),
            groups=tuple(group for group in self.groups if last not in group.columns),
            kinematics=None if self.kinematics is None else self.kinematics.first(last),
        )


def _first(statistics: Statistics, dim: int) -> Statistics:
    return Statistics(statistics.mean[:dim], statistics.std[:dim])
