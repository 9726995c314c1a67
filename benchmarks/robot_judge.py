# SPDX-License-Identifier: Apache-2.0
"""Judges what a simulated robot is told, by what the product cannot know: where its arm is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from benchmarks.robot_world import (
    ARM,
    DT_S,
    FASTEST,
    HARDEST,
    MARGIN_RAD,
    MAX_AGE_MS,
    SPEED,
    TINY_S,
    TOLERANCE_RAD,
    Command,
    Doubles,
    World,
)
from reflex_core.robot.limits.reachable import TRACKING_S

EPSILON = 2e-5  # rounding to float32, twice
SILENT_S = MAX_AGE_MS * 1e-3 + 0.25  # a chunk that is over for longer must have been followed by a hold

SOON_S = 0.1 * DT_S  # a row that is due so soon counts as reached: no base is commanded more often
STOPS_S = float((FASTEST / HARDEST).max()) + 2 * DT_S  # so long a base brakes at most

BELIEVABLE = (
    3.0 * MARGIN_RAD
)  # a ramp of twice the speed limit against the arm's own motion is so far away when it is seen

# a sensor that freezes or drifts is so far from the arm when it is seen: the tolerance, and the way of the lag and a cycle
UNSEEN = TOLERANCE_RAD + SPEED * (TRACKING_S + 0.05)

LOW, HIGH = ARM.action_min, ARM.action_max


@dataclass(frozen=True)
class Way:
    """The first step of a chunk as it is known to who made it: (7,) rad from where the joints read to be, due at `due_s`."""

    start: Doubles
    end: Doubles
    began_s: float
    due_s: float

    def at(self, now_s: float) -> Doubles:
        """Return (7,) rad where that step is at a time before its end."""
        share = (now_s - self.began_s) / (self.due_s - self.began_s)
        return self.start + (self.end - self.start) * share


@dataclass
class Judge:
    """Looks at every command before the arm has it."""

    world: World | None = None
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    slow_lie: bool = False  # the newest reading is of a sensor that freezes or drifts: it is no jump
    streaming: bool = False  # a command is in force, so that the next one may also count from it
    anew: bool = (
        False  # what is executed is the first chunk since nothing was commanded, or a hold that ends it
    )
    way: Way | None = None  # of the first chunk since nothing was commanded
    moving_until_s: float = 0.0
    held: bool = True
    stopping: bool = False  # a person stopped the robot at `stopped_s`
    stopped_s: float = 0.0

    def stopped(self) -> None:
        """Note that a person has stopped the robot: no command counts from here on, and a base must come to stand."""
        self.streaming = False
        if self.world is not None and not self.stopping:
            self.stopping, self.stopped_s = True, self.world.clock.seconds

    def heard(self, command: Command) -> None:
        """Judge one trajectory against where the arm is and what it is told."""
        world = self.world
        assert world is not None
        self.counts["hold" if command.is_hold else "chunk"] += 1
        self.stopping = self.stopping and command.is_hold
        rows, now = command.rows, world.clock.seconds
        if world.wheels:
            self._judge_base(command, world)
        if command.is_hold and not len(rows):  # of the base alone: nothing is known of the arm
            self.counts["base"] += 1
            return
        if not np.isfinite(rows).all():
            self._found(f"not finite: {rows[0]}", command)
            return
        if (rows < LOW).any() or (rows > HIGH).any():
            self._found(f"outside the limits: {rows.min(axis=0)} {rows.max(axis=0)}", command)
        steps = np.diff(command.due_s)[:, None]
        if (np.abs(np.diff(rows, axis=0)) > SPEED * steps + EPSILON).any():
            self._found("faster than the limit from row to row", command)
        coming = np.flatnonzero(command.due_s > now + TINY_S)
        if command.is_hold and (command.due_s < now - TINY_S).any():
            self._found("a hold that was over when it came", command)
        anchored = np.flatnonzero(np.abs(command.due_s - now) <= TINY_S)
        if len(anchored) and (np.abs(rows[anchored[0]] - world.arm.commanded()) > EPSILON).any():
            self._found("an anchor that is not where the command is", command)
        if command.speeds is not None and (
            not np.isfinite(command.speeds).all() or (np.abs(command.speeds) > SPEED * 1.02).any()
        ):
            self._found("a velocity above the limit", command)
        if command.speeds is not None and command.speeds[-1].any():
            self._found("a motion that does not end at rest", command)
        if len(coming):
            self._judge_start(command, rows[coming[0]], max(command.due_s[coming[0]] - now, DT_S))
        if not (command.is_hold and self.streaming):
            self.anew = not (command.is_hold or self.streaming)
            if self.anew and len(coming) and world.reading is not None:
                self.way = Way(world.reading, rows[coming[0]], now, float(command.due_s[coming[0]]))
        self.streaming, self.held = True, command.is_hold
        self.moving_until_s = float(command.due_s[-1])

    def _judge_start(self, command: Command, first: Doubles, within_s: float) -> None:
        world = self.world
        assert world is not None
        reach = SPEED * within_s + EPSILON
        from_arm = np.abs(first - world.arm.position) - reach
        from_command = np.abs(first - world.arm.commanded()) - reach
        if command.is_hold and self.anew:
            # nobody can know where the controller was when that chunk began, only where the joints read to be
            from_command -= np.maximum(np.abs(world.arm.speed()) - SPEED, 0.0) * within_s
            now = world.clock.seconds
            if self.way is not None and now < self.way.due_s:
                on_its_way = np.abs(first - self.way.at(now)) - reach
                from_command = np.minimum(from_command, on_its_way)
        excess = np.minimum(from_arm, from_command) if self.streaming else from_arm
        believable = np.maximum(BELIEVABLE, UNSEEN if self.slow_lie else 0.0)
        if world.reading is not None and (np.abs(world.reading - world.arm.position) <= believable).all():
            # no gate that grants MARGIN_RAD can tell what a reading so near to the truth is
            excess = np.minimum(excess, np.abs(first - world.reading) - reach)
        if (excess > 0.0).any():
            joint = int(np.argmax(excess))
            speed = (abs(first[joint] - world.arm.position[joint])) / within_s / SPEED[joint]
            self._found(f"joint {joint + 1} leaps: {speed:.2f} times its limit from where it is", command)

    def _judge_base(self, command: Command, world: World) -> None:
        """A base is commanded what it can do from the velocity it has, and a hold ends at 0."""
        rows, due_s, now = command.driven, command.driven_s, world.clock.seconds
        if not np.isfinite(rows).all():
            self._found(f"the base is commanded {rows[:1]}", command)
            return
        if (np.abs(rows) > FASTEST + EPSILON).any():
            self._found(f"the base is commanded {np.abs(rows).max(axis=0)}", command)
        coming = np.flatnonzero(due_s > now + TINY_S)
        if len(coming):
            # a row that is due within a period is reached in what is left of it
            first, within_s = rows[coming[0]], DT_S * np.ceil((due_s[coming[0]] - now) / DT_S)
            now_and_soon = np.array([world.base.commanded(), world.base.commanded(SOON_S)])
            nearest = np.clip(first, now_and_soon.min(axis=0), now_and_soon.max(axis=0))
            harder = np.abs(first - nearest) - HARDEST * within_s
            if (harder > EPSILON).any():
                self._found(f"the base is commanded to leap by {harder.max():.3f} per second", command)
        changes = np.abs(np.diff(rows[coming], axis=0))
        if (changes > HARDEST * np.diff(due_s[coming])[:, None] + EPSILON).any():
            self._found(f"the base is commanded to change by {changes.max():.3f} in a row", command)
        if command.is_hold and rows[-1].any():
            self._found("a hold does not end at 0", command)
        if (
            command.is_hold
            and (np.abs(rows[coming]).max(axis=0) > np.abs(world.base.commanded()) + EPSILON).any()
        ):
            self._found("a hold drives on", command)
        self.counts["driven"] += bool(rows.any())

    def look(self) -> None:
        """Once a tick: what is over must have been followed by something, and a base that is stopped must stand."""
        world = self.world
        assert world is not None
        if world.wheels:
            still_s = world.clock.seconds - self.stopped_s
            if self.stopping and still_s > STOPS_S and world.base.commanded().any():
                self._found(f"the base drives {still_s:.2f} s after a stop", None)
                self.stopping = False
        over_s = world.clock.seconds - self.moving_until_s
        if self.streaming and not self.held and over_s > SILENT_S and not world.loop.stopped:
            self._found(f"nothing came for {over_s:.2f} s after a chunk was over", None)
            self.held = True

    def _found(self, problem: str, command: Command | None) -> None:
        world = self.world
        assert world is not None
        kind = "" if command is None else f" ({'hold ' + command.reason if command.is_hold else 'chunk'})"
        self.problems.append(f"{world.clock.seconds - 1000.0:.2f} s{kind}: {problem}")
