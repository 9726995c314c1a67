# SPDX-License-Identifier: Apache-2.0
"""A LeRobot client's joints and ours: which is which, and how its degrees or shares of a travel become rad and m and back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ObservationError
from reflex_core.export.binding import Binding
from reflex_core.robot.client_units import ClientUnits
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import velocity_columns
from reflex_core.robot.units import OF_TRAVEL, PERCENT, SI, Conversion, conversion
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.text.untrusted import escaped
from reflex_core.values import Floats

POSITION = ".pos"
TWO_TURNS_RAD = 2 * np.pi
UNDECLARED, MISFIT = "units-undeclared", "joints-mismatch"

Doubles = NDArray[np.float64]

log = logging.getLogger(__name__)
_line = RateLimitedLog(log)


@dataclass(frozen=True, slots=True)
class ClientJoints:
    """names: the client's, in the order of our state. state: rad and m to the client's numbers, of each of them.

    columns: our actions in the client's order, which is that of its own state. actions: of each of our actions.
    turning: which numbers of the state arrive in rad.
    """

    names: tuple[str, ...]
    state: Conversion
    columns: NDArray[np.intp]
    actions: Conversion
    turning: NDArray[np.bool_]

    def to_state(self, numbers: Mapping[str, float]) -> Doubles:
        """Return (state_dim,) rad and m of the client's numbers. Raises ObservationError where one is missing."""
        missing = [name for name in self.names if name not in numbers]
        if missing:
            raise ObservationError(
                f"the observation lacks {_listed(missing)}; its numbers are {_listed(numbers)}", MISFIT
            )
        state = self.state.to_si(np.array([numbers[name] for name in self.names]))
        far = self.turning & (np.abs(state) > TWO_TURNS_RAD)
        if far.any():
            at = int(np.argmax(far))
            text = "%s reads %.4g, which is beyond a turn in rad: if the client counts in degrees, say so with --lerobot-units"
            _line(logging.WARNING, "beyond a turn", text, escaped(self.names[at], 80), state[at])
        return state

    def to_client(self, rows: Floats) -> Floats:
        """Return (n, actions of the client) in its order and numbers. rows: (n, action_dim) in rad and m."""
        return self.actions.to_policy(rows)[:, self.columns].astype(np.float32)


def client_joints(
    binding: Binding, names: Sequence[str], chosen: Sequence[str], units: ClientUnits
) -> ClientJoints:
    """Return how a client's joints are ours.

    names: of the client's numbers, in its own order. chosen: those that are our state, by the setting `wire_keys`; none: found by
    name, else by order. Raises ObservationError where they do not fit, or where nothing says what the client counts in.
    """
    ours = binding.state_names or binding.action_names
    of_state = _in_our_order(ours, binding.state_dim, names, chosen)
    of_actions = _of_actions(binding, ours, of_state)
    unled = [name for name in names if name.endswith(POSITION) and name not in of_actions]
    if unled and not chosen:
        raise ObservationError(
            f"the policy does not command {_listed(unled)} of the client; it commands {_listed(binding.action_names)}",
            MISFIT,
        )
    place = {name: at for at, name in enumerate(names)}
    columns = np.array(sorted(range(len(of_actions)), key=lambda at: place[of_actions[at]]))
    state, actions, turning = _conversions(binding, of_state, of_actions, units)
    return ClientJoints(of_state, state, columns, actions, turning)


def bare(name: str) -> str:
    """Return a joint's name without what LeRobot adds."""
    return name.removesuffix(POSITION)


def _in_our_order(
    ours: Sequence[str], size: int | None, names: Sequence[str], chosen: Sequence[str]
) -> tuple[str, ...]:
    """Return the client's names in the order of our state."""
    if chosen:
        known = {bare(name): name for name in names} | {name: name for name in names}
        missing = [name for name in chosen if name not in known]
        if missing:
            raise ObservationError(
                f"setting 'wire_keys' takes the state from {_listed(missing)}, which the client lacks; its numbers are {_listed(names)}",
                "missing-key",
            )
        return tuple(known[name] for name in chosen)
    theirs = {bare(name).casefold(): name for name in names}
    found = [theirs.get(bare(name).casefold()) for name in ours]
    if ours and None not in found:
        return tuple(name for name in found if name is not None)
    if any(found) or len(names) != (size or len(ours)):
        raise ObservationError(
            f"the policy's state is {_listed(ours)} and the client has {_listed(names)}: say which is which with"
            " --wire-keys state=theirs+theirs, in the policy's order",
            MISFIT,
        )
    text = "LeRobot's joints %s are taken for %s, by their order (setting wire_keys)"
    _line(logging.WARNING, "order", text, _listed(names), _listed(ours))
    return tuple(names)


def _of_actions(binding: Binding, ours: Sequence[str], of_state: Sequence[str]) -> list[str]:
    """Return the client's name of each of our actions."""
    by_name = dict(zip(ours, of_state, strict=False))
    measured = binding.hold_columns
    found = []
    for at, name in enumerate(binding.action_names):
        column = int(measured[at]) if measured is not None else -1
        theirs = of_state[column] if 0 <= column < len(of_state) else by_name.get(name)
        if theirs is None and len(of_state) == len(binding.action_names):
            theirs = of_state[at]
        if theirs is None:
            raise ObservationError(
                f"the policy commands {escaped(name, 80)}, and the client has {_listed(of_state)}", MISFIT
            )
        found.append(theirs)
    if len(set(found)) != len(found):
        raise ObservationError(f"two actions of the policy are one joint of the client: {_listed(found)}", MISFIT)  # fmt: skip
    return found


def _conversions(
    binding: Binding, of_state: Sequence[str], of_actions: Sequence[str], units: ClientUnits
) -> tuple[Conversion, Conversion, NDArray[np.bool_]]:
    """Return those of state and actions, and which numbers of the state are rad as they come."""
    own = binding.units
    if not units.usual:
        if own is None or own.state is None:
            raise ObservationError(
                "nothing says what the client counts its joints in: the policy counts in rad and m, and LeRobot's robots in degrees"
                " or in -100 to 100; say which with --lerobot-units degrees, norm100 or radians",
                UNDECLARED,
            )
        return own.state, _without_zero(binding, own.actions), np.zeros(len(of_state), np.bool_)
    at_action = {name: at for at, name in enumerate(of_actions)}
    robot = binding.embodiment
    grippers = () if robot is None else (robot.gripper, *robot.further_grippers)
    gripping = {part.component_idx for part in grippers if part is not None}
    by_action = [
        _unit(units, (name, bare(name), ours), gripper=at in gripping)
        for at, (name, ours) in enumerate(zip(of_actions, binding.action_names, strict=True))
    ]
    columns = [at_action.get(name, -1) for name in of_state]
    by_state = [
        _unit(units, (name, bare(name)), gripper=False) if at < 0 else by_action[at]
        for name, at in zip(of_state, columns, strict=True)
    ]
    state = _conversion(robot, columns, by_state, of_state)
    actions = _conversion(robot, range(len(of_actions)), by_action, of_actions)
    turning = [unit == SI and at not in gripping for unit, at in zip(by_state, columns, strict=True)]
    return state, _without_zero(binding, actions), np.array(turning)


def _unit(units: ClientUnits, names: Sequence[str], *, gripper: bool) -> str:
    """Return a joint's unit: as it is named, else the usual one; LeRobot counts every gripper in 0 to 100."""
    named = next((units.by_name[name] for name in names if name in units.by_name), "")
    return named or (PERCENT if gripper and units.usual != SI else units.usual)


def _conversion(
    robot: Embodiment | None, columns: Sequence[int], units: Sequence[str], names: Sequence[str]
) -> Conversion:
    """Return the conversion of some of the robot's columns, -1 for what is none. Raises ObservationError without a travel."""

    def chosen(values: Doubles | None) -> Doubles:
        width = () if values is None else values.shape[1:]
        none = np.full(width or (), np.nan)
        return np.array([none if at < 0 or values is None else values[at] for at in columns])

    calibrated = robot.calibrated if robot is not None else None
    travel = robot.travel if robot is not None and robot.travel is not None else None
    pairs = chosen(travel) if travel is not None else np.full((len(units), 2), np.nan)
    lacks = [
        name
        for name, unit, pair in zip(names, units, pairs, strict=True)
        if unit in OF_TRAVEL and np.isnan(pair).any()
    ]
    if lacks:
        raise ObservationError(
            f"the client counts {_listed(lacks)} in shares of a travel that nothing gives: name the arm's file with"
            " --lerobot-calibration, write 'travel' into the embodiment, or another unit into --lerobot-units"
            f" ({bare(lacks[0])}=radians)",
            UNDECLARED,
        )
    zero, sign = (None, None) if calibrated is None else (chosen(calibrated.zero), chosen(calibrated.sign))
    return conversion(units, pairs, zero, sign)


def _without_zero(binding: Binding, found: Conversion) -> Conversion:
    """Return the same without offset where a column is a velocity: 0 stays 0."""
    rates = velocity_columns(binding.groups, len(found.offset))
    return found if rates is None else Conversion(found.factor, np.where(rates, 0.0, found.offset))


def _listed(names: Iterable[str]) -> str:
    found = [escaped(name, 80) for name in names]
    return ", ".join(found[:12]) + (f" and {len(found) - 12} more" if len(found) > 12 else "") or "nothing"
