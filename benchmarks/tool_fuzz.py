# SPDX-License-Identifier: Apache-2.0
"""Random chunks through the guard of a robot whose tool and bodies are limited, and the motion that is executed, every millisecond.

    python -m benchmarks.tool_fuzz --chunks 20000 --seed 0

Each history is one arm with limits of its own (speed, turning, box, planes, bodies that must stay apart, with and without limits
of acceleration) that starts somewhere. Its chunks are from smooth to every joint saturated, arrive late by a random time, and
some histories are held at a random moment. Guard, hand-over and holds are the product's; what is executed is judged by
tool_judge.py, which shares no code with them.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.measure import finish, parser
from benchmarks.tool_judge import Body, Robot, ends, least_gap
from reflex_core.chunks.handover import Handover
from reflex_core.chunks.interpolation import Bounds, Doubles, Spline
from reflex_core.chunks.tool_motion import ToolMotion
from reflex_core.errors import ReflexError
from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.callers import ROS
from reflex_core.robot.kinematics.capsules import Capsule
from reflex_core.robot.kinematics.description import Kinematics
from reflex_core.robot.kinematics.tree import tree_of
from reflex_core.robot.limits.history import Moment
from reflex_core.robot.limits.limits import Limits
from reflex_core.robot.limits.safety_config import CLIP, SCALE
from reflex_core.robot.limits.tool_limits import Plane, ToolLimits, ToolRules
from reflex_core.values import HOLD, ActionChunk, Floats, Inference, Observation, Request, Served
from reflex_core.wedges.guard import Guard

URDF = Path(__file__).parents[1] / "test" / "fixtures" / "urdf" / "arm7.urdf"
NAMES = tuple(f"joint{number}" for number in range(1, 8))
TOOL = "link8"
LOW = np.array([-2.89, -1.76, -2.89, -3.07, -2.89, -0.01, -2.89])
HIGH = np.array([2.89, 1.76, 2.89, -0.07, 2.89, 3.75, 2.89])
FASTEST = np.array([2.175] * 4 + [2.61] * 3)
BODIES = (
    Body("base", (0.0, 0.0, 0.0), (0.0, 0.0, 0.25), 0.10),
    Body("link2", (0.0, 0.0, 0.0), (0.0, -0.25, 0.0), 0.07),
    Body("link4", (0.0, 0.0, 0.0), (-0.08, 0.2, 0.0), 0.06),
    Body("link5", (0.0, 0.0, -0.2), (0.0, 0.0, -0.05), 0.06),
    Body("link6", (0.0, 0.0, 0.0), (0.08, 0.0, 0.0), 0.06),
    Body("link8", (0.0, 0.0, 0.0), (0.0, 0.0, 0.1), 0.06),
)
PAIRS = ((0, 2), (0, 3), (0, 4), (0, 5), (1, 3), (1, 4), (1, 5), (2, 5))
START_NS, MS = 10**12, 10**6
TOLERANCE = 1e-6  # of what is judged: the samples are doubles a millisecond apart


def kinematics() -> Kinematics:
    """The arm as the product sees it."""
    links = tuple(dict.fromkeys((TOOL, *(body.link for body in BODIES))))
    capsules = tuple(Capsule(one.link, np.array(one.start), np.array(one.end), one.radius) for one in BODIES)
    return Kinematics(tree_of(URDF.read_bytes(), str(URDF), NAMES, links), TOOL, capsules, PAIRS)


@dataclass
class Found:
    """What all histories came to. worst: of each limit, how far the executed motion was beyond it, negative inside."""

    chunks: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Judge:
    """What the executed motion does, by the robot's URDF alone."""

    def __init__(self) -> None:
        self.robot = Robot(URDF, NAMES)
        self.links = tuple(dict.fromkeys((TOOL, *(body.link for body in BODIES))))

    def beyond(self, q: Doubles, rules: ToolRules) -> dict[str, float]:
        """How far a motion q (n, 7), a millisecond between two rows, is beyond each limit; m, m/s, rad/s."""
        frames = self.robot.frames(q, self.links)
        origin, turn = frames[TOOL]
        found = {
            "box": max(float((rules.box_min - origin).max()), float((origin - rules.box_max).max())),
            "distance": max(
                rules.distance_m - least_gap(BODIES[one], BODIES[other], frames) for one, other in PAIRS
            ) if rules.distance_m is not None else -np.inf,
        }  # fmt: skip
        for plane in rules.planes:
            above = [origin @ plane.normal]
            for body in BODIES[1:]:
                above += [end @ plane.normal - body.radius for end in ends(body, frames)]
            found["plane"] = max(found.get("plane", -np.inf), plane.offset_m - float(np.min(above)))
        if len(q) > 1:
            found["speed"] = (
                float(np.linalg.norm(np.diff(origin, axis=0), axis=1).max()) * 1e3 - rules.speed_max
            )
            # the chord of two unit quaternions, up to their sign, is twice the sine of a quarter of the angle
            apart = np.minimum(*(np.linalg.norm(turn[1:] + sign * turn[:-1], axis=1) for sign in (1.0, -1.0)))
            found["turning"] = float((4.0 * np.arcsin(apart / 2.0)).max()) * 1e3 - rules.turning_max
        return found


class History:
    """One arm from its start through some chunks."""

    def __init__(self, seed: int, known: Kinematics, judge: Judge) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.judge, self.now_ns = judge, START_NS
        self.dt_s = float(rng.choice([0.02, 0.05, 0.05, 0.1]))
        self.rules = self._rules()
        acceleration = np.full(7, np.inf) if rng.random() < 0.6 else np.full(7, rng.uniform(4.0, 15.0))
        tool = ToolLimits(known, self.rules, np.fmax(np.abs(LOW), np.abs(HIGH)))
        none = np.zeros(7, np.bool_)
        self.limits = Limits(NAMES, LOW, HIGH, FASTEST, acceleration, none, none, tool=tool, together=True)
        bounds = Bounds(LOW, HIGH, FASTEST, np.ones(7, np.bool_), np.full(7, np.nan))
        self.guard = Guard(
            self.limits, np.arange(7), Metrics(), "arm7", str(rng.choice([CLIP, SCALE])), 0, monotonic_ns=lambda: self.now_ns
        )  # fmt: skip
        self.handover = Handover(
            bounds, self._where, lambda: 0.3, tool=ToolMotion(self.limits, tool, bounds, self.dt_s)
        )
        self.place = self._start()
        self.motion: Spline | None = None
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.worst: dict[str, float] = {}

    def _rules(self) -> ToolRules:
        rng = self.rng
        box = rng.random() < 0.7
        low, high = np.full(3, -np.inf), np.full(3, np.inf)
        if box:
            low = np.array([rng.uniform(-0.7, 0.0), rng.uniform(-0.7, -0.2), rng.uniform(-0.1, 0.2)])
            high = np.array([rng.uniform(0.4, 0.8), rng.uniform(0.2, 0.7), rng.uniform(0.6, 1.1)])
        planes: tuple[Plane, ...] = ()
        if rng.random() < 0.6:
            normal = np.array([*rng.uniform(-0.2, 0.2, 2), 1.0])
            planes = (Plane(normal / np.linalg.norm(normal), float(rng.uniform(-0.1, 0.05))),)
        return ToolRules(
            speed_max=float(rng.uniform(0.2, 1.7)), turning_max=float(rng.uniform(0.8, 5.0)), box_min=low, box_max=high,
            planes=planes, distance_m=float(rng.uniform(0.0, 0.03)) if rng.random() < 0.8 else None,
        )  # fmt: skip

    def _start(self) -> Doubles:
        while True:
            q = self.rng.uniform(LOW, HIGH)
            if all(far <= -0.002 for far in self.judge.beyond(q[None], self.rules).values()):
                return q

    def _where(self, now_ns: int) -> Doubles | None:
        commanded = self.guard.commands.place(Moment(now_ns, now_ns))
        return self.place if commanded is None else commanded

    def _at(self, now_ns: int) -> Doubles:
        return self.place if self.motion is None else self.motion.at(now_ns)[0]

    def _chunk(self) -> Floats:
        """(rows, 7): smooth, steps, noise, or from end to end, also far outside the joints' own ranges."""
        rng, rows = self.rng, int(self.rng.integers(2, 51))
        at, kind = self._at(self.now_ns), int(self.rng.integers(5))
        each = np.arange(1.0, rows + 1.0)[:, None]
        if kind == 0:
            actions = at + rng.uniform(0.01, 1.0) * rng.uniform(0.1, 1.0, 7) * np.sin(
                each * rng.uniform(0.01, 0.3, 7)
            )
        elif kind == 1:
            actions = at + np.cumsum(rng.normal(size=(rows, 7)) * FASTEST * self.dt_s, axis=0)
        elif kind == 2:
            actions = at + np.cumsum(
                np.repeat(rng.uniform(-1.5, 1.5, (rows // 5 + 1, 7)), 5, axis=0)[:rows] * FASTEST * self.dt_s,
                axis=0,
            )
        elif kind == 3:
            actions = at + (rng.uniform(LOW, HIGH) - at) * np.minimum(each / rng.uniform(1.0, 40.0), 1.0)
        else:
            actions = np.where(rng.random((rows, 7)) < 0.5, LOW - 1.0, HIGH + 1.0)
        return actions.astype(np.float32)

    def play(self, chunks: int) -> None:
        """Answer, execute and judge so many chunks."""
        for _ in range(chunks):
            self.answer(self._chunk())
            self.execute(float(self.rng.uniform(0.05, 1.5)))
            if self.rng.random() < 0.1:
                self.hold("held")
                self.execute(float(self.rng.uniform(0.05, 1.0)))

    def answer(self, actions: Floats) -> None:
        """Do what the chunk loop does with one answer."""
        stamp_ns = self.now_ns
        seen = Observation({}, self._at(stamp_ns).astype(np.float32), "reach", stamp_ns)
        newest = lambda: replace(seen, state=self._at(self.now_ns).astype(np.float32))  # noqa: E731
        request = Request(seen, stamp_ns, f"{stamp_ns}", "episode", newest=newest, caller=ROS)
        chunk = ActionChunk(actions, NAMES, self.dt_s)
        answer = Served(
            chunk, actions, request.request_id, "episode", 0, "prod", "model", Inference("onnx_cpu", 10, 10)
        )
        try:
            served = self.guard(request, lambda _: answer)
            self.execute(float(self.rng.uniform(0.0, 0.15)))
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
        self.counts[
            served.chunk.source
            if served.chunk.source == HOLD
            else "clamped"
            if served.guard.clamped
            else "clean"
        ] += 1
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
        if self.motion is None:
            return
        q = self.motion.sampled(times_ns)
        for what, far in self.judge.beyond(q, self.rules).items():
            self.worst[what] = max(self.worst.get(what, -np.inf), far)
            if far > TOLERANCE:
                self.problems.append(f"{what} beyond by {far:.4g}")


def run(first_seed: int, chunks: int, each: int = 6, most_problems: int = 20) -> Found:
    """Play histories, one seed each, until so many chunks were answered; stop after `most_problems` that went wrong."""
    found, known, judge, seed = Found(), kinematics(), Judge(), first_seed
    while found.chunks < chunks and len(found.problems) < most_problems:
        history = History(seed, known, judge)
        history.play(each)
        found.chunks += each
        found.counts += history.counts
        for what, far in history.worst.items():
            found.worst[what] = max(found.worst.get(what, -np.inf), far)
        if history.problems:
            found.problems.append(f"seed {seed}: {'; '.join(history.problems[:4])}")
        seed += 1
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Play, print what was found, and return 1 where something was beyond a limit."""
    options = parser(__doc__ or "")
    options.add_argument("--chunks", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    began = time.perf_counter()
    found = run(chosen.seed, chosen.chunks)
    took_s = time.perf_counter() - began
    for problem in found.problems:
        print(problem)
    print(
        f"{found.chunks} chunks in {took_s:.0f} s: {dict(found.counts)}; {len(found.problems)} histories with a problem"
    )
    print(
        "nearest to each limit (negative: inside):",
        {what: round(far, 6) for what, far in found.worst.items()},
    )
    finish(
        "tool_fuzz",
        {"chunks": found.chunks, "counts": dict(found.counts), "worst": found.worst},
        chosen.output,
    )
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
