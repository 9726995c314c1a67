# SPDX-License-Identifier: Apache-2.0
"""Rows of an answer for clients that execute them from the first one on and expect as many as ever."""

from __future__ import annotations

import numpy as np

from reflex_core.robot.gripper_shares import in_shares
from reflex_core.robot.groups import velocity_columns
from reflex_core.values import Floats
from reflex_ros.sidecar.wires.wire import Answered


def rows_of(answered: Answered) -> Floats:
    """Return (horizon, action_dim): the rows that are still to come, and after them the last one again.

    A client that counts rows must find them all, also where a fallback has few left: positions then stay where they are,
    and what is commanded by velocity stands still. Grippers are counted as the client counts them.
    """
    return in_shares(_as_many_as_ever(answered), answered.shares)


def _as_many_as_ever(answered: Answered) -> Floats:
    chunk, loaded = answered.served.chunk, answered.loaded
    policy = loaded.slots.get(answered.served.slot, loaded.first).policy
    rows = chunk.actions[min(chunk.start_index, len(chunk.actions) - 1) :]
    missing = policy.binding.horizon - len(rows)
    if missing <= 0:
        return np.ascontiguousarray(rows)
    last = rows[-1].copy()
    rates = velocity_columns(policy.binding.groups, len(last))
    if rates is not None:
        last[rates] = 0.0
    return np.concatenate([rows, np.tile(last, (missing, 1))])
