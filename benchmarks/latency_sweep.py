# SPDX-License-Identifier: Apache-2.0
"""How well the arm follows a moving block when chunks come late, and how smoothly. In simulated time, so that no busy
machine disturbs it: the same scenes give the same table.

Protocol of arXiv 2509.23224 and of real-time-chunking-kinetix: a chunk is asked for every max(horizon, delay) control
steps and is there `delay` steps later, the first one at once; until then the robot plays the one before. The named block goes straight on at
a constant speed, in a direction in which it meets no other. Followed: over the last 2 s the end effector was on average
within 4 cm of the point above it. Every way gets the same scenes, paths and start noises.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.exports import embedded
from benchmarks.measure import finish, parser
from benchmarks.moving_target import Followed, World, straight_path
from benchmarks.streamed_arm import StreamedArm
from benchmarks.sweep_report import Cell, Outcome, draw, markdown
from reflex_core.chunks.a2c2.correction import Correction, load_correction
from reflex_core.chunks.a2c2.reasons import APPLIED
from reflex_core.chunks.a2c2.reasons import EVERY_STEP as REASON_EVERY_STEP
from reflex_core.chunks.rtc import Rtc
from reflex_core.chunks.scheduling import ExecutingChunk
from reflex_core.chunks.smoothness import border_jump, jerk_rms, overlap_disagreement
from reflex_core.export.export import open_export
from reflex_core.files.atomic import atomic_write
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.sampler import PLAIN
from reflex_core.robot.presets import load_embodiment
from reflex_core.values import ROS, Floats, Observation, Request, Served
from reflex_core.wedges.a2c2 import A2C2, NEEDED
from reflex_core.wedges.order import middleware_chain
from reflex_core.wedges.predict import Predict
from reflex_core.wedges.wedge import Proceed, Wedge
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import SUCCESS_DISTANCE_M, make_scene

FIRST_HELD_OUT_SEED, WARM_UP_SEED = 10_000, 9_999
DELAYS, QUICK_DELAYS = (0, 1, 2, 4, 6, 8, 10, 12), (0, 8)
EPISODES, QUICK_EPISODES = 60, 2
STEPS, QUICK_STEPS, SCORED_STEPS = 120, 64, 40
HORIZON, SPEED_M_S = 5, 0.06
SKIP, RTC, CORRECTED = "skip stale", "RTC", "A2C2 on arrival"
EVERY_STEP, BOTH = "A2C2 every step", "RTC + A2C2 every step"
CONDITIONS = (SKIP, RTC, CORRECTED, EVERY_STEP, BOTH)
STREAMED = (EVERY_STEP, BOTH)


@dataclass(frozen=True, slots=True)
class Task:
    """What every condition is given. horizon: control steps between two questions, where the delay is not longer."""

    horizon: int = HORIZON
    steps: int = STEPS
    speed_m_s: float = SPEED_M_S

    def every(self, delay: int) -> int:
        return max(self.horizon, delay)


class Server:
    """The wedges that serve, around a network whose answer takes `delay` control steps of the world it answers for."""

    def __init__(self, policy: Policy, correction: Correction, condition: str, delay: int) -> None:
        self.rtc = Rtc(policy.contract, policy.binding, self._clock_ns) if condition in (RTC, BOTH) else None
        self.world: World | None = None
        self._delay, self.correction = delay, correction
        self._predict = Predict(policy, "prod", lambda: 0, lambda _: PLAIN, None, self.rtc)
        wedges: dict[str, Wedge] = {"policy": self._slow}
        if condition in (CORRECTED, *STREAMED):
            wedges["a2c2"] = A2C2(
                correction,
                newest=_newest,
                previous=lambda _: self._robot().command(),
                clock_ns=self._clock_ns,
                every_step=condition in STREAMED,
            )
        self.act: Proceed = middleware_chain(wedges)

    def _slow(self, request: Request, proceed: Proceed) -> Served:
        served = self._predict(request, proceed)
        if self._robot().followed is not None:  # the protocol has the first chunk at once
            self._robot().run(self._delay)  # the robot goes on meanwhile
        return served

    def _clock_ns(self) -> int:
        return self._robot().clock_ns()

    def _robot(self) -> World:
        assert self.world is not None  # `drive` sets it before it asks
        return self.world


def _newest(request: Request) -> Observation | None:
    return request.newest() if request.newest else None


@dataclass(slots=True)
class _Borders:
    """jumps and disagreements: rad, one per chunk after the first."""

    jumps: list[float]
    disagreements: list[float]

    def follow(self, world: World, actions: Floats, first: int) -> None:
        """The robot plays `actions` from row `first` on, beginning with the present control step."""
        new, old = Followed(actions, world.step - first), world.followed
        if old is not None:
            shift = new.zero_step - old.zero_step
            self.jumps.append(border_jump(old.actions, new.actions, shift, first))
            self.disagreements.append(overlap_disagreement(old.actions, new.actions, shift, first))
        world.followed = new

    def follow_streamed(
        self, world: World, streamed: StreamedArm, served: Served, seen: Observation, first: int
    ) -> None:
        """The same for rows that are corrected on their way: the jump is that of what is commanded at the next row."""
        due_ns = seen.stamp_ns + (first + 1) * round(served.chunk.dt_s * 1e9)
        before = streamed.commanded(due_ns)
        streamed.follow(world, served, seen, first)
        after = streamed.commanded(due_ns)
        if before is not None and after is not None:
            self.jumps.append(float(np.abs(after - before).max()))
        new, old = Followed(served.chunk.actions, world.step - first), world.followed
        if old is not None:
            shift = new.zero_step - old.zero_step
            self.disagreements.append(overlap_disagreement(old.actions, new.actions, shift, first))
        world.followed = new


def drive(
    policy: Policy, server: Server, arm: Arm, task: Task, seed: int, condition: str, delay: int
) -> Outcome:
    """One episode."""
    scene, period_s = make_scene(seed), policy.binding.dt_s
    path_m = straight_path(scene, task.steps, task.speed_m_s * period_s)
    streamed = StreamedArm(policy.binding, server.correction) if condition in STREAMED else None
    camera = next(iter(policy.binding.cameras.values()))
    world = server.world = World(arm, scene, path_m, period_s, camera, streamed)
    episode_id, borders = f"{condition}-{delay}-{seed}", _Borders([], [])
    chunks = guided = corrected = 0
    while not world.over:
        observation, requested_ns = world.look(), world.clock_ns()
        request_id, noise = f"{episode_id}-{world.step}", 1000 * seed + world.step
        request = Request(
            observation, requested_ns, request_id, episode_id, noise, newest=world.look, caller=ROS
        )
        executed = None if streamed is None else streamed.steps.executed()
        if server.rtc is not None and executed is not None:
            server.rtc.corrected(episode_id, executed.request_id, executed.rows)
        served = server.act(request)
        if world.over:
            break
        # what the chunk loop of the node does with an answer
        elapsed = ExecutingChunk(observation.stamp_ns, period_s, policy.binding.horizon).elapsed(
            world.clock_ns()
        )
        if server.rtc is not None:
            server.rtc.delivered(request, served)
            server.rtc.consumed(
                episode_id, delay + 1
            )  # known from the first chunk on, though that one is early
        if streamed is None:
            borders.follow(world, served.chunk.actions, elapsed)
        else:
            borders.follow_streamed(world, streamed, served, observation, elapsed)
        chunks += 1
        guided += bool(served.rtc.mode)
        corrected += served.a2c2.reason in (APPLIED, REASON_EVERY_STEP)
        world.run(task.every(delay) - delay)
    distance_m = float(np.mean(world.distances_m[-SCORED_STEPS:]))
    return Outcome(
        seed=seed, followed=distance_m < SUCCESS_DISTANCE_M, distance_m=distance_m,
        jump_rad=float(np.nanmean(borders.jumps)), disagreement_rad=float(np.nanmean(borders.disagreements)),
        jerk_rad_s3=jerk_rms(np.array(world.commands), period_s), too_fast=_too_fast(policy, world.commands),
        chunks=chunks, guided=guided, corrected=corrected,
    )  # fmt: skip


def _too_fast(policy: Policy, commands: Sequence[Floats]) -> float:
    """The share of steps beyond the speed limits. The guard would slow them down, but it lives by the machine's clock."""
    embodiment = policy.binding.embodiment
    assert embodiment is not None  # the embedded export brings its own
    assert embodiment.velocity_max is not None
    speeds_rad_s = np.abs(np.diff(commands, axis=0)) / policy.binding.dt_s
    return float(np.mean((speeds_rad_s > embodiment.velocity_max).any(axis=1)))


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder with a file per condition and delay, a line per episode, so that a long sweep may be run in pieces."""

    folder: Path
    task: Task

    def read(self, condition: str, delay: int) -> dict[int, Outcome]:
        """The episodes of earlier runs of the same task, by their seeds."""
        path = self._path(condition, delay)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if not lines or json.loads(lines[0]) != asdict(self.task):
            return {}
        found = [Outcome(**json.loads(line)) for line in lines[1:]]
        return {one.seed: one for one in found}

    def add(self, condition: str, delay: int, one: Outcome) -> None:
        """Keep one more; what is there of another task is dropped."""
        known = self.read(condition, delay)
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [asdict(self.task), *(asdict(outcome) for outcome in (*known.values(), one))]
        text = "\n".join(json.dumps(line) for line in lines)
        atomic_write(self._path(condition, delay), text.encode())

    def _path(self, condition: str, delay: int) -> Path:
        return self.folder / f"{delay:02}-{condition.replace(' ', '-')}.jsonl"


def cell(
    policy: Policy,
    correction: Correction,
    arm: Arm,
    task: Task,
    seeds: Sequence[int],
    condition: str,
    delay: int,
    kept: Kept | None = None,
) -> Cell:
    """All episodes of one condition at one delay, answered by one server, as in service; those that are kept are not run again."""
    known = {} if kept is None else kept.read(condition, delay)
    missing = [seed for seed in seeds if seed not in known]
    server = Server(policy, correction, condition, delay)
    if condition == CORRECTED and missing:  # it leaves the first answers of a process alone
        short = Task(task.horizon, (NEEDED + 1) * task.every(delay), task.speed_m_s)
        drive(policy, server, arm, short, WARM_UP_SEED, condition, delay)
    for seed in missing:
        known[seed] = drive(policy, server, arm, task, seed, condition, delay)
        if kept is not None:
            kept.add(condition, delay, known[seed])
    return Cell(delay, condition, tuple(known[seed] for seed in seeds))


def sweep(
    policy: Policy,
    correction: Correction,
    task: Task,
    seeds: Sequence[int],
    delays: Sequence[int],
    conditions: Sequence[str] = CONDITIONS,
    kept: Kept | None = None,
) -> list[Cell]:
    """Every delay with every condition, in that order."""
    arm, cells = Arm(), list[Cell]()
    try:
        for delay in delays:
            for condition in conditions:
                cells.append(cell(policy, correction, arm, task, seeds, condition, delay, kept))
                print(".", end="", file=sys.stderr, flush=True)
    finally:
        arm.close()
    print(file=sys.stderr)
    return cells


def _options(argv: list[str] | None) -> argparse.Namespace:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--quick", action="store_true", help="a few short episodes: does it run at all?")
    arguments.add_argument("--episodes", type=int, help=f"per line; {EPISODES}")
    arguments.add_argument("--delays", type=int, nargs="+", help="in control steps of 50 ms")
    arguments.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS)
    arguments.add_argument(
        "--kept", type=Path, help="folder to go on in: episodes that are there are not run again"
    )
    arguments.add_argument("--horizon", type=int, default=HORIZON, help="control steps between questions")
    arguments.add_argument("--speed-m-s", type=float, default=SPEED_M_S, help="of the block")
    arguments.add_argument("--first-seed", type=int, default=FIRST_HELD_OUT_SEED)
    arguments.add_argument("--a2c2", type=Path, help="another head than the export's own")
    arguments.add_argument(
        "--picture", type=Path, help="draw the curves into this PNG file; needs matplotlib"
    )
    return arguments.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the sweep, print the table, draw the picture."""
    options = _options(argv)
    path = embedded().path
    policy = load_policy(open_export(path), load_embodiment(path / "embodiment.json"), "cpu", 1)
    correction = load_correction(options.a2c2 or path / "a2c2.npz", policy.binding)
    task = Task(options.horizon, QUICK_STEPS if options.quick else STEPS, options.speed_m_s)
    episodes = options.episodes or (QUICK_EPISODES if options.quick else EPISODES)
    delays = options.delays or (QUICK_DELAYS if options.quick else DELAYS)
    longest = max(delays)
    if min(delays) < 0 or 2 * task.every(longest) > min(policy.binding.horizon, task.steps // 2):
        print(
            f"--delays, --horizon: expected 0 to {policy.binding.horizon // 2} control steps, got {delays}, {task.horizon}",
            file=sys.stderr,
        )
        return 2
    began = time.perf_counter()
    seeds = range(options.first_seed, options.first_seed + episodes)
    kept = None if options.kept is None else Kept(options.kept, task)
    cells = sweep(policy, correction, task, seeds, delays, options.conditions, kept)
    print(markdown(cells, *(name for name in (SKIP,) if name in options.conditions)))
    print(f"\n{policy.export.model_version}, {asdict(task)}, {time.perf_counter() - began:.0f} s")
    if options.picture is not None:
        draw(cells, options.picture)
    finish("latency_sweep", _document(task, cells), options.output)
    return 0


def _document(task: Task, cells: Sequence[Cell]) -> Mapping[str, object]:
    return {"task": asdict(task), "cells": [asdict(one) for one in cells]}


if __name__ == "__main__":
    sys.exit(main())
