# SPDX-License-Identifier: Apache-2.0
"""Episodes for the correction head: the arm follows late chunks while the named block moves.

At every control step the policy predicts anew. So for every step it is known what a chunk from any earlier observation
says, and what the demonstrator of the policy's own training would do from this very moment, who knows where the block is.
With a head, the arm follows rows that it corrects at every step, so that a next head learns from where its own corrections
lead (DAgger, arXiv 1011.0686).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reflex_core.chunks.a2c2.correction import Correction, load_correction
from reflex_core.chunks.a2c2.features import Moment, hues
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.sampler import Sampling
from reflex_core.robot.presets import load_embodiment
from reflex_core.values import Floats
from reflex_ros.console.terminal import Bar
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.observations import look
from reflex_ros.demo.scene import BLOCK_AREA_M, Scene, make_scene
from training.demonstrator import demonstrate, poses_along

EPISODE_STEPS = 90
EULER_STEPS = 5
LONGEST_DELAY = 12
EXECUTED_ROWS = (5, 25)
STILL_SHARE, JUMP_SHARE = 0.2, 0.2
SPEED_M_S = (0.03, 0.15)
START_STEP, JUMP_STEP = (0, 30), (10, 60)


@dataclass(frozen=True)
class Moments:
    """M observations in the order of their episodes; states and actions in the policy's normalised units.

    states, previous: (M, 7). hues: (M, 36). chunks: (M, 50, 7), each from the observation of its own moment. wanted: (M, 50, 7), what
    would be right from there: a demonstrator's chunk, the policy's own where there is none; all float32.
    instructions: (M,) text. episodes: (M,) which one it belongs to. rows: (M,) when, in control steps of its episode.
    """

    states: Floats
    previous: Floats
    hues: Floats
    chunks: Floats
    wanted: Floats
    instructions: NDArray[np.str_]
    episodes: NDArray[np.int64]
    rows: NDArray[np.int64]


def joined(parts: Sequence[Moments]) -> Moments:
    """One after the other; their episodes keep apart."""
    numbers, first = [], 0
    for part in parts:
        _, inverse = np.unique(part.episodes, return_inverse=True)
        numbers.append(inverse + first)
        first += int(inverse.max(initial=-1)) + 1
    together = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Moments)
    }
    return Moments(**(together | {"episodes": np.concatenate(numbers)}))


def block_path(scene: Scene, generator: np.random.Generator, period_s: float) -> NDArray[np.float64]:
    """(T, 2) where the named block is at each step: at rest, moving and bouncing off the table's edges, or put elsewhere."""
    low, high = np.transpose(BLOCK_AREA_M)
    block = scene.blocks[scene.target_index]
    start = np.array([block.x_m, block.y_m])
    steps = np.arange(EPISODE_STEPS)
    kind = generator.random()
    if kind < STILL_SHARE:
        return np.tile(start, (EPISODE_STEPS, 1))
    if kind < STILL_SHARE + JUMP_SHARE:
        later = steps >= generator.integers(*JUMP_STEP)
        return np.where(later[:, None], generator.uniform(low, high), start)
    angle, speed_m_s = generator.uniform(0, 2 * np.pi), generator.uniform(*SPEED_M_S)
    moving_s = np.maximum(steps - generator.integers(*START_STEP), 0) * period_s
    path = start + moving_s[:, None] * speed_m_s * np.array([np.cos(angle), np.sin(angle)])
    # a straight line folded back at the edges
    folded = np.mod(path - low, 2 * (high - low))
    return low + np.minimum(folded, 2 * (high - low) - folded)


def move_block(arm: Arm, index: int, place_m: NDArray[np.float64]) -> None:
    """Put a block elsewhere; it is seen there after the next physics step."""
    arm._model.geom_pos[arm._block_geoms[index], :2] = place_m


def run_episode(policy: Policy, arm: Arm, seed: int, head: Correction | None = None) -> Moments:
    """One episode, a moment per control step. head: corrects every row that is followed."""
    binding, generator = policy.binding, np.random.default_rng((seed, 1))
    assert binding.state_statistics is not None  # this export has both
    assert binding.action_statistics is not None
    scene = make_scene(seed)
    path = block_path(scene, generator, binding.dt_s)
    delay = int(generator.integers(0, LONGEST_DELAY + 1))
    every = max(delay, int(generator.integers(*EXECUTED_ROWS)))
    arm.reset(scene)
    camera = next(iter(binding.cameras.values()))
    command = arm.joint_positions_rad.astype(np.float32)
    states, previous, seen, chunks, looks = [], [], [], [], []
    followed = -1
    for step, place_m in enumerate(path):
        observation = look(arm, scene, camera)
        looks.append(observation)
        states.append(observation.state)
        previous.append(command)
        seen.append(hues(observation.frames[camera].data))
        chunks.append(policy.predict(observation, 1000 * seed + step, Sampling(EULER_STEPS)).actions)
        ready = (step - delay) // every * every
        followed = max(followed, ready)
        if followed >= 0:
            row = step - followed
            command = chunks[followed][row]
            if head is not None and row > 0:
                vector = head.features_of(Moment(observation, looks[followed], previous[-1]))
                command = head.step(command, vector, row, row * binding.dt_s * 1e3)
        move_block(arm, scene.target_index, place_m)
        arm.step(command, binding.dt_s)
    steps = np.arange(len(path))
    block = scene.blocks[scene.target_index]
    in_view_m = np.concatenate([[(block.x_m, block.y_m)], path[:-1]])  # it is moved after the look
    wanted = demonstrate(np.array(states, dtype=np.float64), poses_along(arm._model, in_view_m))
    return Moments(
        binding.state_statistics.normalise(np.array(states)), binding.action_statistics.normalise(np.array(previous)),
        np.array(seen), binding.action_statistics.normalise(np.array(chunks)), binding.action_statistics.normalise(wanted),
        np.full(len(path), scene.instruction), np.zeros_like(steps), steps,
    )  # fmt: skip


def generate(policy: Policy, first_seed: int, count: int, head: Correction | None = None) -> Moments:
    """Simulates `count` episodes; the same seeds give the same ones."""
    arm, bar = Arm(), Bar(unit="episodes", plain=partial(print, flush=True))
    try:
        episodes = []
        for seed in range(first_seed, first_seed + count):
            episodes.append(run_episode(policy, arm, seed, head))
            bar.draw(len(episodes) / count, len(episodes))
    finally:
        bar.clear()
        arm.close()
    return joined(episodes)


def open_policy(folder: Path) -> Policy:
    return load_policy(open_export(folder), load_embodiment(folder / "embodiment.json"), "cpu", 1)


def save(moments: Moments, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{field.name: getattr(moments, field.name) for field in fields(Moments)})


def load(path: Path) -> Moments:
    with np.load(path, allow_pickle=False) as arrays:
        return Moments(**{name: arrays[name] for name in arrays.files})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("--first-seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--head", type=Path, help="correct every row that is followed by this head")
    arguments = parser.parse_args()
    policy = open_policy(arguments.export)
    head = None if arguments.head is None else load_correction(arguments.head, policy.binding)
    save(generate(policy, arguments.first_seed, arguments.count, head), arguments.out)


if __name__ == "__main__":
    main()
