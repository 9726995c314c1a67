# SPDX-License-Identifier: Apache-2.0
"""Does stopping the denoise loop early cost success? The simulated arm, closed loop, on held-out scenes.

Every way of sampling gets the same scenes, start noise and physics. Three tasks: the instruction names one block, none
("reach any block"), or a colour that two blocks have. An observation every 1.25 s, its chunk in use 60 ms later.
"lost" and "won" count the scenes that only all steps, or only this way, reach.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.exports import embedded
from benchmarks.measure import finish, parser, percentiles, table
from reflex_core.export.export import open_export
from reflex_core.export.flow import Adaptive
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.sampler import Sampling
from reflex_core.robot.presets import load_embodiment
from reflex_ros.demo.ambiguity import CLEAR, TASKS, reached_one_of_them
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.controllers.options import ControllerOptions
from reflex_ros.demo.controllers.points import rows
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController
from reflex_ros.demo.observations import look
from reflex_ros.demo.scene import JOINT_NAMES, Scene, make_scene

FIRST_HELD_OUT_SEED = 10_000
EPISODE_S, REPLAN_S, DELAY_S, COMMAND_PERIOD_S = 5.0, 1.25, 0.06, 0.01
COMMAND_PERIOD_NS = round(COMMAND_PERIOD_S * 1e9)
FROM_COMMAND = ControllerOptions(interpolate_from_desired_state=True)
ALL = "all steps"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One episode; steps and denoise_ms have one entry per chunk."""

    reached: bool
    steps: tuple[int, ...]
    denoise_ms: tuple[float, ...]


def episode(policy: Policy, arm: Arm, scene: Scene, sampling: Sampling) -> Outcome:
    """Drive the arm for EPISODE_S."""
    arm.reset(scene)
    controller = JointTrajectoryController(
        JOINT_NAMES, arm.joint_positions_rad, COMMAND_PERIOD_NS, FROM_COMMAND
    )
    replan, late = round(REPLAN_S / COMMAND_PERIOD_S), round(DELAY_S / COMMAND_PERIOD_S)
    camera = next(iter(policy.binding.cameras.values()))
    predictions = []
    stamp_s = 0.0
    for tick in range(round(EPISODE_S / COMMAND_PERIOD_S)):
        now_s = 1.0 + tick * COMMAND_PERIOD_S  # a stamp of zero would mean "now"
        if tick % replan == 0:
            seed, stamp_s = scene.seed * 10 + tick // replan, now_s
            predictions.append(policy.predict(look(arm, scene, camera), seed, sampling))
        if tick % replan == late:
            actions, dt_s = predictions[-1].actions, policy.binding.dt_s
            chunk = rows(round(stamp_s * 1e9), JOINT_NAMES, actions, dt_s, int(DELAY_S / dt_s + 1e-9))
            controller.set(round(now_s * 1e9), chunk)
        arm.step(controller.sample(round(now_s * 1e9), arm.joint_positions_rad)[0], COMMAND_PERIOD_S)
    return Outcome(
        reached_one_of_them(scene, arm.end_effector_m),
        tuple(one.denoise_steps for one in predictions),
        tuple(one.stages_ms["expert_denoise_ms"] for one in predictions),
    )


def row(task: str, name: str, outcomes: Sequence[Outcome], full: Sequence[Outcome]) -> Mapping[str, object]:
    """One line of the table."""
    pairs = [(one.reached, before.reached) for one, before in zip(outcomes, full, strict=True)]
    steps = float(np.mean([count for one in outcomes for count in one.steps]))
    all_steps = float(np.mean([count for one in full for count in one.steps]))
    return {
        "task": task, "sampling": name, "episodes": len(outcomes), "reached": sum(one for one, _ in pairs),
        "lost": sum(before and not one for one, before in pairs),
        "won": sum(one and not before for one, before in pairs),
        "steps": steps, "saved": f"{1 - steps / all_steps:.0%}",
        "denoise p50 ms": percentiles([ms for one in outcomes for ms in one.denoise_ms])[0],
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run every task with every sampling and print the table."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--episodes", type=int, default=200, help="of the clear task")
    arguments.add_argument("--ambiguous-episodes", type=int, default=600, help="of each ambiguous task")
    options = arguments.parse_args(argv)
    path = embedded().path
    policy = load_policy(open_export(path), load_embodiment(path / "embodiment.json"), "cpu", 1)
    calibrated = policy.adaptive()
    samplings = {
        ALL: Sampling(),
        f"adaptive {calibrated.threshold:g}": Sampling(adaptive=calibrated),
        "always 2 steps": Sampling(
            adaptive=Adaptive(10.0, min_steps=2)
        ),  # what too bold a threshold comes to
    }
    print(f"{policy.export.model_version}, {calibrated}")
    arm, rows = Arm(), []
    began = time.perf_counter()
    for task, change in TASKS.items():
        count = options.episodes if task == CLEAR else options.ambiguous_episodes
        scenes = [change(make_scene(FIRST_HELD_OUT_SEED + index)) for index in range(count)]
        full: list[Outcome] = []
        for name, sampling in samplings.items():
            outcomes = [episode(policy, arm, scene, sampling) for scene in scenes]
            full = full or outcomes
            rows.append(row(task, name, outcomes, full))
    arm.close()
    print(table(rows))
    print(f"{time.perf_counter() - began:.0f} s")
    finish("adaptive_success", {"adaptive": str(calibrated), "rows": rows}, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
