# SPDX-License-Identifier: Apache-2.0
"""What the episode cache saves and what it costs: the simulated arm, closed loop, on held-out scenes.

A chunk every 0.25 s, in use 50 ms later, 5 s per episode; the block that is named moves 2 s after the start, or not.
Every way gets the same scenes, start noises and physics. `--write EXPORT` measures when a picture has changed and puts
the answer into the export's reflex_config.json: what 95 of 100 moves of 2 cm do to it, or more.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.exports import embedded
from benchmarks.measure import finish, parser, table
from reflex_core.calibration.prefix_threshold import (
    MAX_AGE_MS,
    Measured,
    change,
    prefix_block,
    threshold,
    uncalibrated,
)
from reflex_core.export.config_schema import CacheRule
from reflex_core.export.export import config_path, open_export
from reflex_core.files.atomic import write_block
from reflex_core.policy.base import Policy, Prediction
from reflex_core.policy.load import load_policy
from reflex_core.policy.prefix_cache import HIT, PrefixCache
from reflex_core.policy.sampler import PLAIN
from reflex_core.robot.presets import load_embodiment
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.controllers.options import ControllerOptions
from reflex_ros.demo.controllers.points import rows as trajectory_rows
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController
from reflex_ros.demo.observations import FIRST_SEED, look
from reflex_ros.demo.scene import BLOCK_AREA_M, BLOCK_SPACING_M, JOINT_NAMES, Scene, make_scene

FIRST_HELD_OUT_SEED = 10_000
EPISODE_S, REPLAN_S, DELAY_S, MOVES_AT_S, COMMAND_PERIOD_S = 5.0, 0.25, 0.05, 2.0, 0.01
COMMAND_PERIOD_NS = round(COMMAND_PERIOD_S * 1e9)
FROM_COMMAND = ControllerOptions(interpolate_from_desired_state=True)
SMALL_MOVE_M, LEAST_MOVE_M = 0.06, 0.02
STATIC, SMALL, FAR = "static", "moved 6 cm", "moved anywhere"
EVERY, IGNORING = "every prefix computed", "once per episode, image ignored"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One episode and its chunks."""

    reached: bool
    chunks: tuple[Prediction, ...]


def moved(scene: Scene, generator: np.random.Generator, distance_m: float | None) -> Scene:
    """The scene with the named block elsewhere: `distance_m` away, or anywhere free; None where there is no room."""
    blocks, index = list(scene.blocks), scene.target_index
    named = blocks[index]
    low, high = np.transpose(BLOCK_AREA_M)
    for _ in range(1000):
        angle = generator.uniform(0, 2 * np.pi)
        place = generator.uniform(low, high)
        if distance_m is not None:
            place = np.array([named.x_m, named.y_m]) + distance_m * np.array([np.cos(angle), np.sin(angle)])
        away = [np.hypot(*(place - (block.x_m, block.y_m))) for block in blocks]
        others = [one for number, one in enumerate(away) if distance_m is None or number != index]
        if ((low <= place) & (place <= high)).all() and min(others) > BLOCK_SPACING_M:
            blocks[index] = replace(named, x_m=float(place[0]), y_m=float(place[1]))
            return replace(scene, blocks=tuple(blocks))
    raise ValueError(f"scene {scene.seed}: there is no room to move the block {distance_m} m")


def episode(policy: Policy, arm: Arm, scene: Scene, later: Scene, cache: PrefixCache | None) -> Outcome:
    """Drive the arm for EPISODE_S; from MOVES_AT_S on the blocks are where `later` has them."""
    arm.reset(scene)
    controller = JointTrajectoryController(
        JOINT_NAMES, arm.joint_positions_rad, COMMAND_PERIOD_NS, FROM_COMMAND
    )
    replan, late, moves = (round(seconds / COMMAND_PERIOD_S) for seconds in (REPLAN_S, DELAY_S, MOVES_AT_S))
    camera = next(iter(policy.binding.cameras.values()))
    chunks: list[Prediction] = []
    stamp_s = 0.0
    for tick in range(round(EPISODE_S / COMMAND_PERIOD_S)):
        now_s = 1.0 + tick * COMMAND_PERIOD_S  # a stamp of zero would mean "unknown"
        if tick == moves:
            arm.place_blocks(later)
        if tick % replan == 0:
            stamp_s = now_s
            seen = replace(look(arm, scene, camera), stamp_ns=round(now_s * 1e9))
            seed = scene.seed * 100 + tick // replan
            chunks.append(policy.predict(seen, seed, PLAIN, None, str(scene.seed), cache))
        if tick % replan == late:
            actions, dt_s = chunks[-1].actions, policy.binding.dt_s
            chunk = trajectory_rows(
                round(stamp_s * 1e9), JOINT_NAMES, actions, dt_s, int(DELAY_S / dt_s + 1e-9)
            )
            controller.set(round(now_s * 1e9), chunk)
        arm.step(controller.sample(round(now_s * 1e9), arm.joint_positions_rad)[0], COMMAND_PERIOD_S)
    return Outcome(arm.reached(later), tuple(chunks))


def changes(policy: Policy, arm: Arm, scenes: Sequence[Scene], distance_m: float) -> list[float]:
    """How much the pictures change when the named block moves that far: seen from the start and from the goal."""
    cache = policy.prefix_cache()
    camera, found = next(iter(policy.binding.cameras.values())), []
    for scene in scenes:
        arm.reset(scene)
        goal = policy.predict(look(arm, scene, camera), scene.seed).actions[-1]
        later = moved(scene, np.random.default_rng(scene.seed), distance_m)
        for pose in (scene.start_joints_rad, goal):
            both = []
            for shown in (scene, later):
                arm.reset(shown)
                arm.set_joints(pose)
                seen = look(arm, scene, camera)
                both.append(cache.seen(seen, policy.arrays(seen)[0]))
            found.append(change(*both))
    return found


def row(task: str, name: str, outcomes: Sequence[Outcome], fresh: Sequence[Outcome]) -> Mapping[str, object]:
    """One line of the table."""
    chunks = [chunk for one in outcomes for chunk in one.chunks]
    hits = [chunk for chunk in chunks if chunk.cache.status == HIT]
    pairs = [(one.reached, before.reached) for one, before in zip(outcomes, fresh, strict=True)]
    return {
        "task": task, "prefix": name, "episodes": len(outcomes), "reached": sum(one for one, _ in pairs),
        "lost": sum(before and not one for one, before in pairs),
        "won": sum(one and not before for one, before in pairs),
        "hits": f"{len(hits) / len(chunks):.0%}",
        "age ms": float(np.mean([chunk.cache.age_ms for chunk in hits])) if hits else 0.0,
        "prefix ms": float(np.mean([chunk.stages_ms["vlm_prefix_ms"] for chunk in chunks])),
        "prepare ms": float(np.mean([chunk.stages_ms["preprocess_ms"] for chunk in chunks])),
        "network ms": float(np.mean(
            [chunk.stages_ms["vlm_prefix_ms"] + chunk.stages_ms["expert_denoise_ms"] for chunk in chunks]
        )),
    }  # fmt: skip


def write(policy: Policy, arm: Arm, path: Path, count: int) -> None:
    """Measure the threshold on scenes of its own and keep it in the export."""
    scenes = [make_scene(FIRST_SEED + index) for index in range(count)]
    found = Measured((), tuple(changes(policy, arm, scenes, LEAST_MOVE_M)))
    block = prefix_block(
        threshold(found), MAX_AGE_MS, policy.export.model_hash,
        f"{count} simulated scenes, the named block moved 2 cm, seen from start and goal",
        least_change=round(found.least, 4), median_change=round(float(np.median(found.moved)), 4),
    )  # fmt: skip
    write_block(config_path(path), "prefix_cache", block)
    print(f"{block}\nwritten to {config_path(path)}")


def main(argv: list[str] | None = None) -> int:
    """Run every task with every way and print the table, or write the threshold."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--episodes", type=int, default=200, help="with a static scene")
    arguments.add_argument(
        "--moved-episodes", type=int, default=60, help="with a block that moves, of each kind"
    )
    arguments.add_argument("--thresholds", type=float, nargs="*", default=[], help="others than the export's")
    arguments.add_argument("--write", type=Path, help="measure the threshold of this export and write it")
    options = arguments.parse_args(argv)
    path = options.write or embedded().path
    export = uncalibrated(open_export(path)) if options.write else open_export(path)
    policy = load_policy(export, load_embodiment(path / "embodiment.json"), "cpu", 1)
    arm = Arm()
    if options.write:
        write(policy, arm, path, options.moved_episodes)
        arm.close()
        return 0
    own = policy.prefix_cache().rule
    ways: dict[str, CacheRule | None] = {EVERY: None, f"cache {own.image_threshold:g}": own}
    ways |= {f"cache {value:g}": replace(own, image_threshold=value) for value in options.thresholds}
    ways[IGNORING] = CacheRule(float("inf"), float("inf"))
    rows, began = [], time.perf_counter()
    for task in (STATIC, SMALL, FAR):
        count = options.episodes if task == STATIC else options.moved_episodes
        scenes = [make_scene(FIRST_HELD_OUT_SEED + index) for index in range(count)]
        laters = {
            STATIC: lambda scene: scene,
            SMALL: lambda scene: moved(scene, np.random.default_rng(scene.seed), SMALL_MOVE_M),
            FAR: lambda scene: moved(scene, np.random.default_rng(scene.seed), None),
        }  # fmt: skip
        fresh: list[Outcome] = []
        for name, rule in ways.items():
            outcomes = []
            for scene in scenes:
                cache = policy.prefix_cache() if rule is not None else None
                if cache is not None and rule is not None:
                    cache.rule = rule
                outcomes.append(episode(policy, arm, scene, laters[task](scene), cache))
            fresh = fresh or outcomes
            rows.append(row(task, name, outcomes, fresh))
            print(".", end="", flush=True)
    arm.close()
    print(f"\n{policy.export.model_version}, {own}\n{table(rows)}")
    print(f"{time.perf_counter() - began:.0f} s")
    finish("prefix_reuse", {"rule": str(own), "rows": rows}, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
