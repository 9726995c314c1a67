# SPDX-License-Identifier: Apache-2.0
"""The limits in force: the embodiment's and the safety file's, the tighter of the two."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ConfigurationError
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import unmeasured_columns, velocity_columns
from reflex_core.robot.limits.safety_config import CARTESIAN, SafetyConfig, SafetyConfigError
from reflex_core.robot.limits.tool_limits import ToolLimits, tool_limits

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
    by design; None: there are none. rates: the columns that command a velocity, None: there are none. What such a column
    commands is judged like a position is elsewhere: position_min and position_max are the range of the velocity, and
    velocity_max is how much it may change per second, which is the acceleration of the robot; it has no acceleration_max.
    unmeasured: the columns that are held whatever is measured: the rates and what no robot interface commands; None: there
    are none. tool: of tool and bodies; None where they are not known. together: a hold brakes all joints by one factor, so that
    the tool is not faster meanwhile.
    """

    names: tuple[str, ...]
    position_min: Doubles
    position_max: Doubles
    velocity_max: Doubles
    acceleration_max: Doubles
    workspace: Mask
    gripper: Mask
    saturating: Saturating | None = None
    rates: Mask | None = None
    unmeasured: Mask | None = None
    tool: ToolLimits | None = None
    together: bool = False

    @property
    def dim(self) -> int:
        """How many numbers one action has."""
        return len(self.names)

    def unit(self, column: int) -> str:
        """Return the unit for messages: m in the workspace, nothing for a gripper (its unit is the embodiment's), else rad.

        A velocity is per second: whether rad or m of it is not known here.
        """
        if self.rates is not None and self.rates[column]:
            return "per second"
        if self.workspace[column]:
            return "m"
        return "" if self.gripper[column] else "rad"

    def chosen(self, columns: Mask) -> Limits:
        """Return the limits of some columns as of a robot that has no others and measures all; nothing saturates."""
        return Limits(
            tuple(name for name, wanted in zip(self.names, columns, strict=True) if wanted),
            self.position_min[columns], self.position_max[columns], self.velocity_max[columns],
            self.acceleration_max[columns], self.workspace[columns], self.gripper[columns], together=self.together,
        )  # fmt: skip


def effective_limits(
    action_names: tuple[str, ...], embodiment: Embodiment | None, safety: SafetyConfig | None,
) -> Limits | None:  # fmt: skip
    """Return the tighter of both for each action; None when there is neither.

    Acceleration is limited by the safety file alone: chunks of learned policies start harder at their borders than most
    data sheets allow, controllers interpolate, and a guard that trips over that would be switched off.
    action_names: the robot's names of the columns of a chunk, in order; the embodiment's arrays follow that order,
    those of the safety file are matched by name.
    Those of columns that command a velocity are `_of_rates`.
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
    groups = () if embodiment is None else embodiment.groups
    rates = velocity_columns(groups, dim)
    if safety is not None:
        columns = _columns(safety, safety.joint_names, "joint_names", action_names)
        _without_position(safety, columns, action_names, rates)
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
    tool = _of_tool(embodiment, safety)
    found = Limits(
        action_names, low, high, velocity, acceleration, workspace, gripper,
        unmeasured=unmeasured_columns(groups, dim), tool=tool, together=tool is not None,
    )  # fmt: skip
    if rates is not None:
        found = _of_rates(found, rates, embodiment)
    if embodiment is None:
        return found
    return replace(found, saturating=_saturating(embodiment, found.position_min, found.position_max))


def _of_tool(embodiment: Embodiment | None, safety: SafetyConfig | None) -> ToolLimits | None:
    def refuse(what: str) -> SafetyConfigError:
        where = "" if safety is None else f"{safety.path}: "
        return SafetyConfigError(f"{where}{what}", "safety-config-no-kinematics")

    return tool_limits(embodiment, None if safety is None else safety.tool, refuse)


def _of_rates(limits: Limits, rates: Mask, embodiment: Embodiment | None) -> Limits:
    """Return the limits with those of velocities as the check takes them.

    A velocity lies in its range and below velocity_max; acceleration_max limits its change per second, the embodiment's too:
    a base that is stopped harder tips over. Raises ConfigurationError for a range without 0, in which nothing can be stopped.
    """
    low = np.where(rates, np.fmax(limits.position_min, -limits.velocity_max), limits.position_min)
    high = np.where(rates, np.fmin(limits.position_max, limits.velocity_max), limits.position_max)
    for column in np.flatnonzero(rates & ~((low <= 0.0) & (high >= 0.0))):
        raise ConfigurationError(
            f"the range of '{limits.names[column]}' must contain 0, as it commands a velocity and 0 stops it,"
            f" got {low[column]:g} to {high[column]:g}",
            "velocity-range",
        )
    change = limits.acceleration_max
    if embodiment is not None:
        change = np.fmin(change, _or_infinite(embodiment.acceleration_max, limits.dim))
    return replace(
        limits, position_min=low, position_max=high, velocity_max=np.where(rates, change, limits.velocity_max),
        acceleration_max=np.where(rates, np.inf, limits.acceleration_max), rates=rates,
    )  # fmt: skip


def _without_position(
    safety: SafetyConfig, columns: list[int], names: tuple[str, ...], rates: Mask | None
) -> None:
    """Raise SafetyConfigError where the file limits the position of what commands a velocity: it could not be checked."""
    if rates is None or safety.position_min is None:
        return
    for column, low in zip(columns, safety.position_min, strict=True):
        if rates[column] and not np.isnan(low):
            raise SafetyConfigError(
                f"{safety.path}: 'position_min' of '{names[column]}' must be null, as it commands a velocity,"
                f" got {low:g}: limit it by 'velocity_max' and 'acceleration_max'",
                "safety-config-contradiction",
            )


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
