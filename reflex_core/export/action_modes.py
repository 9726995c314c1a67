# SPDX-License-Identifier: Apache-2.0
"""What a row of actions starts from: nothing, the row before it, the state of its observation, or the time between two rows."""

from __future__ import annotations

ABSOLUTE, DELTA, RELATIVE, VELOCITY = MODES = ("absolute", "delta", "relative", "velocity")
# rows: to the row before (delta), to the state of the observation (relative), per second (velocity)
FROM_THE_STATE = (DELTA, RELATIVE, VELOCITY)
