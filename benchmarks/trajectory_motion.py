# SPDX-License-Identifier: Apache-2.0
"""How an arm moves that follows a policy's chunks through joint_trajectory_controller, before and after the hand-over.

Simulated: the controller by its rules, of both eras and with both state settings, and an arm that lags 40 ms behind its
command. The path is 0.6 sin 1.6 t + 0.1 sin (4 t + 1): at most 1.34 rad/s and 2.8 rad/s^2. Rows of 20 Hz, 50 in a chunk,
from observations 120 ms old; every chunk is off by an offset of its own (0, 4, 20 mrad standard deviation) and arrives 1 to
9 ms after it was published. Before: positions, stamped with the observation. After: what the node publishes.

Worst of all seeds. Peak: acceleration of the command in rad/s^2. Jump: the largest change of the command in one update
around a hand-over, in mrad and in rad/s. Error: the arm against the path, in mrad, of which 53 are its lag.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.measure import finish, parser
from reflex_core.chunks.handover import Handover
from reflex_core.chunks.interpolation import Bounds, Doubles
from reflex_core.values import ActionChunk
from reflex_ros.demo.controllers.from_message import trajectory_of
from reflex_ros.demo.controllers.options import ERAS, LEGACY, ControllerOptions
from reflex_ros.demo.controllers.points import Trajectory, rows
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController
from reflex_ros.messages.chunks import trajectory_message

DT_S, ROWS, AGE_S, LAG_S, FADE_S = 0.05, 50, 0.12, 0.04, 0.3
SECONDS, SETTLED_S, AROUND_S = 3.0, 0.8, 0.012
EPOCH_NS = 1_700_000_000 * 10**9
NAMES = ("joint",)
BEFORE, AFTER = "before", "after"
APART_RAD = (0.0, 0.004, 0.02)
REPLANS_HZ = (5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of run. hz: of the controller. desired: interpolate_from_desired_state."""

    way: str
    era: str
    desired: bool
    replan_hz: float
    apart_rad: float
    hz: int = 1000


@dataclass(frozen=True, slots=True)
class Motion:
    """What a run, or the worst of several, showed."""

    peak_rad_s2: float
    jump_rad: float
    jump_rad_s: float
    error_rad: float


def path(seconds: Doubles | float) -> Doubles:
    """Where the policy wants the joint, in rad."""
    at = np.asarray(seconds, np.float64)
    return np.asarray(0.6 * np.sin(1.6 * at) + 0.1 * np.sin(4.0 * at + 1.0))


class Policy:
    """Makes the messages of one run."""

    def __init__(self, case: Case, seed: int) -> None:
        self._case = case
        self._chance = np.random.default_rng(seed)
        self._handover = Handover(Bounds.unlimited(1), lambda _: path(0.0)[None], lambda: FADE_S)

    def message(self, now_s: float) -> tuple[float, Trajectory]:
        """Return when the trajectory that is published at `now_s` arrives, and the trajectory."""
        now_ns = EPOCH_NS + int(now_s * 1e9)
        observed_ns, elapsed = now_ns - int(AGE_S * 1e9), int(AGE_S / DT_S)
        actions = path(now_s - AGE_S + DT_S * np.arange(1, ROWS + 1))
        actions = (actions + self._chance.normal(0.0, self._case.apart_rad))[:, None]
        arrives_s = now_s + self._chance.uniform(0.001, 0.009)
        if self._case.way == BEFORE:
            return arrives_s, rows(observed_ns, NAMES, actions, DT_S, elapsed)
        chunk = ActionChunk(actions.astype(np.float32), NAMES, DT_S)
        chunk = self._handover.led(chunk, observed_ns, elapsed, now_ns)
        motion = self._handover.take_over(chunk, observed_ns, elapsed, now_ns)
        anchor = self._case.era == LEGACY
        return arrives_s, trajectory_of(
            trajectory_message(NAMES, motion, int(motion.times_ns[0]), anchor=anchor)
        )


def run(case: Case, seed: int) -> Motion:
    """Follow the path for SECONDS; what happens before SETTLED_S, the way there from rest, does not count."""
    period_s, policy = 1.0 / case.hz, Policy(case, seed)
    options = ControllerOptions(case.era, interpolate_from_desired_state=case.desired, velocity_state=False)
    measured = path(0.0)[None]
    controller = JointTrajectoryController(NAMES, measured, round(period_s * 1e9), options)
    commands, arm, arrivals = [], [], []
    due_s, under_way = AGE_S, list[tuple[float, Trajectory]]()
    for tick in range(int(SECONDS * case.hz)):
        now_s = tick * period_s
        if now_s >= due_s:
            due_s += 1.0 / case.replan_hz
            under_way.append(policy.message(now_s))
        while under_way and under_way[0][0] <= now_s:
            controller.set(EPOCH_NS + int(now_s * 1e9), under_way.pop(0)[1])
            arrivals.append(tick)
        command, _ = controller.sample(EPOCH_NS + int(now_s * 1e9), measured)
        measured = measured + (command - measured) * min(period_s / LAG_S, 1.0)
        commands.append(float(command[0]))
        arm.append(float(measured[0]))
    return judged(np.array(commands), np.array(arm), np.array(arrivals), case.hz)


def judged(commands: Doubles, arm: Doubles, arrivals: Doubles, hz: int) -> Motion:
    """Return the figures of one run from its commands and the arm's positions, one per update."""
    settled, around = int(SETTLED_S * hz), max(2, int(AROUND_S * hz))
    steps, turns = np.abs(np.diff(commands)), np.abs(np.diff(commands, n=2))
    borders = [int(tick) for tick in arrivals if settled <= tick < len(commands) - around]
    wanted = path(np.arange(1, len(arm) + 1) / hz)
    return Motion(
        float(turns[settled:].max()) * hz**2,
        max(float(steps[tick - 2 : tick + around].max()) for tick in borders),
        max(float(turns[tick - 2 : tick + around].max()) for tick in borders) * hz,
        float(np.abs(arm - wanted)[settled:].max()),
    )


def worst(case: Case, seeds: int) -> Motion:
    """Return the largest of each figure over all seeds."""
    found = [run(case, seed) for seed in range(seeds)]
    return Motion(
        max(one.peak_rad_s2 for one in found), max(one.jump_rad for one in found),
        max(one.jump_rad_s for one in found), max(one.error_rad for one in found),
    )  # fmt: skip


def row_of(era: str, desired: bool, way: str, replan_hz: float, seeds: int) -> Mapping[str, object]:
    """Return one line of the table."""
    kilohertz = [worst(Case(way, era, desired, replan_hz, apart), seeds) for apart in APART_RAD]
    slower = worst(Case(way, era, desired, replan_hz, APART_RAD[1], 100), seeds)
    middle = kilohertz[1]
    return {
        "era": era, "state": "desired" if desired else "measured", "chunks": way, "replan Hz": replan_hz,
        **{f"peak {1e3 * apart:g} mrad": one.peak_rad_s2 for apart, one in zip(APART_RAD, kilohertz, strict=True)},
        "peak 4 mrad, 100 Hz": slower.peak_rad_s2, "jump mrad": 1e3 * middle.jump_rad,
        "jump rad/s": middle.jump_rad_s, "error mrad": 1e3 * middle.error_rad,
        "error mrad, 100 Hz": 1e3 * slower.error_rad,
    }  # fmt: skip


def markdown(found: list[Mapping[str, object]]) -> str:
    """Return the rows as a table of the documentation, numbers with two significant digits or whole."""
    lines = ["| " + " | ".join(found[0]) + " |", "|" + "---|" * len(found[0])]
    lines += ["| " + " | ".join(map(shown, one.values())) + " |" for one in found]
    return "\n".join(lines)


def shown(value: object) -> str:
    """Return a cell."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}".replace(",", " ") if value >= 10.0 else f"{value:.2g}"


def main(argv: list[str] | None = None) -> int:
    """Run both eras with both state settings, before and after, and print the table."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--seeds", type=int, default=3, help="runs of each case")
    options = arguments.parse_args(argv)
    found = []
    for era in ERAS:
        for desired in (False, True):
            for replan_hz in REPLANS_HZ:
                for way in (BEFORE, AFTER):
                    found.append(row_of(era, desired, way, replan_hz, options.seeds))
                    print(".", end="", flush=True)
    print(f"\n{markdown(found)}")
    finish("trajectory_motion", {"rows": found}, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
