# SPDX-License-Identifier: Apache-2.0
"""What a policy counts in, as `units` of its reflex_config.json says, and how that becomes the robot's rad and m."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ConfigurationError
from reflex_core.export.contract import Contract
from reflex_core.export.export import Affine, Export
from reflex_core.export.gripper_sense import OPEN_TO_CLOSED, check_senses, read_senses, require_senses, sensed
from reflex_core.files.json_fields import leaves
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.units import DEGREES, NO_UNIT, OF_TRAVEL, SI, UNIT_OF, Conversion, conversion
from reflex_core.text.untrusted import shown

Doubles = NDArray[np.float64]

KEY = "units"
ACTION, STATE = "action", "state"


@dataclass(frozen=True, slots=True)
class PolicyUnits:
    """How a robot's rad and m become what its policy counts in.

    action_units, state_units: of the robot's actions, and of the numbers of the state. actions, state: the conversions;
    state None where the policy reads no state of known length. scale: (action_dim,) what 1 of the policy's actions is in that
    unit; the state has none.
    """

    action_units: tuple[str, ...]
    state_units: tuple[str, ...]
    actions: Conversion
    state: Conversion | None
    scale: Doubles


def declares_units(export: Export) -> bool:
    """Return whether the export says what it counts in. Raises ConfigurationError for a unit that is not known."""
    written = export.config.get(KEY)
    if written is None:
        return False
    for unit in leaves(written):
        if _unit(unit) is None:
            raise ConfigurationError(
                f"{export.config_path}: '{KEY}' {shown(unit)} is not known: write radians, metres, degrees, percent (0 to 100 of a"
                " joint's travel) or norm100 (-100 to 100 of it), one for all or one for each action",
                "units-unknown",
            )
    return True


def read_units(
    export: Export, contract: Contract, embodiment: Embodiment | None, columns: NDArray[np.intp], state_dim: int | None
) -> PolicyUnits | None:  # fmt: skip
    """Return the conversions of a policy that does not count in rad and m; None for one that does or does not say.

    columns: the export's action columns that are the robot's, in its order. state_dim: of its state. Raises ConfigurationError
    for a unit that is not known, that is said twice and differently, or that cannot be converted.
    """
    action_names, state_names = contract.action_names, contract.state.names if contract.state else ()
    own, here = _own_units(export, contract), columns.tolist()
    scale = np.array(
        [contract.action_space[column].scale if contract.action_space else 1.0 for column in here]
    )
    actions = tuple(own[column] for column in here)
    senses = read_senses(contract, embodiment, columns)
    explained = [_is_declared(export, contract, column) for column in here]
    names = [action_names[column] if action_names else f"action {column}" for column in here]
    if export.says_how_it_normalises:  # otherwise the embodiment's statistics count, in the joint's unit
        require_senses(export, embodiment, names, senses, explained)
    if not senses and set(own) <= {SI} and _all_si(export) and (scale == 1.0).all():
        return None
    travel = np.full((len(columns), 2), np.nan)
    if embodiment is not None and embodiment.travel is not None:
        travel = embodiment.travel
    _require_travel(export, embodiment, names, actions, travel)
    zero, sign = np.full((2, len(columns)), np.nan)
    if embodiment is not None and embodiment.calibrated is not None:
        zero, sign = embodiment.calibrated.zero, embodiment.calibrated.sign
    found = conversion(actions, travel, zero, sign)
    check_senses(export, senses, names, found, explained)
    found = sensed(found, senses)
    shown = tuple(OPEN_TO_CLOSED if at in senses else unit for at, unit in enumerate(actions))
    if not state_dim:
        return PolicyUnits(shown, (), found, None, scale)
    measured = _measured(columns, action_names, state_names, state_dim, contract.action_dim)
    states = _state_units(export, own, columns, measured, state_names, state_dim)
    of_state = np.array([travel[at] if at >= 0 else (np.nan, np.nan) for at in measured])
    _require_travel(export, embodiment, state_names or range(state_dim), states, of_state)
    zeros, signs = (np.array([one[at] if at >= 0 else np.nan for at in measured]) for one in (zero, sign))
    state = conversion(states, of_state, zeros, signs)
    seen = {number: senses[at] for number, at in enumerate(measured) if at in senses}
    if senses and set(measured) == {-1} and not state_names:
        raise _unmeasured(export, names[min(senses)], state_dim)
    shown_states = tuple(OPEN_TO_CLOSED if at in seen else unit for at, unit in enumerate(states))
    return PolicyUnits(shown, shown_states, found, sensed(state, seen), scale)


def require_unscaled(export: Export, units: PolicyUnits) -> None:
    """Raise ConfigurationError for a scale where the embodiment's statistics are used: they are in rad and m already."""
    if (units.scale != 1.0).any():
        raise ConfigurationError(
            f"{export.config_path}: 'action_space' has a scale, and nothing says how the actions are normalised: write"
            ' "normalization": {"action": {"mode": "identity"}, ...} if they are not',
            "units-unclear",
        )


def unit_notes(
    units: PolicyUnits | None, embodiment: Embodiment | None, names: Sequence[str]
) -> Iterator[str]:
    """Yield what is taken for granted of units, for the log. names: of the robot's actions."""
    if units is None:
        return
    known = embodiment.calibrated if embodiment is not None else None
    guessed = [
        name for at, (name, unit) in enumerate(zip(names, units.action_units, strict=True))
        if unit == DEGREES and (known is None or np.isnan(known.zero[at]))
    ]  # fmt: skip
    if guessed:
        yield (
            f"it counts {', '.join(guessed)} in degrees: 0 degrees is taken as 0 rad, and a positive angle as a positive one; if they"
            " are not, write where 0 degrees is into the embodiment's 'calibration'"
        )


def _own_units(export: Export, contract: Contract) -> tuple[str, ...]:
    """Return the unit of each of the export's own columns, by `units` and `action_space`, SI where neither says."""
    dim, names = contract.action_dim, contract.action_names
    declared = declares_units(export)
    listed = isinstance(export.config.get(KEY), list)  # of another length it may be another policy's
    own = [SI] * dim if _all_si(export) and not listed else list(_units(export, ACTION, names, dim))
    for column, one in enumerate(contract.action_space):
        unit = _unit(one.unit)
        if unit is None:
            continue
        if declared and unit != own[column]:
            name = f"'{names[column]}'" if names else f"action {column}"
            raise ConfigurationError(
                f"{export.config_path}: '{KEY}' counts {name} in {own[column]}, and 'action_space' in {unit}: write one of them",
                "units-unclear",
            )
        own[column] = unit
    return tuple(own)


def _is_declared(export: Export, contract: Contract, column: int) -> bool:
    """Return whether the export says in which unit it counts an action; that it has none says nothing of a gripper."""
    if contract.action_space and contract.action_space[column].unit:
        return contract.action_space[column].unit.strip().lower() not in NO_UNIT
    if not declares_units(export):
        return False
    return not _is_plain(export.config[KEY], contract, column)


def _is_plain(written: Any, contract: Contract, column: int) -> bool:
    """Return whether `units` call a column dimensionless."""
    if isinstance(written, Mapping) and set(written) <= {ACTION, STATE}:
        written = written.get(ACTION)
    if isinstance(written, Mapping) and contract.action_names:
        written = written.get(contract.action_names[column])
    if isinstance(written, list) and column < len(written):
        written = written[column]
    return isinstance(written, str) and written.strip().lower() in NO_UNIT


def _all_si(export: Export) -> bool:
    written = export.config.get(KEY)
    return written is None or all(_unit(unit) == SI for unit in leaves(written))


def _unmeasured(export: Export, name: str, state_dim: int) -> ConfigurationError:
    return ConfigurationError(
        f"{export.config_path}: nothing says which of the {state_dim} numbers of the state is the gripper '{name}': write"
        ' "state": {"names": [...]} and "action_names"',
        "units-unclear",
    )


def in_si(
    statistics: Affine | None, found: Conversion | None, offsets: Sequence[bool] = (), scale: Doubles | None = None
) -> Affine | None:  # fmt: skip
    """Return statistics that take and give rad and m, of statistics in the policy's units; None where nothing is to be done.

    offsets: which dimensions are differences or velocities: they have a factor and no zero. scale: of PolicyUnits.
    """
    if found is None:
        return statistics
    offset = np.where(offsets, 0.0, found.offset) if len(offsets) else found.offset
    factor = found.factor
    if scale is not None:
        factor, offset = factor / scale, offset / scale
    plain = statistics or Affine(np.zeros(len(offset)), np.ones(len(offset)))
    return plain.of_converted(factor, offset)


def _unit(written: Any) -> str | None:
    return UNIT_OF.get(written.strip().lower()) if isinstance(written, str) else None


def _units(export: Export, what: str, names: tuple[str, ...], dim: int) -> tuple[str, ...]:
    """Return the unit of each of the export's own columns."""
    written = export.config[KEY]
    if isinstance(written, Mapping) and set(written) <= {ACTION, STATE}:
        written = written.get(what)
    if isinstance(written, Mapping) and names and set(names) <= set(written):
        written = [written[name] for name in names]
    units = [written] * dim if isinstance(written, str) else written
    if not isinstance(units, list) or len(units) != dim or None in (known := [_unit(one) for one in units]):
        raise ConfigurationError(
            f"{export.config_path}: '{KEY}' must give one unit for all, or one for each of the {dim} numbers of the {what}"
            f" ({', '.join(names) or 'by their order'}), got {shown(export.config[KEY])}",
            "units-unclear",
        )
    return tuple(unit for unit in known if unit is not None)


def _measured(
    columns: NDArray[np.intp], action_names: tuple[str, ...], state_names: tuple[str, ...], state_dim: int,
    action_dim: int,
) -> list[int]:  # fmt: skip
    """Return for each number of the state the robot's action that it measures, -1 where that is not known."""
    here = columns.tolist()
    if action_names and state_names:
        at = [action_names.index(name) if name in action_names else -1 for name in state_names]
    else:
        at = list(range(state_dim)) if state_dim == action_dim else [-1] * state_dim
    return [here.index(column) if column in here else -1 for column in at]


def _state_units(
    export: Export, actions: tuple[str, ...], columns: NDArray[np.intp], measured: list[int],
    names: tuple[str, ...], dim: int,
) -> tuple[str, ...]:  # fmt: skip
    """Return the unit of each number of the state: as written for it, else that of the action which it measures."""
    written = export.config.get(KEY)
    if isinstance(written, Mapping) and (STATE in written or (names and set(names) <= set(written))):
        return _units(export, STATE, names, dim)
    if len(set(actions)) == 1:
        return actions[:1] * dim
    if -1 in measured:
        raise ConfigurationError(
            f"{export.config_path}: '{KEY}' does not say what number {measured.index(-1)} of the state is counted in: write"
            f' "{KEY}": {{"action": [...], "state": [...]}}',
            "units-unclear",
        )
    return tuple(actions[columns[at]] for at in measured)


def _require_travel(
    export: Export, embodiment: Embodiment | None, names: Sequence[Any], units: Sequence[str], travel: NDArray[np.float64]
) -> None:  # fmt: skip
    """Raise ConfigurationError where a share of a joint's travel is meant and the travel is not known."""
    lacks = [
        str(name) for name, unit, pair in zip(names, units, travel, strict=True)
        if unit in OF_TRAVEL and np.isnan(pair).any()
    ]  # fmt: skip
    if not lacks:
        return
    whose = (
        f"embodiment '{embodiment.name}' gives none" if embodiment is not None else "no embodiment is given"
    )
    raise ConfigurationError(
        f'{export.where}: counts {", ".join(lacks)} in shares of the joint\'s travel, and {whose}: write "travel" into the'
        " embodiment, for each joint the position in rad or m at the low and at the high end of its calibrated travel, or null; for an"
        " arm that LeRobot calibrated, name its file with --lerobot-calibration FILE (docs/reference/lerobot-calibration.md)",
        "travel-missing",
    )
