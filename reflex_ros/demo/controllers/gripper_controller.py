# SPDX-License-Identifier: Apache-2.0
"""The two gripper action controllers of ros2_controllers, and a finger that an object may stop.

Both decide alike: the goal is reached within a tolerance; a finger that has stood still short of it for a while has
stalled, which ends the goal as aborted unless stalling is allowed; a new goal replaces the running one; nothing times out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

REACHED, STALLED, REPLACED, CANCELLED = "reached", "stalled", "replaced", "cancelled"


@dataclass(frozen=True, slots=True)
class GripperOptions:
    """Parameters by the controllers' names and defaults; positions of the joint in m or rad."""

    goal_tolerance: float = 0.01
    stall_velocity_threshold: float = 0.001
    stall_timeout_s: float = 1.0
    allow_stalling: bool = False

    def parameters(self, joint: str) -> dict[str, bool | float | str]:
        """Return the ROS parameters of a controller with these options."""
        return {
            "joint": joint,
            "goal_tolerance": self.goal_tolerance,
            "stall_velocity_threshold": self.stall_velocity_threshold,
            "stall_timeout": self.stall_timeout_s,
            "allow_stalling": self.allow_stalling,
        }


@dataclass(frozen=True, slots=True)
class Finger:
    """One joint that moves to a target at a constant speed, within `low` and `high`: an object in the way narrows them."""

    position: float
    low: float
    high: float
    speed: float = 0.1

    def towards(self, target: float, duration_s: float) -> Finger:
        """Return the finger `duration_s` later."""
        step = self.speed * duration_s
        moved = self.position + min(max(target - self.position, -step), step)
        return replace(self, position=min(max(moved, self.low), self.high))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a goal ended: REACHED, STALLED, REPLACED or CANCELLED, and where the finger was."""

    goal: int
    how: str
    position: float


class GripperController:
    """Moves a finger to goals. Times are nanoseconds of one clock; each goal has a number, from 1 on."""

    def __init__(self, finger: Finger, options: GripperOptions | None = None) -> None:
        self.finger = finger
        self.options = options or GripperOptions()
        self.goals = 0
        self._target = finger.position
        self._running: int | None = None
        self._moved_ns = 0
        self._updated_ns: int | None = None
        self._ended: list[Outcome] = []

    def goal(self, now_ns: int, position: float) -> int:
        """Go to a position instead of where the goal before was to go. Return the new goal's number."""
        self._end(REPLACED)
        self.goals += 1
        self._target, self._running, self._moved_ns = position, self.goals, now_ns
        return self.goals

    def cancel(self) -> None:
        """Hold the finger where it is."""
        self._target = self.finger.position
        self._end(CANCELLED)

    def update(self, now_ns: int) -> list[Outcome]:
        """Move the finger to the present and return the goals that have ended since the last update."""
        passed_s = 0.0 if self._updated_ns is None else (now_ns - self._updated_ns) * 1e-9
        before = self.finger.position
        self.finger = self.finger.towards(self._target, passed_s)
        self._updated_ns = now_ns
        if passed_s and abs(self.finger.position - before) / passed_s > self.options.stall_velocity_threshold:
            self._moved_ns = now_ns
        if abs(self._target - self.finger.position) < self.options.goal_tolerance:
            self._end(REACHED)
        elif (now_ns - self._moved_ns) * 1e-9 > self.options.stall_timeout_s:
            self._end(STALLED)
        ended, self._ended = self._ended, []
        return ended

    def succeeds(self, outcome: Outcome) -> bool:
        """Return whether a goal that ended this way counts as done; a stall does only where stalling is allowed."""
        return outcome.how == REACHED or (outcome.how == STALLED and self.options.allow_stalling)

    def _end(self, how: str) -> None:
        if self._running is not None:
            self._ended.append(Outcome(self._running, how, self.finger.position))
        self._running = None
