# SPDX-License-Identifier: Apache-2.0
"""How one export and one embodiment go together, or the sentence that says why they do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.embodiment import Embodiment, Statistics
from reflex_core.errors import ConfigurationError
from reflex_core.export import Affine, Export
from reflex_core.policy.contract import Contract
from reflex_core.policy.well_known import is_padded

Columns = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Fit:
    """The robot's side of an export.

    cameras: the policy's camera name -> the robot's. columns: which of the network's action columns the robot's
    actions are, in the robot's order. hold_columns: for each action the state column that measures it, or None when
    the state is not joint positions. state_dim: how many numbers the policy wants, None for any.
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


def fit(
    export: Export, contract: Contract, embodiment: Embodiment | None, joint_names: tuple[str, ...] = ()
) -> Fit:
    """Match actions, state and cameras by name where both sides have names.

    joint_names: what the robot itself calls its joints, in the order of the actions; empty when it uses the same names.
    notes: what was taken for granted, for people to read.
    Raises ConfigurationError when the dimensions, names or rates contradict each other.
    """
    columns = _columns(export, contract, embodiment)
    action_names = _action_names(contract, embodiment, columns)
    state_statistics = _state_statistics(export, embodiment)
    state_names, state_dim = _state(export, contract, embodiment, state_statistics)
    cameras = _cameras(export, contract, embodiment)
    on_robot = _on_robot(action_names, joint_names)
    return Fit(
        cameras=cameras,
        state_names=tuple(on_robot.get(name, name) for name in state_names),
        state_dim=state_dim,
        state_statistics=state_statistics if contract.state is not None else None,
        action_names=tuple(on_robot.get(name, name) for name in action_names),
        action_statistics=_action_statistics(export, embodiment, columns),
        columns=columns,
        hold_columns=_hold_columns(action_names, state_names, state_dim),
        horizon=min(contract.horizon, embodiment.chunk_size) if embodiment else contract.horizon,
        dt_s=_dt_s(export, contract, embodiment),
        notes=tuple(_notes(export, contract, embodiment, cameras)),
    )


def _on_robot(action_names: tuple[str, ...], joint_names: tuple[str, ...]) -> dict[str, str]:
    """What the robot calls each action."""
    if joint_names and (len(joint_names) != len(action_names) or len(set(joint_names)) != len(joint_names)):
        raise ConfigurationError(
            f"setting 'joint_names' must be {len(action_names)} different names, one for each of"
            f" {', '.join(action_names)}, got {', '.join(joint_names)}",
            "joint-names-mismatch",
        )
    return dict(zip(action_names, joint_names, strict=True)) if joint_names else {}


def _notes(
    export: Export, contract: Contract, embodiment: Embodiment | None, cameras: Mapping[str, str]
) -> Iterator[str]:
    if embodiment is not None and not export.says_how_it_normalises:
        yield (
            f"it brings no statistics: those of embodiment '{embodiment.name}' stand in: right only if they are"
            " what the policy was trained with"
        )
    for wanted, have in cameras.items():
        if wanted != have:
            yield f"no camera of the robot is called '{wanted}': it is served by '{have}'"
    if embodiment is not None and contract.horizon > embodiment.chunk_size:
        yield f"its chunks of {contract.horizon} actions are cut to the {embodiment.chunk_size} of the embodiment"


def _columns(export: Export, contract: Contract, embodiment: Embodiment | None) -> Columns:
    if embodiment is None:
        return np.arange(contract.action_dim)
    wanted = embodiment.action_dim
    if contract.action_names and embodiment.joint_names:
        missing = [name for name in embodiment.joint_names if name not in contract.action_names]
        if not missing and wanted == contract.action_dim:
            return np.array([contract.action_names.index(name) for name in embodiment.joint_names])
        if wanted != contract.action_dim:
            raise ConfigurationError(_misfit(export, contract, embodiment), "action-dim-mismatch")
        raise ConfigurationError(
            f"{export.path}: embodiment '{embodiment.name}' has joints {', '.join(missing)} that the export's"
            f" action_names lack ({', '.join(contract.action_names)})",
            "joint-names-mismatch",
        )
    padded = is_padded(export.config, contract.width) and not contract.action_names
    if wanted == contract.action_dim or (padded and contract.action_dim == contract.width > wanted):
        return np.arange(wanted)
    raise ConfigurationError(_misfit(export, contract, embodiment), "action-dim-mismatch")


def _misfit(export: Export, contract: Contract, embodiment: Embodiment) -> str:
    return (
        f"{export.path}: its actions have {contract.action_dim} dimensions, embodiment '{embodiment.name}' has"
        f" {embodiment.action_dim}: take the export or the embodiment of this robot"
    )


def _action_names(contract: Contract, embodiment: Embodiment | None, columns: Columns) -> tuple[str, ...]:
    if embodiment is not None and embodiment.joint_names:
        return embodiment.joint_names
    if contract.action_names:
        return tuple(contract.action_names[column] for column in columns)
    return tuple(f"action_{index}" for index in range(len(columns)))


def _state(
    export: Export, contract: Contract, embodiment: Embodiment | None, statistics: Affine | None
) -> tuple[tuple[str, ...], int | None]:
    if contract.state is None:
        return (embodiment.joint_names if embodiment else ()), None
    names = contract.state.names or (embodiment.joint_names if embodiment else ())
    dim = len(contract.state.names) or (statistics.dim if statistics else 0) or len(names) or None
    if statistics is not None and dim != statistics.dim:
        whose = "its statistics" if export.state_statistics else "those of the embodiment, which stand in,"
        raise ConfigurationError(
            f"{export.path}: the state has {dim} names ({', '.join(names)}), {whose} have {statistics.dim} numbers",
            "state-dim-mismatch",
        )
    if dim is not None and dim > contract.state.width:
        raise ConfigurationError(
            f"{export.path}: the state has {dim} numbers, the export's state input takes {contract.state.width}",
            "state-dim-mismatch",
        )
    if len(names) != (dim or 0):
        names = ()
    return names, dim


def _state_statistics(export: Export, embodiment: Embodiment | None) -> Affine | None:
    if export.says_how_it_normalises or embodiment is None:
        return export.state_statistics
    return _affine(embodiment.state_statistics)


def _action_statistics(export: Export, embodiment: Embodiment | None, columns: Columns) -> Affine | None:
    """Statistics of the robot's columns, in its order. The embodiment's stand in when the export brings none at all."""
    own = export.action_statistics
    if own is not None:
        return Affine(own.shift[columns], own.scale[columns])
    if export.says_how_it_normalises or embodiment is None:
        return None
    return _affine(embodiment.action_statistics)


def _affine(statistics: Statistics) -> Affine:
    return Affine(statistics.mean, statistics.std)


def _hold_columns(
    action_names: tuple[str, ...], state_names: tuple[str, ...], state_dim: int | None
) -> Columns | None:
    if state_names and all(name in state_names for name in action_names):
        return np.array([state_names.index(name) for name in action_names])
    if state_names or state_dim != len(action_names):
        return None
    return np.arange(len(action_names))


def _cameras(export: Export, contract: Contract, embodiment: Embodiment | None) -> dict[str, str]:
    """By name; where no name agrees, in the order in which both sides list their cameras."""
    wanted = [slot.camera for slot in contract.images]
    if embodiment is None:
        return {name: name for name in wanted}
    have = [camera.name for camera in embodiment.cameras]
    pairs = {name: name for name in wanted if name in have}
    if not pairs:
        pairs = dict(zip(wanted, have, strict=False))
    required = [slot.camera for slot in contract.images if slot.required and slot.camera not in pairs]
    if required:
        raise ConfigurationError(
            f"{export.path}: the policy needs camera '{required[0]}', embodiment '{embodiment.name}' has {', '.join(have)}",
            "camera-mismatch",
        )
    return pairs


def _dt_s(export: Export, contract: Contract, embodiment: Embodiment | None) -> float:
    said, wanted = contract.frequency_hz, embodiment.frequency_hz if embodiment else None
    if said is not None and wanted is not None and abs(said - wanted) > 1e-6 * said:
        raise ConfigurationError(
            f"{export.path}: the export was trained at {said:g} Hz, the embodiment says {wanted:g} Hz: a chunk played at another rate"
            " moves the robot at another speed",
            "frequency-mismatch",
        )
    rate = said or wanted
    return 1.0 / rate if rate else 0.0
