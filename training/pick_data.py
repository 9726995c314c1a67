# SPDX-License-Identifier: Apache-2.0
"""Training frames of picking: episodes of a demonstrator that is wrong about the cube for a while, and then is not.

The frames hold the true state; the rows that the policy learns are made of it during training.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reflex_ros.demo.pick_arm import PickArm
from reflex_ros.demo.pick_scene import (
    CUBE_AREA_M,
    CUBE_HALF_SIZE_M,
    FINGER_OPEN_M,
    PickScene,
    make_pick_scene,
)
from reflex_ros.demo.scene import COLOURS
from training.pick_demonstrator import demonstrate_pick, pose_at
from training.pick_loop import ROW_S, run_rows, shrink_picture, state_of

COLOUR_NAMES = tuple(COLOURS)
FRAMES_PER_EPISODE = 11
MISTAKEN_SHARE = 0.75
MISTAKE_STD_M, MISTAKE_FLATTENED, MISTAKE_ROWS = (0.003, 0.03), (1.0, 1.0, 0.4), (5, 60)
EPISODE_ROWS = (60, 95)
OTHER_START_SHARE, OTHER_START_MARGIN_M, OTHER_START_HEIGHT_M = 0.4, 0.02, (0.09, 0.26)
OTHER_START_NOISE_RAD, FINGERS_ELSEWHERE_SHARE = 0.05, 0.15
ROW_NOISE_RAD = 0.008
LIFTED_FRAMES_S = 0.45  # that are kept of holding it up
TRAINING_SEEDS = 1 << 40  # the scenes of the evaluation have small seeds


@dataclass(frozen=True)
class Frames:
    """images [N, 112, 112, 3], joints_rad [N, 7], end_effector_m [N, 3], finger_m [N], cubes_m [N, 3, 3], colours [N, 3]
    (index into COLOUR_NAMES), targets [N] (which cube the episode is about).
    """

    images: NDArray[np.uint8]
    joints_rad: NDArray[np.float64]
    end_effector_m: NDArray[np.float64]
    finger_m: NDArray[np.float64]
    cubes_m: NDArray[np.float64]
    colours: NDArray[np.int64]
    targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass
class Collector:
    """Frames while they are taken."""

    taken: dict[str, list[object]] = field(default_factory=dict)

    def take(self, arm: PickArm, scene: PickScene) -> None:
        values = {
            "images": shrink_picture(arm.image()),
            "joints_rad": arm.joint_positions_rad,
            "end_effector_m": arm.end_effector_m,
            "finger_m": arm.finger_m,
            "cubes_m": arm.cubes_m,
            "colours": [COLOUR_NAMES.index(cube.colour) for cube in scene.cubes],
            "targets": scene.target_index,
        }
        for name, value in values.items():
            self.taken.setdefault(name, []).append(value)

    def __len__(self) -> int:
        return len(self.taken.get("targets", []))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Uncompressed under another name first: a file that is there is whole.
        part = path.with_name(f"part-{path.name}")
        np.savez(part, **{name: np.array(values) for name, values in self.taken.items()})
        part.rename(path)


def load_frames(paths: Sequence[Path]) -> Frames:
    """Return the frames of all the files, in their order."""
    files = [np.load(path) for path in paths]
    return Frames(**{name: np.concatenate([file[name] for file in files]) for name in files[0].files})


def training_scene(generator: np.random.Generator) -> PickScene:
    return make_pick_scene(TRAINING_SEEDS + int(generator.integers(TRAINING_SEEDS)))


def start_somewhere(arm: PickArm, scene: PickScene, generator: np.random.Generator) -> None:
    """Set the scene up; the arm begins at home or, as after another task, somewhere above the table."""
    arm.reset(scene)
    if generator.random() >= OTHER_START_SHARE:
        return
    low, high = np.transpose(CUBE_AREA_M)
    across = generator.uniform(low - OTHER_START_MARGIN_M, high + OTHER_START_MARGIN_M)
    point = np.append(across, generator.uniform(*OTHER_START_HEIGHT_M))
    joints = pose_at(point[None])[0] + generator.normal(0.0, OTHER_START_NOISE_RAD, 7)
    elsewhere = generator.random() < FINGERS_ELSEWHERE_SHARE
    arm.set_pose(joints, generator.uniform(0.0, FINGER_OPEN_M) if elsewhere else FINGER_OPEN_M)


def demonstrate_episode(arm: PickArm, generator: np.random.Generator, into: Collector) -> bool:
    """Take the frames of one episode. Return whether the cube was held up."""
    scene = training_scene(generator)
    start_somewhere(arm, scene, generator)
    spread = generator.uniform(*MISTAKE_STD_M)
    mistake_m = generator.normal(0.0, spread, 3) * MISTAKE_FLATTENED
    mistaken_until = int(generator.integers(*MISTAKE_ROWS)) if generator.random() < MISTAKEN_SHARE else 0
    rows = int(generator.integers(*EPISODE_ROWS))
    taken_at = set(generator.choice(rows, FRAMES_PER_EPISODE, replace=False).tolist())
    noise_rad, held_s = generator.uniform(0.0, ROW_NOISE_RAD), 0.0
    for row in range(rows):
        if row in taken_at:
            into.take(arm, scene)
        cube = arm.cubes_m[scene.target_index]
        lifted_m = cube[2] - CUBE_HALF_SIZE_M
        if lifted_m > 0.01:
            mistaken_until = 0
        believed = cube + (mistake_m if row < mistaken_until else 0.0)
        state = state_of(arm)
        action = demonstrate_pick(state[None, :7], arm.end_effector_m[None], state[7:], believed[None], 1)[
            0, 0
        ]
        arm.step(action[:7] + generator.normal(0.0, noise_rad, 7), float(action[7]), ROW_S)
        held_s = held_s + ROW_S if lifted_m > 0.1 else 0.0
        if held_s > LIFTED_FRAMES_S:
            break
    return held_s > 0.0


def demonstrations(episodes: int, seed: int) -> Collector:
    """Frames of the demonstrator on an arm that does not know its hand's weight: it sinks, and has more to recover from."""
    generator, arm = np.random.default_rng(seed), PickArm(hand_weighs=True)
    into, started_s, held = Collector(), time.monotonic(), 0
    for episode in range(episodes):
        held += demonstrate_episode(arm, generator, into)
        if (episode + 1) % 100 == 0:
            spent = f"{time.monotonic() - started_s:.0f} s, cpu {time.process_time():.0f} s"
            print(
                f"{episode + 1}/{episodes} episodes, {held} held up, {len(into)} frames, {spent}", flush=True
            )
    arm.close()
    return into


def own_episodes(export: Path, episodes: int, seed: int) -> Collector:
    """Frames that a policy gets itself into (DAgger), with chunks late and used up to different lengths."""
    from training.pick_evaluate import PickExport  # it needs ONNX Runtime, the demonstrations do not
    from training.pick_language import sample_pick_instruction

    generator, arm, into, started_s, held = (
        np.random.default_rng(seed),
        PickArm(),
        Collector(),
        time.monotonic(),
        0,
    )
    policy = PickExport(export, steps=4, seed=seed)
    for episode in range(episodes):
        scene = training_scene(generator)
        start_somewhere(arm, scene, generator)
        instruction = sample_pick_instruction(scene.target_colour, generator)
        replan, delay = int(generator.choice([5, 10, 20])), int(generator.choice([0, 0, 1, 2, 4]))
        offset, noise_rad = (
            int(generator.integers(5)),
            generator.uniform(0.0, 0.006) * (generator.random() < 0.3),
        )

        def take(row: int, scene: PickScene = scene, offset: int = offset) -> None:
            if row % 5 == offset:
                into.take(arm, scene)

        def disturb(row: NDArray[np.float64], noise_rad: float = noise_rad) -> NDArray[np.float64]:
            return row + np.append(generator.normal(0.0, noise_rad, 7), 0.0)

        outcome = run_rows(
            arm, scene, policy, instruction=instruction, delay_rows=delay, replan_rows=replan, before_row=take,
            disturb=disturb, limit_rows=110,
        )  # fmt: skip
        held += outcome.picked_up
        if (episode + 1) % 50 == 0:
            spent = f"{time.monotonic() - started_s:.0f} s, cpu {time.process_time():.0f} s"
            print(
                f"{episode + 1}/{episodes} episodes, {held} picked up, {len(into)} frames, {spent}",
                flush=True,
            )
    arm.close()
    return into


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--policy", type=Path, help="an export that acts instead of the demonstrator")
    arguments = parser.parse_args()
    if arguments.policy is None:
        collected = demonstrations(arguments.episodes, arguments.seed)
    else:
        collected = own_episodes(arguments.policy, arguments.episodes, arguments.seed)
    collected.write(arguments.out)


if __name__ == "__main__":
    main()
