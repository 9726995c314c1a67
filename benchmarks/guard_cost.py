# SPDX-License-Identifier: Apache-2.0
"""What the guard adds to a request: chunks of 50 x 7, Franka limits, clean and dirty.

With and without acceleration, with a tool's speed, turning, box and a plane, and with those and the distances of eight pairs of bodies.
Then the processor time of a chunk that breaks nothing: without an episode, in one that begins, and in one that goes on.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.measure import finish, milliseconds, parser, percentiles, table
from benchmarks.tool_robots import ARM7
from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.limits.limits import Limits, effective_limits
from reflex_core.robot.limits.safety_config import CLIP, SCALE
from reflex_core.robot.limits.tool_limits import Plane, ToolLimits, ToolRules
from reflex_core.robot.presets import load_preset
from reflex_core.values import ActionChunk, Floats, Inference, Observation, Request, Served
from reflex_core.wedges.guard import Guard

HORIZON = 50
DT_S = 0.05
CALLS = 100  # per measurement of processor time: one call alone is near the resolution of the clock


def chunks(middle: Floats) -> dict[str, Floats]:
    """A chunk that breaks nothing, and what can be wrong with one, from little to everything."""
    clean = (middle + 0.3 * (1 - np.cos(np.arange(1, HORIZON + 1)[:, None] / 25))).astype(np.float32)
    step, outside, all_joints = clean.copy(), clean.copy(), clean.copy()
    step[20:, 3] += 0.5
    outside[20:, 3] += 5.0
    all_joints[20:] += 0.5
    wild = np.random.default_rng(0).normal(size=clean.shape) * 2
    return {
        "clean": clean,
        "one joint: a step": step,
        "one joint: out of range": outside,
        "every joint: a step": all_joints,
        "every joint, every row": wild.astype(np.float32),
    }


def calls_of(limits: Limits, mode: str) -> dict[str, Callable[[], object]]:
    """One call of a guard per chunk; each in an episode of its own, robot at rest in the middle of its ranges."""
    middle = ((limits.position_min + limits.position_max) / 2).astype(np.float32)
    guard = Guard(limits, np.arange(limits.dim), Metrics(), "franka", mode, 0)
    episodes = itertools.count()

    def call(actions: Floats) -> Callable[[], object]:
        served = Served(
            ActionChunk(actions, limits.names, DT_S),
            actions,
            "request",
            None,
            0,
            "prod",
            "model",
            Inference("onnx_cpu", 10, 10),
        )

        def once() -> object:
            observation = Observation({}, middle, "reach")
            request = Request(observation, time.monotonic_ns(), "request", f"episode-{next(episodes)}")
            return guard(request, lambda _: served)

        return once

    return {name: call(actions) for name, actions in chunks(middle).items()}


def clean_calls(limits: Limits) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """A call of a guard and the same without one, by what is known of the robot, for a chunk that breaks nothing."""
    middle = ((limits.position_min + limits.position_max) / 2).astype(np.float32)
    actions, observation = chunks(middle)["clean"], Observation({}, middle, "reach")
    chunk = ActionChunk(actions, limits.names, DT_S)
    served = Served(chunk, actions, "request", None, 0, "prod", "model", Inference("onnx_cpu", 10, 10))
    numbers = itertools.count()

    def pair(episode: Callable[[], str | None]) -> tuple[Callable[[], object], Callable[[], object]]:
        guard = Guard(limits, np.arange(limits.dim), Metrics(), "franka", CLIP, 0)

        def request() -> Request:
            return Request(observation, time.monotonic_ns(), "request", episode())

        return lambda: guard(request(), lambda _: served), request

    return {
        "no episode": pair(lambda: None),
        "a new episode": pair(lambda: f"episode-{next(numbers)}"),
        "in an episode": pair(lambda: "episode"),
    }


def clean_rows(limits: Limits, rounds: int) -> list[dict[str, object]]:
    """Processor time of the guard alone, medians of `rounds` measurements in turns."""
    calls = clean_calls(limits)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, (guarded, bare) in calls.items():
            found[name].append(cpu_us(guarded) - cpu_us(bare))
    return [{"clean chunk": name, "CPU us": percentiles(values)[0]} for name, values in found.items()]


def cpu_us(call: Callable[[], object]) -> float:
    """Processor time of this thread for one call, the mean of CALLS."""
    began = time.thread_time_ns()
    for _ in range(CALLS):
        call()
    return (time.thread_time_ns() - began) / CALLS / 1e3


def with_tool(limits: Limits, *, bodies: bool) -> Limits:
    """The limits with those of a tool. bodies: own bodies must stay apart and above the plane."""
    known = ARM7.kinematics()
    rules = ToolRules(
        speed_max=1.7, turning_max=6.0, box_min=np.array([-1.0, -1.0, -0.5]), box_max=np.array([1.0, 1.0, 1.5]),
        planes=(Plane(np.array([0.0, 0.0, 1.0]), -0.5),), distance_m=0.01 if bodies else None,
    )  # fmt: skip
    known = known if bodies else replace(known, capsules=(), pairs=())
    furthest = np.fmax(np.abs(limits.position_min), np.abs(limits.position_max))
    return replace(limits, tool=ToolLimits(known, rules, furthest), together=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON file. The calls take turns, so that noise hits all alike."""
    options = _options(arguments)
    log = logging.getLogger("reflex_core.wedges.guard")
    level = log.level
    log.setLevel(logging.ERROR)  # every repaired chunk would say so
    try:
        return _measured(options)
    finally:
        log.setLevel(level)


def _measured(options: argparse.Namespace) -> int:
    """What main does, quietly."""
    robot = load_preset("franka").without_gripper()
    slow = effective_limits(robot.joint_names, robot, None)
    assert slow is not None
    assert robot.acceleration_max is not None
    full = replace(slow, acceleration_max=robot.acceleration_max)
    rows = []
    kinds = {
        "position, velocity": slow, "and acceleration": full, "and tool": with_tool(slow, bodies=False),
        "and tool, bodies": with_tool(slow, bodies=True),
    }  # fmt: skip
    for checked, limits in kinds.items():
        for mode in (CLIP, SCALE):
            calls = calls_of(limits, mode)
            times: dict[str, list[float]] = {name: [] for name in calls}
            for turn in range(options.repeats + options.warm_up):
                for name, call in calls.items():
                    took_us = milliseconds(call) * 1e3
                    if turn >= options.warm_up:
                        times[name].append(took_us)
            for name, values in times.items():
                p50, p99 = percentiles(values)
                rows.append({"chunk": name, "checked": checked, "mode": mode, "p50 us": p50, "p99 us": p99})
    print(table(rows))
    clean = clean_rows(full, max(1, options.repeats // 50))
    print(f"\n{table(clean)}")
    finish("guard_cost", {"repeats": options.repeats, "rows": rows, "clean": clean}, options.output)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__ or "")
    made.add_argument("--repeats", type=int, default=1000, help="calls of each kind (default: %(default)s)")
    made.add_argument("--warm-up", type=int, default=50, help="calls before that (default: %(default)s)")
    return made.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
