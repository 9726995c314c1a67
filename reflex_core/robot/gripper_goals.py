# SPDX-License-Identifier: Apache-2.0
"""When a gripper that takes goals is sent another one: on change, seldom, and the newest wish wins."""

from __future__ import annotations

import numpy as np

from reflex_core.robot.groups import GripperEnds
from reflex_core.values import Floats

LEAST_S = 0.2  # between two goals: a server that is sent more of them drops what it has just begun
BAND = 0.05  # of the way between open and closed: policies are noisier than people think
END = 0.2  # of the dead band: so near to an end the end itself is meant
UNKNOWN_BAND = 0.005  # rad or m, of a gripper whose ends are not known


class GripperGoals:
    """The rows of one gripper, and which of them become goals. Times are int ns of one clock. Not thread-safe.

    dead_band: rad or m by which a wish must differ from the last goal; None: a share of the way between the ends.
    """

    def __init__(self, ends: GripperEnds | None, dead_band: float | None = None) -> None:
        self._ends = () if ends is None else (ends.open, ends.closed)
        band = UNKNOWN_BAND if ends is None else BAND * abs(ends.open - ends.closed)
        self._band = band if dead_band is None else dead_band
        self._dues_ns = np.empty(0, np.int64)
        self._rows = np.empty(0)
        self._goal: float | None = None
        self._not_before_ns = 0

    @property
    def goal(self) -> float | None:
        """The last goal, rad or m; None where a new one is sent whatever it is."""
        return self._goal

    def follow(self, positions: Floats, zero_ns: int, start: int, dt_s: float) -> None:
        """Wish for what is due, from row `start` of `positions` (n,) on. Row i is due at zero_ns + (i + 1) * dt_s."""
        rows = np.arange(start, len(positions))
        self._dues_ns = zero_ns + np.rint((rows + 1) * dt_s * 1e9).astype(np.int64)
        self._rows = positions[start:].astype(np.float64)

    def stop(self) -> None:
        """Wish for nothing more."""
        self._rows = self._rows[:0]
        self._dues_ns = self._dues_ns[:0]

    def next_goal(self, now_ns: int) -> float | None:
        """Return the goal to send now; None where the last one stands, or was sent a moment ago."""
        due = int(np.searchsorted(self._dues_ns, now_ns, side="right"))
        if due == 0 or now_ns < self._not_before_ns:
            return None
        wish = self._at_end(float(self._rows[due - 1]))
        if not np.isfinite(wish) or (self._goal is not None and abs(wish - self._goal) <= self._band):
            return None
        return wish

    def _at_end(self, wish: float) -> float:
        """Return the end where that is meant: within the dead band of an end a gripper would never get there."""
        near = [end for end in self._ends if abs(wish - end) <= END * self._band]
        return near[0] if near else wish

    def sent(self, goal: float, now_ns: int) -> None:
        """Note a goal that was sent."""
        self._goal, self._not_before_ns = goal, now_ns + int(LEAST_S * 1e9)

    def forget(self, not_before_ns: int = 0) -> None:
        """Forget the last goal, as the gripper does not go there: the next wish is sent, not before that time."""
        self._goal, self._not_before_ns = None, max(not_before_ns, self._not_before_ns)
