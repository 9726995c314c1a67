# SPDX-License-Identifier: Apache-2.0
"""Velocities for controllers that integrate them: as the motion has them, with a bounded part that undoes what has added up."""

from __future__ import annotations

import numpy as np

from reflex_core.chunks.interpolation import Doubles

PULL_PER_S = 2.0  # of how far the robot is from its setpoint: half of it is undone within 0.35 s
PULL_SHARE = 0.1  # of the most that may be commanded: a pull is never more


def towards(gap: Doubles, gain_per_s: float, most: float) -> Doubles:
    """Return (n,) the velocity that closes a gap (n,), at most `most` long. Nothing for a gap that is not known."""
    pull: Doubles = gain_per_s * gap
    length = float(np.linalg.norm(pull))
    if not np.isfinite(length):
        return np.zeros(len(gap))
    return pull if length <= most else pull * (most / length)


def slowed(velocity: Doubles, over: float) -> Doubles:
    """Return the velocity, (n,), by one factor slower where it is `over` 1 times what is allowed: it stays on its path."""
    return velocity / over if over > 1.0 else velocity
