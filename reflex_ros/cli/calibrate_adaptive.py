# SPDX-License-Identifier: Apache-2.0
"""`reflex calibrate-adaptive`: measure how early an export's denoise loop may stop (docs/how-to/measure-adaptive-steps.md)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from reflex_core.calibration.adaptive_steps import Candidate, Course, candidates, choose, course
from reflex_core.errors import ConfigurationError, ObservationError, ReflexError
from reflex_core.export.export import CONFIG_NAME, config_path, open_export
from reflex_core.files.atomic import write_block
from reflex_core.files.observations import read_observations
from reflex_core.files.share import DEMO, embedded_policy, export_path
from reflex_core.policy.adaptive import adaptive_block
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.robot.embodiment import Embodiment
from reflex_core.values import Observation
from reflex_ros.cli.parser import Parser
from reflex_ros.cli.robot_options import add_robot, robot_of
from reflex_ros.console.terminal import Bar

SCENES = 64


def main(argv: list[str] | None = None) -> int:
    """Measure and print. 0: a threshold was found; 1: none saves anything, or it could not be measured; 2: usage."""
    options = parser().parse_args(argv)
    path: Path = options.export_dir
    try:
        return _calibrate(path, options)
    except ReflexError as error:
        print(f"reflex calibrate-adaptive: {error}", file=sys.stderr)
        return 1


def parser() -> Parser:
    """Return the command line of `reflex calibrate-adaptive`."""
    made = Parser(
        prog="reflex calibrate-adaptive",
        description="Measure how early the denoise loop of an export may stop, for --adaptive-steps.",
        examples=(
            "reflex calibrate-adaptive ./my-export --embodiment franka --observations recorded/",
            "reflex calibrate-adaptive demo --scenes 16",
        ),
    )
    made.add_argument(
        "export_dir",
        nargs="?",
        metavar="EXPORT",
        default=DEMO,
        type=export_path,
        help="the export; default: demo, the embedded one",
    )
    add_robot(made)
    seen = made.add_mutually_exclusive_group()
    seen.add_argument(
        "--observations",
        type=Path,
        metavar="DIR",
        help="folder of recorded observations (docs/reference/observations.md)",
    )
    seen.add_argument(
        "--scenes",
        type=_count,
        default=SCENES,
        metavar="N",
        help="simulated scenes, for the embedded policy",
    )
    made.add_argument(
        "--seeds", type=_count, metavar="N", default=1, help="start noise samples per observation"
    )
    made.add_argument(
        "--max-difference",
        type=_share,
        default=0.01,
        metavar="SHARE",
        help="largest allowed change of an action, relative to the joint's range",
    )
    made.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda", "tensorrt"), help="where inference runs"
    )
    made.add_argument(
        "--write", action="store_true", help=f"write the result into the export's {CONFIG_NAME}"
    )
    return made


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {value}")
    return value


def _calibrate(path: Path, options: argparse.Namespace) -> int:
    export = open_export(path)
    policy = load_policy(export, _embodiment(path, options), options.device, 1)
    robot = policy.binding.embodiment
    assert robot is not None  # it was given one
    policy.require_stepped()
    observations, many, what = _observations(policy, options)
    courses = _courses(policy, observations, options.seeds, many)
    steps = policy.contract.flow.steps
    found = candidates(courses, robot.action_max - robot.action_min)
    chosen = choose(found, options.max_difference, steps)
    print(f"{export.model_version}: {len(courses)} chunks of {steps} steps; {what}\n")
    print(table(found, chosen, options.max_difference, steps))
    if chosen is None:
        print(
            f"\nno choice saves steps within {options.max_difference:.2%} of the joints' ranges: leave it off"
        )
        return 1
    if not options.write:
        print(f"\nnothing was written; --write keeps the marked line in {config_path(path)}")
        return 0
    measured = {
        "model_hash": export.model_hash,
        "denoise_steps": steps,
        "observations": what,
        "chunks": len(courses),
        "mean_steps": round(chosen.steps, 2),
        "difference": round(chosen.difference, 4),
        "max_difference": options.max_difference,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
    write_block(config_path(path), "adaptive", adaptive_block(chosen.adaptive, measured))
    print(f"\nwritten to {config_path(path)}")
    return 0


def _embodiment(path: Path, options: argparse.Namespace) -> Embodiment:
    robot = robot_of(path, options)
    if robot is None:
        raise ConfigurationError(
            f"{path} brings no embodiment.json: give --embodiment or --custom-embodiment-config, as the allowed"
            " difference is a share of each joint's range"
        )
    return robot


def _courses(policy: Policy, observations: Iterable[Observation], seeds: int, many: int) -> list[Course]:
    """Return one course per observation and start noise; a bar shows how many of the observations are done."""
    bar, courses = Bar(unit="observations", plain=partial(print, file=sys.stderr, flush=True)), list[Course]()
    try:
        for done, observation in enumerate(observations, start=1):
            courses += [course(policy, observation, seed) for seed in range(seeds)]
            bar.draw(min(done / many, 1.0), done)
    finally:
        bar.clear()
    return courses


def _observations(policy: Policy, options: argparse.Namespace) -> tuple[Iterable[Observation], int, str]:
    """Return the observations to measure on, their number, and their description."""
    if options.observations is not None:
        recorded = read_observations(options.observations)
        return recorded, len(recorded), f"{len(recorded)} recorded observations"
    if policy.export.model_id != open_export(embedded_policy()).model_id:
        raise ObservationError(
            f"{policy.export.path}: needs --observations: how soon its velocity settles depends on what it really sees,"
            " and only the embedded policy comes with a simulation"
        )
    try:
        from reflex_ros.demo.ambiguity import TASKS
        from reflex_ros.demo.observations import ALONG_THE_WAY, scene_observations
    except ImportError as error:
        raise ConfigurationError(
            f"{error}: the simulated scenes need mujoco; or give --observations"
        ) from error
    seen = scene_observations(policy, options.scenes)
    many = options.scenes * len(TASKS) * (1 + len(ALONG_THE_WAY))
    return seen, many, f"{options.scenes} simulated scenes, each with a clear and two ambiguous instructions"


def table(found: Sequence[Candidate], chosen: Candidate | None, bound: float, steps: int) -> str:
    """Return one line per threshold and least number of steps, the chosen one marked; patience 1 unless it was chosen."""
    lines = ["   threshold  min steps  patience  steps  saved  difference"]
    for one in found:
        if one is not chosen and (one.adaptive.patience > 1 or one.steps == steps):
            continue
        mark = "->" if one is chosen else "  "
        message = f"{one.difference:9.2%}" + ("" if one.difference <= bound else "  too much")
        lines.append(
            f"{mark} {one.adaptive.threshold:9g}  {one.adaptive.min_steps:9}  {one.adaptive.patience:8}"
            f"  {one.steps:5.2f}  {1 - one.steps / steps:5.0%}  {message}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
