# SPDX-License-Identifier: Apache-2.0
"""Random chunks through the guard of a robot whose tool and bodies are limited, and the motion that is executed, every millisecond.

    python -m benchmarks.tool_fuzz --chunks 20000 --seed 0

Each history is one robot of tool_robots.py with limits of its own (speed, turning, box, planes, bodies that must stay apart, with
and without limits of acceleration) that starts inside, as near to a limit as it gets, or outside. Its chunks are from smooth to
every joint saturated, arrive late by a random time, and some histories are held, or moved by others, at a random moment. Guard,
hand-over and holds are the product's; what is executed is judged by tool_judge.py, which shares no code with them. A robot that
starts outside may come back, and go no further out than it has been.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import Pool

import numpy as np

from benchmarks.measure import finish, parser
from benchmarks.tool_judge import Doubles
from benchmarks.tool_robots import MACHINES, SHARES, overlaps, places, random_acceleration, random_rules
from reflex_core.chunks.handover import Handover
from reflex_core.chunks.interpolation import Bounds, Spline
from reflex_core.chunks.tool_motion import ToolMotion
from reflex_core.errors import ReflexError
from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.callers import ROS
from reflex_core.robot.limits.history import Moment
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.safety_config import CLIP, REJECT, SCALE
from reflex_core.robot.limits.tool import OUTWARD_M
from reflex_core.robot.limits.tool_limits import Plane, ToolLimits
from reflex_core.values import HOLD, ActionChunk, Floats, Inference, Observation, Request, Served
from reflex_core.wedges.guard import Guard

BATCH = 120  # chunks that a process plays at a time
START_NS, MS = 10**12, 10**6
TOLERANCE = 1e-6  # of what is judged: the samples are doubles a millisecond apart
INSIDE, NEAR, OUTSIDE = "inside", "near", "outside"
STARTS = (0.55, 0.25, 0.2)  # of the histories
TRIED = 64  # positions, in which one that starts inside is looked for; then the limits are moved
SPARE_M = 0.002  # by which one that starts inside is so


@dataclass
class Found:
    """What all histories came to. worst: of each limit, how far the executed motion was beyond it, negative inside."""

    chunks: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Take in what others came to."""
        self.chunks += other.chunks
        self.counts += other.counts
        for what, far in other.worst.items():
            self.worst[what] = max(self.worst.get(what, -np.inf), far)
        self.problems += other.problems


class History:
    """One robot from its start through some chunks."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.machine = machine = MACHINES[int(rng.choice(len(MACHINES), p=SHARES))]
        self.now_ns, self.dim = START_NS, len(machine.names)
        self.dt_s = float(rng.choice([0.02, 0.05, 0.05, 0.1]))
        self.place = rng.uniform(*machine.range)
        self.rules = random_rules(rng)
        self._begin(str(rng.choice((INSIDE, NEAR, OUTSIDE), p=STARTS)))
        acceleration = random_acceleration(rng, machine)
        tool = ToolLimits(
            machine.kinematics(), self.rules, np.fmax(np.abs(machine.low), np.abs(machine.high))
        )
        gripper, none = np.array(machine.gripper), np.zeros(self.dim, np.bool_)
        fastest = np.where(gripper, np.inf, machine.fastest)
        self.limits = Limits(
            machine.names, machine.low, machine.high, fastest, acceleration, none, gripper, tool=tool, together=True
        )  # fmt: skip
        bounds = Bounds(machine.low, machine.high, fastest, ~gripper, np.full(self.dim, np.nan))
        mode = str(rng.choice([CLIP, SCALE, REJECT], p=[0.45, 0.45, 0.1]))
        self.guard = Guard(
            self.limits, np.arange(self.dim), Metrics(), "robot", mode, 0, monotonic_ns=lambda: self.now_ns
        )
        self.handover = Handover(
            bounds, self._where, lambda: 0.3, tool=ToolMotion(self.limits, tool, bounds, self.dt_s)
        )
        self.motion: Spline | None = None
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.worst: dict[str, float] = {}
        self.least = np.full(
            0, np.inf
        )  # of every limit of place, how far beyond it the robot has been at least
        self.least_apart = np.full(0, np.inf)
        self._judged_from_here()

    def _begin(self, where: str) -> None:
        """Find a start, and fit the limits to it: those of place are then `where` from it."""
        if where == INSIDE:
            drawn = self.rng.uniform(*self.machine.range, (TRIED, self.dim))
            inside = [(far <= -SPARE_M).all(axis=0) for far in self._beyond(drawn, every=True)]
            for at in np.flatnonzero(np.logical_and(*inside))[:1]:
                self.place = drawn[at]
                return
        self._fit(where)

    def _fit(self, where: str) -> None:
        """Move each limit of place to the start: inside by SPARE_M or more, at most by that, or outside at some limits."""
        rng, machine, rules = self.rng, self.machine, self.rules
        frames = machine.frames(self.place[None])
        at = frames[machine.tool][0][0]

        def spare() -> float:
            if where == INSIDE:
                return SPARE_M
            if where == NEAR:
                return float(rng.uniform(0.0, SPARE_M) * rng.choice([0.0, 0.1, 1.0]))
            return float(-rng.uniform(0.0, 0.05) if rng.random() < 0.5 else rng.uniform(0.0, SPARE_M))

        touched = [rng.random() < 0.4 for _ in range(6)]
        low, high = rules.box_min.copy(), rules.box_max.copy()
        if np.isfinite(low).all():
            for axis in range(3):
                low[axis] = at[axis] - spare() if touched[axis] else min(low[axis], at[axis] - SPARE_M)
                high[axis] = at[axis] + spare() if touched[3 + axis] else max(high[axis], at[axis] + SPARE_M)
                high[axis] = max(high[axis], low[axis] + 0.01)
        alone = [
            replace(rules, box_min=low * np.inf, box_max=high * np.inf, planes=(plane,))
            for plane in rules.planes
        ]
        planes = []
        for plane, one in zip(rules.planes, alone, strict=True):
            lacking = float(places(machine, frames, one)[1].max())  # > 0: it is beyond by so much
            shift = lacking + spare()
            planes.append(
                Plane(plane.normal, plane.offset_m - (shift if rng.random() < 0.7 else max(shift, 0.0)))
            )
        distance = rules.distance_m
        if distance is not None:
            apart = float(-overlaps(machine, frames, 0.0, every=False).max())
            distance = max(min(distance, apart - SPARE_M) if where == INSIDE else apart - spare(), 0.0)
            if where != OUTSIDE and apart < distance:
                distance = None
        self.rules = replace(rules, box_min=low, box_max=high, planes=tuple(planes), distance_m=distance)

    def _beyond(self, q: Doubles, *, every: bool = False) -> tuple[Doubles, Doubles]:
        """How far q (n, d) is beyond the limits of place: (c, n) those of points, and (p, n) the distances, (p, 1) if not `every` one."""
        frames = self.machine.frames(q)
        apart = np.zeros((0, len(q)))
        if self.rules.distance_m is not None:
            apart = overlaps(self.machine, frames, self.rules.distance_m, every=every)
        return places(self.machine, frames, self.rules)[1], apart

    def _judged_from_here(self) -> None:
        """Take it that nothing but what is executed from now on can be the guard's doing."""
        far, apart = self._beyond(self._at(self.now_ns)[None])
        self.least, self.least_apart = far.max(axis=1, initial=-np.inf), apart.max(axis=1, initial=-np.inf)

    def _where(self, now_ns: int) -> Doubles | None:
        commanded = self.guard.commands.place(Moment(now_ns, now_ns))
        return self.place if commanded is None else commanded

    def _at(self, now_ns: int) -> Doubles:
        return self.place if self.motion is None else self.motion.at(now_ns)[0]

    def _chunk(self) -> Floats:
        """(rows, d): smooth, steps, noise, from end to end, also far outside the joints' own ranges, over the nearest limit, standing still."""
        rng, rows, dim = self.rng, int(self.rng.integers(2, 51)), self.dim
        at, kind, fastest = self._at(self.now_ns), int(self.rng.integers(7)), self.machine.fastest
        low, high = self.machine.range
        each = np.arange(1.0, rows + 1.0)[:, None]
        if kind == 0:
            actions = at + rng.uniform(0.01, 1.0) * rng.uniform(0.1, 1.0, dim) * np.sin(
                each * rng.uniform(0.01, 0.3, dim)
            )
        elif kind == 1:
            actions = at + np.cumsum(rng.normal(size=(rows, dim)) * fastest * self.dt_s, axis=0)
        elif kind == 2:
            steps = np.repeat(rng.uniform(-1.5, 1.5, (rows // 5 + 1, dim)), 5, axis=0)[:rows]
            actions = at + np.cumsum(steps * fastest * self.dt_s, axis=0)
        elif kind == 3:
            actions = at + (rng.uniform(low, high) - at) * np.minimum(each / rng.uniform(1.0, 40.0), 1.0)
        elif kind == 4:
            actions = np.where(rng.random((rows, dim)) < 0.5, low - 1.0, high + 1.0)
        elif kind == 5:
            actions = at + self._over(at) * (each % rng.choice([2, 3, 7]) > 0.5)
        else:
            actions = at + rng.normal(size=(rows, dim)) * rng.choice([0.0, 1e-6, 1e-3])
        gripper = np.array(self.machine.gripper)
        actions = np.where(gripper, rng.random((rows, dim)) < 0.5, actions)
        return actions.astype(np.float32)

    def _over(self, at: Doubles) -> Doubles:
        """(d,) a move of all joints that ends as near to the nearest limit as it begins; between, it may be beyond."""
        steps = np.concatenate([np.zeros((1, self.dim)), 1e-5 * np.eye(self.dim)])
        far = np.concatenate(self._beyond(at + steps, every=True))
        move = self.rng.uniform(-1.0, 1.0, self.dim) * self.machine.fastest * self.dt_s
        if not len(far):
            return move
        nearest = int(far[:, 0].argmax())
        gradient = (far[nearest, 1:] - far[nearest, 0]) / 1e-5
        for _ in range(4):
            end = np.concatenate(self._beyond((at + move)[None], every=True))[nearest, 0]
            move = move - gradient * (end - far[nearest, 0]) / max(float(gradient @ gradient), 1e-6)
        return move

    def play(self, chunks: int) -> None:
        """Answer, execute and judge so many chunks."""
        for _ in range(chunks):
            self.answer(self._chunk())
            self.execute(float(self.rng.uniform(0.05, 1.5)))
            event = self.rng.random()
            if event < 0.1:
                self.hold("held")
                self.execute(float(self.rng.uniform(0.05, 1.0)))
            elif event < 0.15:
                self.moved()

    def moved(self) -> None:
        """Let others move the robot while it is not commanded, to where it may be."""
        self.counts["moved"] += 1
        self.guard.commands.end()
        self.handover.forget()
        self.place, self.motion = self._at(self.now_ns), None
        nearby = np.clip(self.place + self.rng.normal(size=self.dim) * 0.05, *self.machine.range)
        nearby = np.where(np.array(self.machine.gripper), self.place, nearby)
        if all((far <= 0.0).all() for far in self._beyond(nearby[None])):
            self.place = nearby
        self._judged_from_here()

    def answer(self, actions: Floats) -> None:
        """Do what the chunk loop does with one answer."""
        stamp_ns = self.now_ns
        seen = Observation({}, self._at(stamp_ns).astype(np.float32), "reach", stamp_ns)
        newest = lambda: replace(seen, state=self._at(self.now_ns).astype(np.float32))  # noqa: E731
        request = Request(seen, stamp_ns, f"{stamp_ns}", "episode", newest=newest, caller=ROS)
        chunk = ActionChunk(actions, self.machine.names, self.dt_s)
        answer = Served(
            chunk, actions, request.request_id, "episode", 0, "prod", "model", Inference("onnx_cpu", 10, 10)
        )
        try:
            served = self.guard(request, lambda _: answer)
            self.execute(float(self.rng.uniform(0.0, 0.15 if self.rng.random() < 0.9 else 1.0)))
            start = max((self.now_ns - stamp_ns) // round(self.dt_s * 1e9), 0)
            if start >= len(actions):
                self.guard.commands.forget()
                self.counts["late"] += 1
                return
            led = self.handover.led(served.chunk, stamp_ns, start, self.now_ns)
            served = self.guard.rejoined(request, served, start, led)
        except ReflexError:
            self.hold("impossible")
            return
        clamped = "clamped" if served.guard.clamped else "clean"
        self.counts[served.chunk.source if served.chunk.source == HOLD else clamped] += 1
        if served.chunk.source == HOLD:
            self.hold("")
        elif not self.handover.keeps_tool(served.chunk, stamp_ns, start, self.now_ns):
            self.hold("kept back")
        else:
            self._take(self.handover.take_over(served.chunk, stamp_ns, start, self.now_ns))
            self.guard.commands.executed()

    def hold(self, why: str) -> None:
        """Do what the node does for a hold."""
        if why:
            self.counts[why] += 1
        self.guard.commands.forget()
        moment = Moment(self.now_ns, self.now_ns)
        held = self.guard.commands.hold(self._at(self.now_ns).astype(np.float32), None, moment, self.dt_s)
        if held is None:
            self.problems.append("there is no hold")
            return
        self._take(self.handover.hold(held, self.now_ns))

    def _take(self, motion: Spline) -> None:
        self.place = self._at(self.now_ns)
        # a controller whose command is known to us begins where that is
        self.motion = motion

    def execute(self, seconds: float) -> None:
        """Let time pass, and judge the motion of every millisecond of it."""
        times_ns = self.now_ns + np.arange(int(seconds * 1e3) + 1) * MS
        self.now_ns = int(times_ns[-1])
        if self.motion is not None:
            self._judge(self.motion.sampled(times_ns))

    def _judge(self, q: Doubles) -> None:
        machine, rules = self.machine, self.rules
        frames = machine.frames(q)
        names, far = places(machine, frames, rules)
        self._no_further(names, far, self.least)
        if rules.distance_m is not None:
            apart = overlaps(machine, frames, rules.distance_m, every=bool((self.least_apart > 0.0).any()))
            self._no_further(["distance"] * len(apart), apart, self.least_apart)
        origin, turn = frames[machine.tool]
        if len(q) > 1 and np.isfinite(rules.speed_max):
            speed = float(np.linalg.norm(np.diff(origin, axis=0), axis=1).max()) * 1e3
            self._note("speed", speed - rules.speed_max, 0.0)
        if len(q) > 1 and np.isfinite(rules.turning_max):
            # the chord of two unit quaternions, up to their sign, is twice the sine of a quarter of the angle
            apart = np.minimum(*(np.linalg.norm(turn[1:] + sign * turn[:-1], axis=1) for sign in (1.0, -1.0)))
            self._note("turning", float((4.0 * np.arcsin(apart / 2.0)).max()) * 1e3 - rules.turning_max, 0.0)

    def _no_further(self, names: Sequence[str], far: Doubles, least: Doubles) -> None:
        """Judge limits of place far (c, n). least: (c,) how far the robot was beyond each at least, brought up to date."""
        before = np.minimum.accumulate(np.concatenate([least[:, None], far], axis=1), axis=1)
        further = far - np.maximum(before[:, :-1], 0.0)
        for name, beyond, was in zip(names, further.max(axis=1, initial=-np.inf), least, strict=True):
            self._note(
                f"{name} of one outside" if was > 0.0 else name,
                float(beyond),
                OUTWARD_M if was > 0.0 else 0.0,
            )
        least[:] = before[:, -1]

    def _note(self, what: str, far: float, allowed: float) -> None:
        self.worst[what] = max(self.worst.get(what, -np.inf), far)
        if far > allowed + TOLERANCE:
            self.problems.append(f"{what} beyond by {far:.4g}")


def run(first_seed: int, chunks: int, each: int = 6, most_problems: int = 20) -> Found:
    """Play histories, one seed each, until so many chunks were answered; stop after `most_problems` that went wrong."""
    found = Found()
    for seed in range(first_seed, first_seed + -(-chunks // each)):
        if len(found.problems) >= most_problems:
            break
        history = History(seed)
        history.play(each)
        found.add(Found(each, history.counts, history.worst))
        if history.problems:
            found.problems.append(f"seed {seed} ({history.machine.urdf}): {'; '.join(history.problems[:4])}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Play, print what was found, and return 1 where something was beyond a limit."""
    options = parser(__doc__ or "")
    options.add_argument("--chunks", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--processes", type=int, default=1, help="that share the chunks (default: %(default)s)"
    )
    chosen = options.parse_args(arguments)
    began = time.perf_counter()
    found = Found()
    shares = -(-chosen.chunks // BATCH)
    seeds = [chosen.seed + BATCH * number for number in range(shares)]
    with Pool(chosen.processes, logging.disable, (logging.CRITICAL,)) as pool:
        for one in pool.imap_unordered(_batch, seeds):
            found.add(one)
            for problem in one.problems:
                print(problem, flush=True)
            if found.chunks % (10 * BATCH) == 0:
                print(f"{found.chunks} chunks, {len(found.problems)} problems", file=sys.stderr, flush=True)
    took_s = time.perf_counter() - began
    print(
        f"{found.chunks} chunks in {took_s:.0f} s: {dict(found.counts)}; {len(found.problems)} histories with a problem"
    )
    print(
        "nearest to each limit (negative: inside):",
        {what: round(far, 6) for what, far in sorted(found.worst.items())},
    )
    finish(
        "tool_fuzz",
        {"chunks": found.chunks, "counts": dict(found.counts), "worst": found.worst},
        chosen.output,
    )
    return 1 if found.problems else 0


def _batch(first_seed: int) -> Found:
    return run(first_seed, BATCH)


if __name__ == "__main__":
    sys.exit(main())
