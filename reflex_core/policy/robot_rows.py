# SPDX-License-Identifier: Apache-2.0
"""From a policy's own rows to the robot's, and the check of the state that they start from."""

from __future__ import annotations

import math

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.export.binding import Binding
from reflex_core.export.contract import Contract
from reflex_core.robot.gripper import at_the_ends
from reflex_core.robot.kinematics.inverse import UnreachableError
from reflex_core.values import Floats


def robot_rows(own: Floats, contract: Contract, binding: Binding, state: Floats | None) -> tuple[Floats, str]:
    """Return (rows, action_dim) in rad and m, and why they end before the poses that are wanted; "" where they do not.

    The gripper is not brought to its ends yet (`ended`). own: (rows, width) in the policy's units. state: of the observation
    that they were made from. Raises ObservationError for a state that they cannot start from.
    """
    chosen = own[:, binding.columns]
    if binding.tool is not None:
        measured = checked_state(state, contract, binding)
        try:
            return binding.tool.joints(binding.tool.trained(chosen), measured), ""
        except UnreachableError as error:
            return binding.tool.reached(error, len(chosen), measured), str(error)
    actions = chosen if binding.action_statistics is None else binding.action_statistics.denormalise(chosen)
    if binding.relative is not None:
        start = binding.relative.base(checked_state(state, contract, binding))
        actions = binding.relative.positions(actions, start)
    return actions, ""


def ended(rows: Floats, binding: Binding, state: Floats | None) -> Floats:
    """Return the rows with the gripper at its ends, row by row in memory."""
    # selecting columns leaves them in column order; what travels as bytes must be row by row
    return np.ascontiguousarray(at_the_ends(rows, binding.ends, state))


def checked_state(state: Floats | None, contract: Contract, binding: Binding) -> Floats:
    """Return the state, if the policy takes it. Raises ObservationError naming the expected and the actual shape."""
    slot, dim = contract.state, binding.state_dim
    if state is None:
        raise ObservationError(
            f"no robot state; the policy needs {_wanted(contract, binding)}", "missing-state"
        )
    right = state.size == dim if dim else slot is None or 0 < state.size <= slot.width
    if state.ndim != 1 or not right:
        got = state.size if state.ndim == 1 else f"an array of shape {state.shape}"
        raise ObservationError(f"the state must be {_wanted(contract, binding)}, got {got}", "state-length")
    if not all(map(math.isfinite, state.tolist())):  # of so few numbers quicker than numpy
        raise ObservationError("the state holds NaN or Inf", "state-not-finite")
    return state


def _wanted(contract: Contract, binding: Binding) -> str:
    """Return how many numbers the state has, and their names, for refusals."""
    slot, dim = contract.state, binding.state_dim
    wanted = f"{dim} numbers" if dim else f"at most {slot.width if slot else 0} numbers"
    return f"{wanted} ({', '.join(binding.state_names)})" if binding.state_names else wanted
