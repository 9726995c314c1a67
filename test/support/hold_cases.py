# SPDX-License-Identifier: Apache-2.0
"""Limits of a Panda, streams of commands, and what every hold must keep to."""

from __future__ import annotations

import dataclasses

import numpy as np
from guarded import FRANKA, MIDDLE

from reflex_core.robot.limits.hold import Doubles, Hold, Stream
from reflex_core.robot.limits.limits import Limits, effective_limits

FOUND = effective_limits(FRANKA.joint_names, FRANKA, None)
assert FOUND is not None
LIMITS: Limits = FOUND
BENDING = dataclasses.replace(LIMITS, acceleration_max=np.full(7, 10.0))
DT_S = 0.05
STEP = LIMITS.velocity_max * DT_S
AT = MIDDLE.astype(np.float64)
ALL = np.ones(7, np.bool_)
SECOND_NS = 10**9


def moving(share: float, *, at: Doubles = AT, follows: Doubles = ALL) -> Stream:
    """Every joint moves at this share of its limit, and is half-way through a period."""
    return Stream(at, at + share * STEP / 2, share * STEP, follows)


def require_safe(held: Hold | None, limits: Limits, *centres: Doubles) -> Hold:
    """Inside the limits, no faster than each joint may be from row to row and from every centre, and still at the end."""
    assert held is not None
    rows = held.rows.astype(np.float64)
    assert np.isfinite(rows).all()
    assert (rows >= limits.position_min).all()
    assert (rows <= limits.position_max).all()
    most = limits.velocity_max * held.dt_s
    assert (np.abs(np.diff(rows[held.start :], axis=0)) <= most + 1e-9).all()
    for centre in centres:
        reach = most * (np.arange(held.start, len(rows)) + 1)[:, None]
        assert (np.abs(rows[held.start :] - centre) <= reach + 1e-6).all()
    return held
