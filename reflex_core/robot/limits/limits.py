# SPDX-License-Identifier: Apache-2.0
"""The limits in force: the embodiment's and the safety file's, the tighter of the two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.limits.safety_config import CARTESIAN, SafetyConfig, SafetyConfigError

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Saturating:
    """How far beyond its range a column may be without counting against the policy; one entry per action dimension.

    A gripper and whatever has two ends is commanded to an end most of the time, and a network overshoots it by a little.
    quiet: from `quiet_min` to `quiet_max` it is moved into the range without a report: around the range in force, and where
    a threshold decides, around the embodiment's. design: from `design_min` to `design_max` that is reported but not
    counted: around the embodiment's range, where the safety file has a tighter one. Other columns: their range.
    """

    quiet_min: Doubles
    quiet_max: Doubles
    design_min: Doubles
    design_max: Doubles


@dataclass(frozen=True, slots=True)
class Limits:
    """One entry per action dimension, float64, in rad or m, per second, per second squared; infinite: no limit.

    workspace: the columns that are x, y, z of an end effector. gripper: the columns whose measured position may
    stay away from the command for as long as there is an object between the fingers. saturating: what such columns may command
    by design; None: there are none.
    """

    names: tuple[str, ...]
    position_min: Doubles
    position_max: Doubles
    velocity_max: Doubles
    acceleration_max: Doubles
    workspace: Mask
    gripper: Mask
    saturating: Saturating | None = None

    @property
    def dim(self) -> int:
        """How many numbers one action has."""
        return len(self.names)

    def unit(self, column: int) -> str:
        """Return the unit for messages: m in the workspace, nothing for a gripper (its unit is the embodiment's), else rad."""
        if self.workspace[column]:
            return "m"
        return "" if self.gripper[column] else "rad"


def effective_limits(
    action_names: tuple[str, ...], embodiment: Embodiment | None, safety: SafetyConfig | None
) -> Limits | None:
    """Return the tighter of both for each action; None when there is neither.

    Acceleration is limited by the safety file alone: chunks of learned policies start harder at their borders than most
    data sheets allow, controllers interpolate, and a guard that trips over that would be switched off.
    action_names: the robot's names of the columns of a chunk, in order; the embodiment's arrays follow that order,
    those of the safety file are matched by name.
    Raises SafetyConfigError when the file is not this robot's or when an action would have no limit at all.
    """
    if embodiment is None and safety is None:
        return None
    dim = len(action_names)
    low, high = np.full(dim, -np.inf), np.full(dim, np.inf)
    velocity, acceleration = np.full(dim, np.inf), np.full(dim, np.inf)
    gripper, workspace = np.zeros(dim, np.bool_), np.zeros(dim, np.bool_)
    if embodiment is not None:
        if embodiment.action_dim != dim:
            raise SafetyConfigError(
                f"embodiment '{embodiment.name}' has {embodiment.action_dim} action dimensions, the chunks have {dim}"
            )
        low, high = embodiment.action_min.copy(), embodiment.action_max.copy()
        velocity = _or_infinite(embodiment.velocity_max, dim)
        for part in embodiment.two_ended:
            gripper[part.component_idx] = True
            if part.threshold is not None:
                # it is commanded to one end or the other and moves there in its own way
                velocity[part.component_idx] = acceleration[part.component_idx] = np.inf
    if safety is not None:
        columns = _columns(safety, safety.joint_names, "joint_names", action_names)
        _tighten(low, columns, safety.position_min, np.fmax)
        _tighten(high, columns, safety.position_max, np.fmin)
        _tighten(velocity, columns, safety.velocity_max, np.fmin)
        _tighten(acceleration, columns, safety.acceleration_max, np.fmin)
        if safety.action_space == CARTESIAN:
            axes = _columns(safety, safety.workspace_axes, "workspace_axes", action_names)
            _tighten(low, axes, safety.workspace_min, np.fmax)
            _tighten(high, axes, safety.workspace_max, np.fmin)
            workspace[axes] = True
        _check(safety, action_names, (low, high), velocity, columns)
    saturating = _saturating(embodiment, low, high) if embodiment is not None else None
    return Limits(action_names, low, high, velocity, acceleration, workspace, gripper, saturating)


def _saturating(embodiment: Embodiment, low: Doubles, high: Doubles) -> Saturating | None:
    """Return the overshoot that does not count. low, high: the ranges in force."""
    if not embodiment.two_ended:
        return None
    found = Saturating(low.copy(), high.copy(), low.copy(), high.copy())
    for part in embodiment.two_ended:
        column = part.component_idx
        least, most = embodiment.action_min[column], embodiment.action_max[column]
        margin = part.saturation_tolerance * (most - least)
        found.design_min[column], found.design_max[column] = least - margin, most + margin
        if part.threshold is None:
            least, most = low[column], high[column]
        found.quiet_min[column], found.quiet_max[column] = least - margin, most + margin
    return found


def _or_infinite(values: Doubles | None, dim: int) -> Doubles:
    return np.full(dim, np.inf) if values is None else np.fmin(values, np.inf)  # fmin: NaN is no limit


def _columns(
    safety: SafetyConfig, names: tuple[str, ...], key: str, action_names: tuple[str, ...]
) -> list[int]:
    strangers = [name for name in names if name not in action_names]
    if strangers:
        raise SafetyConfigError(
            f"{safety.path}: '{key}' must be names of this robot's actions ({', '.join(action_names)}),"
            f" got {', '.join(strangers)}",
            "safety-config-names-mismatch",
        )
    return [action_names.index(name) for name in names]


def _tighten(limits: Doubles, columns: list[int], values: Doubles | None, tighter: np.ufunc) -> None:
    if values is not None:
        limits[columns] = tighter(limits[columns], values)


def _check(
    safety: SafetyConfig, names: tuple[str, ...], position: tuple[Doubles, Doubles], velocity: Doubles,
    listed: list[int],
) -> None:  # fmt: skip
    low, high = position
    for column, name in enumerate(names):
        if low[column] >= high[column]:
            raise SafetyConfigError(
                f"{safety.path}: the range of '{name}' and that of the embodiment must overlap,"
                f" got {low[column]:g} to {high[column]:g} for both together",
                "safety-config-contradiction",
            )
        # a joint that turns for ever has no range, but then the file must name it and limit its speed
        turns_for_ever = column in listed and np.isfinite(velocity[column])
        if not (np.isfinite(low[column]) and np.isfinite(high[column])) and not turns_for_ever:
            raise SafetyConfigError(
                f"{safety.path}: 'joint_names' must cover every action that no embodiment limits,"
                f" got no limits for '{name}'",
                "safety-config-incomplete",
            )
