# SPDX-License-Identifier: Apache-2.0
"""Closed loop with late chunks and a block that moves: the arm with and without the correction head.

The protocol is that of arXiv 2509.23224 and of real-time-chunking-kinetix: a chunk is asked for every `every` control steps
and is there `delay` steps later, while the robot goes on with the one before.

    python -m training.a2c2_loop models/reach_panda models/reach_panda/a2c2.npz --episodes 60
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reflex_core.chunks.a2c2.correction import Correction, load_correction
from reflex_core.chunks.a2c2.features import Moment
from reflex_core.chunks.smoothness import border_jump, jerk_rms
from reflex_core.policy.base import Policy
from reflex_core.policy.sampler import Sampling
from reflex_core.values import Floats, Observation
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.observations import look
from reflex_ros.demo.scene import (
    BLOCK_AREA_M,
    BLOCK_SPACING_M,
    SUCCESS_DISTANCE_M,
    Scene,
    distances_m,
    make_scene,
)
from training.a2c2_data import EULER_STEPS, move_block, open_policy
from training.evaluate import FIRST_HELD_OUT_SEED, wilson_interval

STEPS = 120
PUT_STEP = (40, 60)
EXECUTED_ROWS = 10
FROM_START, SKIP_STALE, ON_ARRIVAL, EVERY_STEP = (
    "from the start",
    "skip stale",
    "A2C2 on arrival",
    "A2C2 every step",
)
MODES = (FROM_START, SKIP_STALE, ON_ARRIVAL, EVERY_STEP)
PathOf = Callable[[Scene], NDArray[np.float64]]
DELAYS = (0, 2, 4, 6, 8, 10, 12)


@dataclass(frozen=True)
class Result:
    """One episode. reached: above the named block when it ends. jerk, jump: of the commands, rad/s^3 and rad."""

    reached: bool
    distance_m: float
    jerk: float
    jump: float


def straight_path(scene: Scene, speed_m_s: float, period_s: float) -> NDArray[np.float64]:
    """(STEPS, 2): the named block goes straight on and turns back at the table's edges."""
    low, high = np.transpose(BLOCK_AREA_M)
    block = scene.blocks[scene.target_index]
    angle = np.random.default_rng((scene.seed, 2)).uniform(0, 2 * np.pi)
    way = np.arange(STEPS)[:, None] * period_s * speed_m_s * np.array([np.cos(angle), np.sin(angle)])
    folded = np.mod(np.array([block.x_m, block.y_m]) + way - low, 2 * (high - low))
    return np.asarray(low + np.minimum(folded, 2 * (high - low) - folded))


def put_elsewhere_path(scene: Scene, seconds: float, period_s: float) -> NDArray[np.float64]:
    """(steps, 2): the named block stands still, is put where no other block is, and `seconds` later it is over."""
    low, high = np.transpose(BLOCK_AREA_M)
    generator = np.random.default_rng((scene.seed, 3))
    here = np.array([[block.x_m, block.y_m] for block in scene.blocks])
    while True:
        there = generator.uniform(low, high)
        if np.linalg.norm(here - there, axis=1).min() > BLOCK_SPACING_M:
            break
    before, after = int(generator.integers(*PUT_STEP)), round(seconds / period_s)
    return np.concatenate([np.tile(here[scene.target_index], (before, 1)), np.tile(there, (after, 1))])


@dataclass
class _Follow:
    """The chunk that is executed: requested at step `requested`, from observation `seen`, row 0 executed at `begun`."""

    actions: Floats
    seen: Observation
    requested: int
    begun: int


def run_episode(
    policy: Policy, correction: Correction, arm: Arm, seed: int, mode: str, delay: int, path_of: PathOf
) -> Result:
    """Every mode gets the same scene, block path and noise."""
    scene, binding = make_scene(seed), policy.binding
    path = path_of(scene)
    arm.reset(scene)
    camera, every = next(iter(binding.cameras.values())), max(EXECUTED_ROWS, delay)
    command = arm.joint_positions_rad.astype(np.float32)
    requested: list[_Follow] = []
    followed: _Follow | None = None
    commands: list[Floats] = []
    jumps: list[float] = []
    for step, place_m in enumerate(path):
        needed = step % every in {0, delay % every} or mode == EVERY_STEP
        now = look(arm, scene, camera) if needed else None
        if now is not None and step % every == 0:
            actions = policy.predict(now, 1000 * seed + step, Sampling(EULER_STEPS)).actions
            requested.append(_Follow(actions, now, step, step if mode != FROM_START else step + delay))
        if requested and step == requested[0].requested + delay:
            new = requested.pop(0)
            if mode == ON_ARRIVAL and delay and now is not None:
                vector = correction.features_of(Moment(now, new.seen, command))
                late_ms = delay * binding.dt_s * 1e3
                new = replace(new, actions=correction.chunk(new.actions, vector, late_ms, delay).actions)
            if followed is not None and mode != EVERY_STEP:  # there the commands are not those of the chunks
                shift = new.begun - followed.begun
                jumps.append(border_jump(followed.actions, new.actions, shift, step - new.begun))
            followed = new
        if followed is not None:
            row = min(step - followed.begun, len(followed.actions) - 1)
            command = followed.actions[row]
            age = step - followed.requested
            if mode == EVERY_STEP and age and now is not None:
                vector = correction.features_of(Moment(now, followed.seen, commands[-1]))
                command = correction.step(command, vector, row, age * binding.dt_s * 1e3)
        commands.append(command)
        move_block(arm, scene.target_index, place_m)
        arm.step(command, binding.dt_s)
    blocks = list(scene.blocks)
    blocks[scene.target_index] = replace(
        blocks[scene.target_index], x_m=float(path[-1, 0]), y_m=float(path[-1, 1])
    )
    distances = distances_m(replace(scene, blocks=tuple(blocks)), arm.end_effector_m)
    distance_m = float(distances[scene.target_index])
    return Result(
        bool(distance_m < SUCCESS_DISTANCE_M), distance_m, jerk_rms(np.array(commands), binding.dt_s), float(np.nanmean(jumps)) if jumps else math.nan
    )  # fmt: skip


def table(
    policy: Policy, correction: Correction, episodes: int, delays: Sequence[int], path_of: PathOf
) -> None:
    """Print a Markdown table, one row per delay and mode, on held-out scenes."""
    print(
        "| delay, steps | mode | reached | 95 % | distance median / p90, cm | jerk RMS, rad/s³ | jump, rad |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    arm = Arm()
    try:
        for delay in delays:
            for mode in MODES if delay else (SKIP_STALE, EVERY_STEP):
                seeds = range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + episodes)
                results = [run_episode(policy, correction, arm, seed, mode, delay, path_of) for seed in seeds]
                reached = sum(result.reached for result in results)
                low, high = wilson_interval(reached, episodes)
                distances_cm = 100 * np.array([result.distance_m for result in results])
                print(
                    f"| {delay} | {mode} | {reached}/{episodes} | {100 * low:.0f}-{100 * high:.0f} % |"
                    f" {np.median(distances_cm):.1f} / {np.quantile(distances_cm, 0.9):.1f} |"
                    f" {np.mean([result.jerk for result in results]):.0f} |"
                    f" {np.mean([result.jump for result in results]):.3f} |",
                    flush=True,
                )
    finally:
        arm.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--episodes", type=int, default=60)
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--speed-m-s", type=float, default=0.06, help="of the block, for 6 s")
    task.add_argument(
        "--put-elsewhere-s", type=float, help="put the block elsewhere once, so long before the end"
    )
    parser.add_argument("--delays", type=int, nargs="+", default=DELAYS)
    arguments = parser.parse_args()
    policy = open_policy(arguments.export)
    correction = load_correction(arguments.checkpoint, policy.binding)
    period_s = policy.binding.dt_s
    path_of = partial(straight_path, speed_m_s=arguments.speed_m_s, period_s=period_s)
    if arguments.put_elsewhere_s:
        path_of = partial(put_elsewhere_path, seconds=arguments.put_elsewhere_s, period_s=period_s)
    table(policy, correction, arguments.episodes, arguments.delays, path_of)


if __name__ == "__main__":
    main()
