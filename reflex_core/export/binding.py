# SPDX-License-Identifier: Apache-2.0
"""Bind one export to one embodiment, or raise why they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from reflex_core.errors import ConfigurationError, ExportError
from reflex_core.export.binding_notes import binding_notes, statistics_notes
from reflex_core.export.camera_binding import cameras_of, unfed
from reflex_core.export.contract import Contract
from reflex_core.export.declared_units import PolicyUnits, in_si, read_units, require_unscaled, unit_notes
from reflex_core.export.export import Affine, Export
from reflex_core.export.families import is_padded
from reflex_core.export.modes import mode_notes, modes_of
from reflex_core.export.relative import Relative, relative_of
from reflex_core.export.tool_binding import tool_notes, tool_rows
from reflex_core.export.tool_rows import ToolRows
from reflex_core.export.unit_check import check_units
from reflex_core.robot.embodiment import Embodiment, Statistics
from reflex_core.robot.gripper import End, ends_of
from reflex_core.robot.gripper_shares import GripperJoint, gripper_joints
from reflex_core.robot.groups import Group, renamed, unmeasured_columns, whole_robot
from reflex_core.values import Columns, Floats

UNMEASURED = -1  # in hold_columns: a velocity, or what no robot interface commands


@dataclass(frozen=True, slots=True)
class Binding:
    """The robot's side of an export.

    cameras: the policy's camera name -> the robot's. columns: the network's action columns that are the robot's
    actions, in the robot's order. hold_columns: for each action the state column that measures it, UNMEASURED for one that is
    held without; None when the state is not joint positions. state_dim: length of the policy's state, None for any.
    embodiment: the robot as it is really served: without its gripper where the export has none, and with the robot's
    own joint names where it has some. unfed_cameras: the policy's cameras that the robot does not have, so that they are
    masked in every chunk. ends: what its gripper does to the actions. relative: what the actions start from.
    units: how the policy counts where that is not in rad and m; the statistics convert. groups: which robot interface commands
    which columns; none those that the embodiment says are unused. notes, statistics_notes: for the log.
    tool: how rows of a tool's pose become the robot's; then `columns` are all of the policy's, in its own order, and their
    statistics are there.
    """

    cameras: Mapping[str, str]
    state_names: tuple[str, ...]
    state_dim: int | None
    state_statistics: Affine | None
    action_names: tuple[str, ...]
    action_statistics: Affine | None
    columns: Columns
    hold_columns: Columns | None
    horizon: int
    dt_s: float
    notes: tuple[str, ...] = ()
    embodiment: Embodiment | None = None
    unfed_cameras: tuple[str, ...] = ()
    ends: tuple[End, ...] = ()
    relative: Relative | None = None
    statistics_notes: tuple[str, ...] = ()
    units: PolicyUnits | None = None
    groups: tuple[Group, ...] = ()
    tool: ToolRows | None = None

    def as_trained(self) -> Binding:
        """Return the binding of the policy's own numbers, of no robot, where the robot's are joints in their place."""
        if self.tool is None:
            return self
        seen = self.tool.seen
        return replace(
            self, tool=None, embodiment=None, groups=(), ends=(), hold_columns=None, state_names=seen.names,
            state_dim=seen.dim or None, state_statistics=seen.statistics, action_statistics=self.tool.statistics,
            action_names=tuple(f"action_{column}" for column in range(len(self.columns))),
        )  # fmt: skip

    def seen(self, state: Floats) -> Floats:
        """Return (n,) float32 the state as the policy's own numbers, not normalised. state: (state_dim,) as it was measured."""
        return state if self.tool is None else self.tool.state(state)

    @property
    def grippers(self) -> tuple[GripperJoint, ...]:
        """The robot's grippers whose ends are known."""
        return gripper_joints(self.embodiment, self.action_names, self.state_names, self.hold_columns)

    @property
    def seen_names(self) -> tuple[str, ...]:
        """Names of the policy's own numbers, where known."""
        return self.state_names if self.tool is None else self.tool.seen.names

    @property
    def seen_statistics(self) -> Affine | None:
        """Statistics of the policy's own numbers."""
        return self.state_statistics if self.tool is None else self.tool.seen.statistics


def bind(
    export: Export, contract: Contract, embodiment: Embodiment | None, joint_names: tuple[str, ...] = ()
) -> Binding:
    """Match actions, state and cameras by name where both sides have names.

    joint_names: what the robot itself calls its joints, in the order of the actions; empty when it uses the same names.
    notes: what was taken for granted, for people to read.
    Raises ConfigurationError when the dimensions, names or rates contradict each other.
    """
    tool = tool_rows(export, contract, embodiment)
    if tool is not None and embodiment is not None:
        return _bound_to_tool(export, contract, embodiment, joint_names, tool)
    served = _served(contract, embodiment)
    alias = _gripper_alias(contract, served)
    columns = _columns(export, contract, served, alias)
    action_names = _action_names(contract, served, columns)
    action_statistics = _action_statistics(export, served, columns)
    state_statistics = _state_statistics(export, contract, embodiment, served, alias)
    given_statistics = state_statistics
    state_names, state_dim = _state(export, contract, _variants(served, embodiment), state_statistics, alias)
    cameras = cameras_of(export, contract, served)
    dt_s = _dt_s(export, contract, served)
    modes = modes_of(export, contract, served, columns, dt_s)
    relative = relative_of(
        export, contract.relative, columns, contract.action_names,
        contract.state.names if contract.state else (), state_dim, modes.stepped,
    )  # fmt: skip
    hold_columns = _hold_columns(action_names, state_names, state_dim, served)
    units = read_units(export, contract, served, columns, state_dim)
    if units is not None:
        starts = relative.state_columns if relative is not None else np.full(len(columns), -1)
        offsets = [start >= 0 or at in modes.passed for at, start in enumerate(starts.tolist())]
        # those of the embodiment, which count where the export brings none, are in rad and m already
        if export.says_how_it_normalises or embodiment is None:
            action_statistics = in_si(action_statistics, units.actions, offsets, units.scale)
            state_statistics = in_si(state_statistics, units.state)
        else:
            require_unscaled(export, units)
    check_units(
        export, served, action_names,
        action_statistics if export.action_statistics is not None else None,
        _measured(export, state_statistics, hold_columns), relative,
        [bool(contract.action_space[column].mode) for column in columns] if contract.action_space else (),
    )  # fmt: skip
    on_robot = _on_robot(action_names, joint_names)
    robot_names = tuple(on_robot.get(name, name) for name in action_names)
    return Binding(
        cameras=cameras,
        state_names=tuple(on_robot.get(name, name) for name in state_names),
        state_dim=state_dim,
        state_statistics=state_statistics if contract.state is not None else None,
        action_names=robot_names,
        action_statistics=action_statistics,
        columns=columns,
        hold_columns=hold_columns,
        horizon=min(contract.rows, served.chunk_size) if served else contract.rows,
        dt_s=dt_s,
        notes=(
            *binding_notes(export, contract, embodiment, served, cameras, alias),
            *mode_notes(contract, served),
            *unit_notes(units, served, action_names),
        ),
        embodiment=replace(served, joint_names=robot_names) if served and joint_names else served,
        unfed_cameras=unfed(contract, cameras),
        ends=ends_of(served, hold_columns),
        relative=relative,
        statistics_notes=tuple(statistics_notes(export, contract, given_statistics)),
        units=units,
        groups=renamed(served.groups, robot_names) if served and served.groups else whole_robot(robot_names),
    )


def _bound_to_tool(
    export: Export, contract: Contract, robot: Embodiment, joint_names: tuple[str, ...], tool: ToolRows
) -> Binding:
    """Return the binding of a policy that commands a tool's pose: its state and its rows are the robot's joints."""
    cameras = cameras_of(export, contract, robot)
    on_robot = _on_robot(robot.joint_names, joint_names)
    dt_s = _dt_s(export, contract, robot)
    names = tuple(on_robot.get(name, name) for name in robot.joint_names)
    hold_columns = _hold_columns(robot.joint_names, robot.joint_names, robot.action_dim, robot)
    return Binding(
        cameras=cameras,
        state_names=names,
        state_dim=robot.action_dim,
        state_statistics=None,
        action_names=names,
        action_statistics=None,
        columns=np.arange(contract.action_dim),
        hold_columns=hold_columns,
        horizon=min(contract.rows, robot.chunk_size),
        dt_s=dt_s,
        notes=(
            *binding_notes(export, contract, robot, robot, cameras, {}),
            *tool_notes(tool, contract, robot),
        ),
        embodiment=replace(robot, joint_names=names),
        unfed_cameras=unfed(contract, cameras),
        ends=ends_of(robot, hold_columns),
        statistics_notes=tuple(statistics_notes(export, contract, tool.seen.statistics)),
        groups=renamed(robot.groups, names) if robot.groups else whole_robot(names),
        tool=replace(tool, space=tool.space.every(dt_s)),
    )


def _measured(export: Export, statistics: Affine | None, hold_columns: Columns | None) -> Affine | None:
    """Return statistics of the numbers of the state that measure the actions, where they are the export's own."""
    if statistics is None or hold_columns is None or export.state_statistics is None:
        return None
    return None if (hold_columns == UNMEASURED).any() else statistics.chosen(hold_columns)


def _served(contract: Contract, embodiment: Embodiment | None) -> Embodiment | None:
    """Return the robot without its gripper where the export has every dimension but that one."""
    if embodiment is None or not embodiment.gripper_is_last:
        return embodiment
    gripper = embodiment.joint_names[-1:]
    lacks = contract.action_dim == embodiment.action_dim - 1 and not set(gripper) & set(contract.action_names)
    return embodiment.without_gripper() if lacks else embodiment


def _variants(served: Embodiment | None, embodiment: Embodiment | None) -> tuple[Embodiment, ...]:
    """Return the robots whose joints the state may hold: as served, as written, and without its gripper."""
    bare = embodiment.without_gripper() if embodiment is not None and embodiment.gripper_is_last else None
    return tuple(robot for robot in (served, embodiment, bare) if robot is not None)


def _gripper_alias(contract: Contract, embodiment: Embodiment | None) -> dict[str, str]:
    """Return the export's name for the gripper -> the robot's, where all other names agree: it has many names."""
    if embodiment is None or embodiment.gripper is None or not embodiment.joint_names:
        return {}
    theirs = set(contract.action_names) - set(embodiment.joint_names)
    ours = set(embodiment.joint_names) - set(contract.action_names)
    if len(theirs) != 1 or ours != {embodiment.joint_names[embodiment.gripper.component_idx]}:
        return {}
    name = theirs.pop()
    return {name: ours.pop()} if "gripper" in name.lower() else {}


def _on_robot(action_names: tuple[str, ...], joint_names: tuple[str, ...]) -> dict[str, str]:
    """Return the robot's name of each action."""
    if joint_names and (len(joint_names) != len(action_names) or len(set(joint_names)) != len(joint_names)):
        raise ConfigurationError(
            f"setting 'joint_names' must be {len(action_names)} different names, one for each of"
            f" {', '.join(action_names)}, got {', '.join(joint_names)}",
            "joint-names-mismatch",
        )
    return dict(zip(action_names, joint_names, strict=True)) if joint_names else {}


def _columns(
    export: Export, contract: Contract, embodiment: Embodiment | None, alias: Mapping[str, str]
) -> Columns:
    if embodiment is None:
        return np.arange(contract.action_dim)
    wanted = embodiment.action_dim
    if contract.action_names and embodiment.joint_names:
        theirs = [alias.get(name, name) for name in contract.action_names]
        missing = [name for name in embodiment.joint_names if name not in theirs]
        if not missing and wanted == contract.action_dim:
            return np.array([theirs.index(name) for name in embodiment.joint_names])
        if wanted != contract.action_dim:
            raise ConfigurationError(_misfit(export, contract, embodiment), "action-dim-mismatch")
        raise ConfigurationError(
            f"{export.where}: embodiment '{embodiment.name}' has joints {', '.join(missing)} that the export's"
            f" action_names lack ({', '.join(contract.action_names)})",
            "joint-names-mismatch",
        )
    padded = is_padded(export.config, contract.width) and not contract.action_names
    if wanted == contract.action_dim or (padded and contract.action_dim == contract.width > wanted):
        return np.arange(wanted)
    raise ConfigurationError(_misfit(export, contract, embodiment), "action-dim-mismatch")


def _misfit(export: Export, contract: Contract, embodiment: Embodiment) -> str:
    bare = f", or {embodiment.action_dim - 1} without its gripper" if embodiment.gripper_is_last else ""
    return (
        f"{export.where}: its actions have {contract.action_dim} dimensions, embodiment '{embodiment.name}' has"
        f" {embodiment.action_dim}{bare}: take the export or the embodiment of this robot"
    )


def _action_names(contract: Contract, embodiment: Embodiment | None, columns: Columns) -> tuple[str, ...]:
    if embodiment is not None and embodiment.joint_names:
        return embodiment.joint_names
    if contract.action_names:
        return tuple(contract.action_names[column] for column in columns)
    return tuple(f"action_{index}" for index in range(len(columns)))


def _state(
    export: Export, contract: Contract, robots: tuple[Embodiment, ...], statistics: Affine | None,
    alias: Mapping[str, str],
) -> tuple[tuple[str, ...], int | None]:  # fmt: skip
    """Return names and length of the state: the export's own, else those of the first robot that has as many joints."""
    known = [robot.joint_names for robot in robots]
    if contract.state is None:
        return (known[0] if known else ()), None
    names = tuple(alias.get(name, name) for name in contract.state.names)
    dim = len(names) or (statistics.dim if statistics else 0) or (len(known[0]) if known else 0) or None
    if statistics is not None and dim != statistics.dim:
        whose = "its statistics" if export.state_statistics else "those of the embodiment, used as fallback,"
        raise ConfigurationError(
            f"{export.where}: the state has {dim} names ({', '.join(names)}), {whose} have {statistics.dim} numbers",
            "state-dim-mismatch",
        )
    if dim is not None and dim > contract.state.width:
        raise ConfigurationError(
            f"{export.where}: the state has {dim} numbers, the export's state input takes {contract.state.width}",
            "state-dim-mismatch",
        )
    return names or next((names for names in known if len(names) == dim), ()), dim


def _state_statistics(
    export: Export,
    contract: Contract,
    embodiment: Embodiment | None,
    served: Embodiment | None,
    alias: Mapping[str, str],
) -> Affine | None:
    """Return the export's, else the embodiment's: by name where both name the numbers of the state, else in order."""
    if export.says_how_it_normalises or embodiment is None or served is None:
        return export.state_statistics
    joints, statistics = embodiment.joint_names, embodiment.state_statistics
    names = [alias.get(name, name) for name in contract.state.names] if contract.state else []
    if names and len(statistics.mean) == len(joints) and set(names) <= set(joints):
        chosen = [joints.index(name) for name in names]
        return Affine(statistics.mean[chosen], statistics.std[chosen])
    return _affine(served.state_statistics)


def _action_statistics(export: Export, embodiment: Embodiment | None, columns: Columns) -> Affine | None:
    """Return statistics of the robot's columns, in its order: the export's, else the embodiment's."""
    own = export.action_statistics
    if own is not None:
        return own.chosen(columns)
    if export.says_how_it_normalises or embodiment is None:
        return None
    return _affine(embodiment.action_statistics)


def _affine(statistics: Statistics) -> Affine:
    return Affine(statistics.mean, statistics.std)


def _hold_columns(
    action_names: tuple[str, ...], state_names: tuple[str, ...], state_dim: int | None, served: Embodiment | None
) -> Columns | None:  # fmt: skip
    unmeasured = unmeasured_columns(served.groups, len(action_names)) if served is not None else None
    needed = np.ones(len(action_names), np.bool_) if unmeasured is None else ~unmeasured
    joints = [name for name, is_needed in zip(action_names, needed, strict=True) if is_needed]
    if not joints:
        return np.full(len(action_names), UNMEASURED)
    if state_names and all(name in state_names for name in joints):
        known = {name: column for column, name in enumerate(state_names)}
        return np.array([known.get(name, UNMEASURED) for name in action_names])
    if state_names or state_dim != len(action_names):
        return None
    return np.where(needed, np.arange(len(action_names)), UNMEASURED)


def _dt_s(export: Export, contract: Contract, embodiment: Embodiment | None) -> float:
    trained_hz, robot_hz = contract.frequency_hz, embodiment.frequency_hz if embodiment else None
    if trained_hz is not None and robot_hz is not None and abs(trained_hz - robot_hz) > 1e-6 * trained_hz:
        raise ConfigurationError(
            f"{export.where}: the export was trained at {trained_hz:g} Hz, the embodiment says {robot_hz:g} Hz: a chunk played at another rate"
            " moves the robot at another speed",
            "frequency-mismatch",
        )
    rate = trained_hz or robot_hz
    if rate is None and contract.observation_steps > 1:
        raise ExportError(
            f"{export.config_path}: 'frequency_hz' must be the rate of training, got none: the policy sees"
            f" {contract.observation_steps} observations, one control period apart"
        )
    return 1.0 / rate if rate else 0.0
