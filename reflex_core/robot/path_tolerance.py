# SPDX-License-Identifier: Apache-2.0
"""Whether the joints follow their commands: a reading that stays behind is a frozen or drifting sensor, or a blocked arm.

What ros2_control's joint_trajectory_controller calls the path tolerance, applied where the commands are made: no joint
may be measured further than the tolerance from everything it was commanded in the last moments.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import unmeasured_columns
from reflex_core.robot.joint_gate import LEAST_READINGS, RECOVERY_S, Implausible, Path
from reflex_core.robot.limits.reachable import TRACKING_S

TOLERANCE_RAD = (
    0.4  # beyond TRACKING_S of lag: at full speed the fastest arms may trail by more than a third of a second
)
WARNED_SHARE = 0.5  # of the tolerance: beyond it a warning is shown, and a joint that was beyond the tolerance agrees again within it
CHECKED_EVERY_S = 0.01  # joint states may come a thousand times a second

PATH_TOLERANCE_VIOLATED = "path_tolerance_violated"
OK, WARNED, VIOLATED = 0, 1, 2


class Reference:
    """What one joint is commanded over time: linear between points, constant after the last. Times in nanoseconds."""

    def __init__(self, at_ns: int, value: float) -> None:
        self._times_ns, self._values = [at_ns], [value]

    def at(self, at_ns: int) -> float:
        """Return the command of that time, rad or m; before the first point the first one."""
        times, values = self._times_ns, self._values
        index = bisect_right(times, at_ns)
        if index == 0 or index == len(times):
            return values[max(index - 1, 0)]
        share = (at_ns - times[index - 1]) / (times[index] - times[index - 1])
        return values[index - 1] + share * (values[index] - values[index - 1])

    def envelope(self, from_ns: int, to_ns: int) -> tuple[float, float]:
        """Return (least, most) of what was commanded between the two times."""
        between = self._values[bisect_left(self._times_ns, from_ns) : bisect_right(self._times_ns, to_ns)]
        passed = [self.at(from_ns), *between, self.at(to_ns)]
        return min(passed), max(passed)

    def splice(self, path: Path, at_ns: int) -> None:
        """Replace the commands after `at_ns` by `path`: from what is commanded then to its first row still to come.

        What is older than both the lag and a late message can need is dropped.
        """
        now = self.at(at_ns)
        first = max(bisect_left(self._times_ns, at_ns - int(5 * TRACKING_S * 1e9)) - 1, 0)
        last = bisect_left(self._times_ns, at_ns)
        rows = [(path.first_ns + int(row * path.dt_s * 1e9), value) for row, value in enumerate(path.rows)]
        coming = [row for row in rows if row[0] > at_ns] or [(at_ns + 1, rows[-1][1])]
        self._times_ns = [*self._times_ns[first:last], at_ns, *(due_ns for due_ns, _ in coming)]
        self._values = [*self._values[first:last], now, *(value for _, value in coming)]


@dataclass(slots=True)
class _Follower:
    """One joint. Times are nanoseconds of the clock of its owner; level: OK, WARNED or VIOLATED."""

    name: str
    reading: float | None = None
    checked_ns: int = 0
    reference: Reference | None = None
    level: int = OK
    error: float = 0.0
    fault: Implausible | None = None
    agrees_since_ns: int = 0
    agreeing: int = 0


@dataclass(slots=True)
class PathTolerance:
    """Followers by joint name. Not thread-safe: its owner has the lock.

    tolerance: rad, or m for a joint that slides; 0 judges nothing. on_error: called with the joint's name and a sentence
    each time it begins to be further than half the tolerance from its command.
    """

    joints: Iterable[str]
    tolerance: float = TOLERANCE_RAD
    on_error: Callable[[str, str], None] = lambda *_: None
    _followers: dict[str, _Follower] = field(init=False)
    _in_force: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._followers = {name: _Follower(name) for name in self.joints} if self.tolerance > 0.0 else {}

    def put(self, names: Iterable[str], positions: Iterable[float], at_ns: int) -> None:
        """Compare plausible readings (rad or m), taken at `at_ns`, with the commands until then."""
        for name, position in zip(names, positions, strict=False):
            follower = self._followers.get(name)
            if follower is None:
                continue
            follower.reading = float(position)
            due = not 0 <= at_ns - follower.checked_ns < CHECKED_EVERY_S * 1e9
            if due and follower.reference is not None and (self._in_force or follower.fault is not None):
                follower.checked_ns = at_ns
                self._check(follower, follower.reading, follower.reference, at_ns)

    def commanded(self, paths: Mapping[str, Path], at_ns: int) -> None:
        """Set the commands of the joints from `at_ns` on, on the clock of the paths."""
        for name, path in paths.items():
            follower = self._followers.get(name)
            if follower is None:
                continue
            if follower.reference is None or not (self._in_force or follower.fault is not None):
                begin = path.rows[0] if follower.reading is None else follower.reading
                follower.reference = Reference(at_ns, float(begin))
            follower.reference.splice(path, at_ns)
        self._in_force = True

    def released(self) -> None:
        """Take note that nothing is commanded any more. A joint that did not follow must be back at its last command first."""
        self._in_force = False
        for follower in self._followers.values():
            if follower.fault is None:
                follower.level, follower.error = OK, 0.0

    def reset(self) -> None:
        """Forget everything: an activation, or a clock on which the robot may be anywhere."""
        self._followers = {name: _Follower(name) for name in self._followers}
        self._in_force = False

    def anchor(self) -> None:
        """Count from the present readings until something else is commanded: an operator confirms them."""
        self._followers = {
            name: _Follower(name, follower.reading) for name, follower in self._followers.items()
        }

    def fault(self) -> Implausible | None:
        """Return why the robot must be held, None while all joints follow."""
        followers = self._followers.values()
        return next((follower.fault for follower in followers if follower.fault is not None), None)

    def warning(self) -> str:
        """Return which joint is furthest from its command, "" while none is by more than half the tolerance."""
        beyond = [follower for follower in self._followers.values() if follower.level > OK]
        if not beyond:
            return ""
        return self._message_of(max(beyond, key=lambda follower: follower.error))

    def _message_of(self, follower: _Follower) -> str:
        return (
            f"joint '{follower.name}' is {follower.error:.2f} rad from its command; the robot holds beyond"
            f" {self.tolerance:g} rad and the way of {TRACKING_S:g} s (path_tolerance_rad)"
        )

    def _check(self, follower: _Follower, reading: float, reference: Reference, at_ns: int) -> None:
        low, high = reference.envelope(at_ns - int(TRACKING_S * 1e9), at_ns)
        beyond = max(low - reading, reading - high, 0.0)
        expected = reference.at(at_ns)
        follower.error = abs(reading - expected) if beyond > 0.0 else 0.0
        level = (
            VIOLATED if beyond > self.tolerance else WARNED if beyond > WARNED_SHARE * self.tolerance else OK
        )
        if level > OK and follower.level == OK:
            self.on_error(follower.name, self._message_of(follower))
        if level == VIOLATED or follower.fault is not None:
            follower.fault = _violation(follower, reading, expected)
        follower.level = level
        self._recover(follower, at_ns)

    @staticmethod
    def _recover(follower: _Follower, at_ns: int) -> None:
        """Let a joint count as following again once it has been near its command for long enough."""
        if follower.fault is None or follower.level > OK:
            follower.agreeing = 0
            return
        if follower.agreeing == 0 or at_ns < follower.agrees_since_ns:
            follower.agrees_since_ns, follower.agreeing = at_ns, 0
        follower.agreeing += 1
        if follower.agreeing >= LEAST_READINGS and at_ns - follower.agrees_since_ns >= RECOVERY_S * 1e9:
            follower.fault, follower.agreeing = None, 0


def _violation(follower: _Follower, reading: float, expected: float) -> Implausible:
    text = (
        f"joint '{follower.name}' is {abs(reading - expected):.2f} rad from its command: it reads {reading:.6g}, it was"
        f" commanded to {expected:.6g}; it is blocked, stopped, or its sensor is frozen (path_tolerance_rad); if it really is"
        " there and free to move, call ~/reset_guard"
    )
    return Implausible(follower.name, reading, expected, PATH_TOLERANCE_VIOLATED, text)


def path_tolerance(
    embodiment: Embodiment | None, names: Iterable[str], tolerance_rad: float,
    on_error: Callable[[str, str], None] = lambda *_: None,
) -> PathTolerance:  # fmt: skip
    """Return the tolerance for the joints `names` (as the robot calls them) of one robot."""
    return PathTolerance(joints_judged(embodiment, names), tolerance_rad, on_error)


def joints_judged(embodiment: Embodiment | None, names: Iterable[str]) -> tuple[str, ...]:
    """Return which of the joints `names` must follow their commands.

    Only joints of the embodiment, and no gripper: one that stalls on what it holds never reaches its command. What commands
    a velocity has no path of positions.
    """
    if embodiment is None:
        return ()
    ends = [end.component_idx for end in embodiment.two_ended]
    unmeasured = unmeasured_columns(embodiment.groups, embodiment.action_dim)
    ends += [] if unmeasured is None else np.flatnonzero(unmeasured).tolist()
    known = {name for index, name in enumerate(embodiment.joint_names) if index not in ends}
    return tuple(name for name in dict.fromkeys(names) if name in known)
