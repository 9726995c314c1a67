# SPDX-License-Identifier: Apache-2.0
"""How far a chunk begins from where the one before it was going, with and without real-time chunking.

The simulated arm, closed loop, on held-out scenes: an observation every second, its chunk in use `delay` actions (of
50 ms) later, 5 s per episode. Jump: max over joints of |new[delay] - old[elapsed + delay]|, the command's leap when the
new chunk takes over. Three tasks: the instruction names one block, two blocks have the colour that it names, or the
named block is put elsewhere after 2 s. Both ways get the same scenes, start noises and physics.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.exports import embedded
from benchmarks.measure import finish, parser, percentiles, table
from benchmarks.prefix_reuse import moved
from reflex_core.chunks.rtc import Rtc
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.sampler import PLAIN
from reflex_core.robot.presets import load_embodiment
from reflex_core.values import Floats, Request, Served
from reflex_core.wedges.predict import Predict
from reflex_ros.demo.ambiguity import names_one, names_two, reached_one_of_them
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.controllers.options import ControllerOptions
from reflex_ros.demo.controllers.points import rows as trajectory_rows
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController
from reflex_ros.demo.observations import look
from reflex_ros.demo.scene import JOINT_NAMES, Scene, make_scene

FIRST_HELD_OUT_SEED = 10_000
ROWS, REPLAN_ROWS, MOVES_AT_ROW, COMMANDS_PER_ROW = 100, 20, 40, 5
FROM_COMMAND = ControllerOptions(interpolate_from_desired_state=True)
CLEAR, TWINS, MOVED = "names one block", "names two blocks", "block moves"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One episode. jumps: rad, one per border. overlaps: rad, the largest difference of rows that both chunks have."""

    reached: bool
    jumps: tuple[float, ...]
    overlaps: tuple[float, ...]
    guided: int
    denoise_ms: tuple[float, ...]


def unreachable(request: Request) -> Served:
    """The network is the innermost wedge."""
    raise AssertionError(request.request_id)


def episode(policy: Policy, arm: Arm, scene: Scene, later: Scene, delay: int, rtc: Rtc | None) -> Outcome:
    """Drive the arm with chunks that come `delay` rows late."""
    arm.reset(scene)
    step_s = policy.binding.dt_s / COMMANDS_PER_ROW
    controller = JointTrajectoryController(
        JOINT_NAMES, arm.joint_positions_rad, round(step_s * 1e9), FROM_COMMAND
    )
    predict = Predict(policy, "prod", lambda: 0, lambda _: PLAIN, None, rtc)
    camera, period_s = next(iter(policy.binding.cameras.values())), policy.binding.dt_s
    running: tuple[Floats, int] | None = None
    coming: tuple[Request, Served] | None = None
    answers: list[Served] = []
    jumps, overlaps = [], []
    for row in range(ROWS):
        now_s = 1.0 + row * period_s
        if row == MOVES_AT_ROW:
            arm.place_blocks(later)
        if row % REPLAN_ROWS == 0:
            seen = replace(look(arm, scene, camera), stamp_ns=round(now_s * 1e9))
            seed = scene.seed * 100 + row
            request = Request(seen, time.monotonic_ns(), f"row-{row}", str(scene.seed), seed)
            coming = request, predict(request, unreachable)
        if coming is not None and row % REPLAN_ROWS == delay:
            request, served = coming
            actions, begins = served.chunk.actions, row - delay
            if rtc is not None:
                rtc.delivered(request, served)
                rtc.consumed(request.episode_id, delay + 1)  # the row on its way counts, as for the ROS node
            if running is not None:
                old = running[0][begins - running[1] :]
                jumps.append(float(np.abs(actions[delay] - old[delay]).max()))
                overlaps.append(float(np.abs(actions[: len(old)] - old).max()))
            stamp_ns = round((1.0 + begins * period_s) * 1e9)
            controller.set(
                round(now_s * 1e9), trajectory_rows(stamp_ns, JOINT_NAMES, actions, period_s, delay)
            )
            running, coming = (actions, begins), None
            answers.append(served)
        for tick in range(COMMANDS_PER_ROW):
            tick_ns = round((now_s + tick * step_s) * 1e9)
            arm.step(controller.sample(tick_ns, arm.joint_positions_rad)[0], step_s)
    return Outcome(
        reached_one_of_them(later, arm.end_effector_m), tuple(jumps), tuple(overlaps),
        sum(bool(one.rtc.mode) for one in answers), tuple(one.inference.stages_ms["expert_denoise_ms"] for one in answers),
    )  # fmt: skip


def row_of(task: str, delay: int, name: str, outcomes: Sequence[Outcome]) -> Mapping[str, object]:
    """One line of the table; jumps in hundredths of a radian."""
    jumps = 100 * np.array([jump for one in outcomes for jump in one.jumps])
    overlaps = 100 * np.array([overlap for one in outcomes for overlap in one.overlaps])
    return {
        "task": task, "delay": delay, "chunks": name, "episodes": len(outcomes),
        "reached": sum(one.reached for one in outcomes),
        "jump p50": float(np.median(jumps)), "p95": float(np.quantile(jumps, 0.95)), "max": float(jumps.max()),
        "overlap p50": float(np.median(overlaps)), "borders": len(jumps), "guided": sum(one.guided for one in outcomes),
        "denoise p50 ms": percentiles([ms for one in outcomes for ms in one.denoise_ms])[0],
    }  # fmt: skip


def later_scene(task: str, scene: Scene) -> Scene:
    """What the table looks like from MOVES_AT_ROW on."""
    return moved(scene, np.random.default_rng(scene.seed), None) if task == MOVED else scene


def main(argv: list[str] | None = None) -> int:
    """Run every task and delay with and without RTC and print the table."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--episodes", type=int, default=50, help="per line")
    arguments.add_argument("--delays", type=int, nargs="+", default=[1, 4, 8, 12], help="in actions of 50 ms")
    arguments.add_argument("--blend-rows", type=int, default=0, help="instead of what the export says")
    options = arguments.parse_args(argv)
    path = embedded().path
    policy = load_policy(open_export(path), load_embodiment(path / "embodiment.json"), "cpu", 1)
    block = policy.contract.rtc
    contract = replace(policy.contract, rtc=replace(block, blend_rows=options.blend_rows or block.blend_rows))
    arm, rows, began = Arm(), [], time.perf_counter()
    for task, change in {CLEAR: names_one, TWINS: names_two, MOVED: names_one}.items():
        scenes = [change(make_scene(FIRST_HELD_OUT_SEED + index)) for index in range(options.episodes)]
        for delay in options.delays:
            for name in ("plain", "RTC"):
                outcomes = []
                for scene in scenes:
                    rtc = Rtc(contract, policy.binding) if name == "RTC" else None
                    outcomes.append(episode(policy, arm, scene, later_scene(task, scene), delay, rtc))
                rows.append(row_of(task, delay, name, outcomes))
                print(".", end="", flush=True)
    arm.close()
    print(f"\n{policy.export.model_version}; jumps and overlaps in 0.01 rad\n{table(rows)}")
    print(f"{time.perf_counter() - began:.0f} s")
    finish("rtc_border", {"rows": rows}, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
