# SPDX-License-Identifier: Apache-2.0
"""Random histories of what sensors, people, clocks and models do, against the real guard and the real chunk loop.

    python -m benchmarks.robot_fuzz --histories 20000 --seed 0

The judge knows what the product cannot: where the arm is, which readings are lies, and what was sent. Whatever happens, no
command may be non-finite, outside the limits, or faster than a joint may be moved from where it is (or from the command it
is following); nothing may die in silence; and the robot must be served again soon after its input is plausible.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.measure import parser
from benchmarks.robot_judge import HIGH, LOW, Judge
from benchmarks.robot_lies import slow, sudden
from benchmarks.robot_world import (
    DT_S,
    FASTEST,
    HARDEST,
    HOME,
    HORIZON,
    SPEED,
    TICK_S,
    Doubles,
    World,
    truth,
)
from reflex_core.errors import InferenceError
from reflex_core.robot.callers import ROS
from reflex_core.robot.joint_gate import SETTLE_S
from reflex_core.values import Floats, Request

SERVED_WITHIN_S = 3.0


class Panicked(BaseException):
    """What an extension written in Rust raises: no Exception."""


@dataclass
class Script:
    """What happens when: (seconds, what, call)."""

    events: list[tuple[float, str, Callable[[], None]]] = field(default_factory=list)

    def at(self, seconds: float, what: str, call: Callable[[], None]) -> None:
        self.events.append((seconds, what, call))

    def due(self, seconds: float) -> None:
        """Do everything whose time has come."""
        while self.events and self.events[0][0] <= seconds:
            self.events.pop(0)[2]()


class History:
    """One history, made of one seed."""

    def __init__(self, seed: int, *, wheels: bool = False) -> None:
        self.random = random.Random(seed)
        self.judge = Judge()
        self.script = Script()
        self.told: list[str] = []
        self.world = World(heard=self.judge.heard, meanwhile=self._meanwhile, wheels=wheels)
        self.judge.world = self.world
        self.began_s = self.world.clock.seconds
        self.target = HOME.copy()
        self.wild = 0.0
        self.lying = self.silent = self.guided = self.slow = self.unheard = False

    def _meanwhile(self) -> None:
        # of the reading that has just come or not, whatever the sensor does from now on
        self.unheard, self.judge.slow_lie = self.silent, self.slow
        self.script.due(self.world.clock.seconds - self.began_s)
        self.judge.look()

    def play(self) -> list[str]:
        """Return what was wrong, one sentence each."""
        world, length_s = self.world, self.random.uniform(2.0, 5.0)
        self._choose_target()
        world.engine.model = self._model
        world.engine.latency_s = self.random.choice([0.0, 0.03, 0.08, 0.2, 0.6])
        for _ in range(self.random.randint(1, 7)):
            self._plan(self.random.uniform(0.0, length_s))
        self.script.events.sort(key=lambda event: event[0])
        try:
            world.run(length_s)
            self._end_well()
        except Exception as error:
            self.judge.problems.append(f"died of {type(error).__name__}: {error}")
        return self.judge.problems

    def _end_well(self) -> None:
        """Everything is plausible again: then the robot is served, within a time."""
        world = self.world
        self.script.events.clear()
        if world.sensor_offset_ns is not None:  # the clocks of the machines are set right while nothing moves
            world.loop.stop()
            self.judge.stopped()
            world.run(0.3)
        self.slow = False
        world.lie, world.second_lie, world.camera, world.sensor_offset_ns = truth, None, True, None
        world.arm.following = True
        world.arm.blocked[:] = False
        world.engine.latency_s, world.engine.model, self.wild = 0.05, self._model, 0.0
        self.target = np.clip(world.arm.position, LOW + 0.1, HIGH - 0.1)
        world.loop.resume()
        world.guard.reset(ROS)  # as a person does: what a wild model did before counts no more
        before, end_s = self.judge.counts["chunk"], world.clock.seconds + SERVED_WITHIN_S
        while self.judge.counts["chunk"] == before and world.clock.seconds < end_s:
            world.run(TICK_S)
        if self.judge.counts["chunk"] == before:
            progress = world.loop.progress
            self.judge.problems.append(
                f"not served {SERVED_WITHIN_S:g} s after all was well: {progress.problem}: {progress.problem_text}"
            )
        world.run(0.3)
        world.loop.close("deactivated")

    def _choose_target(self) -> None:
        self.target = np.array([self.random.uniform(low, high) for low, high in zip(LOW, HIGH, strict=True)])

    def _model(self, request: Request) -> Floats:
        """A policy that goes to its target, now and then too fast, too far, or not at all."""
        state = request.observation.state
        assert state is not None
        at = state.astype(np.float64)
        chance = self.random.random()
        if chance < 0.02 * self.wild:
            raise InferenceError("the model raised")
        if chance < 0.03 * self.wild:
            raise Panicked("a panic")
        speed = SPEED * (self.random.uniform(0.3, 0.95) if chance > 0.2 * self.wild else 3.0)
        way = self.target - at
        ramp = np.arange(1, HORIZON + 1)[:, None] * DT_S * speed
        rows = at + np.clip(ramp, None, np.abs(way)) * np.sign(way)
        if chance < 0.06 * self.wild:
            rows[self.random.randrange(HORIZON), 2] = np.nan
        elif chance < 0.1 * self.wild:
            rows[10:] += self.random.uniform(-4, 4)
        return self._with_base(rows).astype(np.float32)

    def _with_base(self, rows: Doubles) -> Doubles:
        """Drive somewhere as well, smoothly where the model is well."""
        if not self.world.wheels:
            return rows
        wanted = np.array([self.random.uniform(-most, most) for most in FASTEST])
        if self.wild:
            return np.hstack([rows, np.tile(wanted * self.random.choice([1.0, 4.0, np.nan]), (HORIZON, 1))])
        steps = np.arange(1, HORIZON + 1)[:, None] * HARDEST * DT_S * 0.9
        now = self.world.base.commanded()
        return np.hstack([rows, now + np.clip(wanted - now, -steps, steps)])

    def _plan(self, at_s: float) -> None:
        kinds = [
            self._lie, self._lie, self._lie, self._lie, self._silence, self._camera, self._clock, self._stop, self._stop,
            self._instruction, self._hang, self._wild, self._partial, self._hand, self._foreign_clock, self._slow_lie,
            self._slow_lie, self._block,
        ]  # fmt: skip
        self.random.choice(kinds)(at_s)

    def _lie(self, at_s: float) -> None:
        """A reading that no joint of this arm can have made; for a while."""
        joint = self.random.randrange(7)
        name, lie = sudden(self.random, joint)
        second = self.random.random() < 0.25
        lasts_s = self.random.choice([0.02, 0.1, 0.5, 1.5, 4.0])

        def begin() -> None:
            if self.lying or self.silent or self.guided:
                return
            if not self.judge.counts["chunk"] and lasts_s > 0.2:
                return  # a steady reading may be believed anew until something was commanded
            if self.unheard and not self.judge.streaming and lasts_s >= SETTLE_S:
                return  # and at the end of a silence without commands, as the arm may have been moved meanwhile
            if name == "zeros" and not (np.abs(self.world.arm.position) > 0.5).any():
                return
            self.lying = True
            if second:
                self.world.second_lie = lie
            else:
                self.world.lie = lie

        self._add(
            at_s, f"{'second publisher ' if second else ''}{name} of joint {joint + 1} for {lasts_s} s", begin
        )
        self.script.at(at_s + lasts_s, "truth", self._tell_the_truth)

    def _slow_lie(self, at_s: float) -> None:
        """A sensor that freezes or drifts while its stamps stay fresh."""
        joint = self.random.randrange(7)
        name, lie = slow(self.random, joint, lambda: not self.judge.streaming)
        lasts_s = self.random.choice([0.5, 2.0, 4.0])

        def begin() -> None:
            if self.lying or self.silent or self.guided or not self.judge.streaming:
                return
            self.lying = self.slow = True
            self.world.lie = lie

        self._add(at_s, f"{name} of joint {joint + 1} for {lasts_s} s", begin)
        self.script.at(at_s + lasts_s, "truth", self._tell_the_truth)

    def _tell_the_truth(self) -> None:
        self.lying = self.slow = False
        self.world.second_lie = None
        if not self.silent:
            self.world.lie = truth

    def _block(self, at_s: float) -> None:
        """Something is in the way of a joint."""
        joint, blocked = self.random.randrange(7), self.world.arm.blocked
        self._add(at_s, f"joint {joint + 1} is blocked", lambda: blocked.__setitem__(joint, True))
        freed_s = at_s + self.random.choice([0.3, 1.0, 3.0])
        self.script.at(freed_s, "free", lambda: blocked.__setitem__(joint, False))

    def _silence(self, at_s: float) -> None:
        lasts_s = self.random.choice([0.1, 0.25, 0.5, 2.0, 5.0])

        def begin() -> None:
            if not (self.lying or self.guided):
                self.silent = True
                self.world.lie = lambda *_: None

        def end() -> None:
            self.silent = False
            if not self.lying:
                self.world.lie = truth

        self._add(at_s, f"joint states silent for {lasts_s} s", begin)
        self.script.at(at_s + lasts_s, "joint states again", end)

    def _partial(self, at_s: float) -> None:
        """One message in three is left out."""

        def sparse(position: Doubles, _: float) -> Doubles | None:
            return position if self.random.random() < 0.66 else None

        def begin() -> None:
            if self.world.lie is truth:
                self.world.lie = sparse

        self._add(at_s, "every third message is lost", begin)

    def _camera(self, at_s: float) -> None:
        self._add(at_s, "no camera", lambda: setattr(self.world, "camera", False))
        back = at_s + self.random.uniform(0.1, 2.0)
        self.script.at(back, "camera", lambda: setattr(self.world, "camera", True))

    def _clock(self, at_s: float) -> None:
        step_s = self.random.choice([-1, 1]) * self.random.choice([0.06, 0.2, 1.0, 30.0])

        def step() -> None:
            self.world.clock.offset_ns += int(step_s * 1e9)

        self._add(at_s, f"the clock is set by {step_s} s", step)

    def _foreign_clock(self, _: float) -> None:
        """From the beginning: the sensors are on another machine."""
        skew_s = self.random.uniform(-0.2, 0.2)
        self.told.append(f"0.00 s sensors on a clock of their own, {skew_s:.2f} s away")
        self.world.sensor_offset_ns = self.world.clock.offset_ns + int(skew_s * 1e9)

    def _stop(self, at_s: float) -> None:
        times = self.random.randint(1, 3)

        def stop() -> None:
            self.world.loop.stop()
            self.judge.stopped()

        for number in range(times):
            self._add(at_s + 0.2 * number, "stop", stop)
        self._add(at_s + 0.2 * times + self.random.uniform(0.0, 1.0), "resume", self._resume)

    def _resume(self) -> None:
        if not self.guided:
            self.world.loop.resume()

    def _hand(self, at_s: float) -> None:
        """A person moves the stopped arm, no faster than it could by itself."""
        world, goal = self.world, np.clip(HOME + self.random.uniform(-1.0, 1.0), LOW + 0.05, HIGH - 0.05)

        mine: list[bool] = []

        def guide() -> None:
            if not mine:
                return
            world.arm.following = False
            most = 0.8 * SPEED * TICK_S
            world.arm.position = world.arm.position + np.clip(goal - world.arm.position, -most, most)
            world.arm.rest()

        def stop() -> None:
            """A robot whose sensors are not well is not moved by hand: that is for people and ~/reset_guard."""
            well = not (self.lying or self.silent or self.guided) and world.buffer.fault() is None
            if well or mine:
                mine.append(True)
                world.loop.stop()
                self.judge.stopped()
                self.guided = True

        def release() -> None:
            if mine:
                mine.clear()
                world.arm.following, self.guided = True, False

        self._add(at_s, "stopped and moved by hand", stop)
        for tick in range(60):
            self.script.at(at_s + 0.02 + tick * TICK_S, "", guide)
        self.script.at(at_s + 0.7, "stop again", stop)
        self.script.at(at_s + 0.75, "hand off", release)
        self._add(at_s + 0.8, "resume", self._resume)

    def _instruction(self, at_s: float) -> None:
        def say() -> None:
            self._choose_target()
            self.world.loop.restart()

        self._add(at_s, "another instruction", say)

    def _hang(self, at_s: float) -> None:
        lasts_s = self.random.choice([0.5, 1.5, 4.0, 7.0])
        before = self.world.engine.latency_s
        self._add(
            at_s, f"inference takes {lasts_s} s", lambda: setattr(self.world.engine, "latency_s", lasts_s)
        )
        self.script.at(
            at_s + 0.3, "as fast as before", lambda: setattr(self.world.engine, "latency_s", before)
        )

    def _wild(self, at_s: float) -> None:
        self._add(at_s, "the model is wild", lambda: setattr(self, "wild", 1.0))

    def _add(self, at_s: float, what: str, call: Callable[[], None]) -> None:
        self.told.append(f"{at_s:.2f} s {what}")
        self.script.at(at_s, what, call)


@dataclass
class Found:
    """What all histories came to."""

    histories: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def run(first_seed: int, histories: int, most_problems: int = 20, *, wheels: bool = False) -> Found:
    """Play that many histories, one seed each; stop after `most_problems` histories that went wrong.

    wheels: the arm is on a base that is commanded by velocity.
    """
    found = Found()
    for seed in range(first_seed, first_seed + histories):
        history = History(seed, wheels=wheels)
        problems = history.play()
        found.histories += 1
        found.counts += history.judge.counts
        found.counts["watchdog"] += len(history.world.barks)
        if problems:
            said = "\n    ".join(problems[:4])
            found.problems.append(f"seed {seed}: {'; '.join(sorted(history.told))}\n    {said}")
        if len(found.problems) >= most_problems:
            break
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Play, say what was found, and return 1 where something was."""
    options = parser(__doc__ or "")
    options.add_argument("--histories", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--wheels", action="store_true", help="the arm is on a base that is commanded by velocity"
    )
    chosen = options.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    began = time.perf_counter()
    found = run(chosen.seed, chosen.histories, wheels=chosen.wheels)
    took_s = time.perf_counter() - began
    for problem in found.problems:
        print(problem)
    print(
        f"{found.histories} histories in {took_s:.0f} s: {found.counts['chunk']} chunks, {found.counts['hold']} holds,"
        f" {found.counts['watchdog']} times the watchdog; {len(found.problems)} histories with a problem"
    )
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
