# SPDX-License-Identifier: Apache-2.0
"""The command line of `reflex replay`: its options, and which go together."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from reflex_core.files.share import export_path
from reflex_core.replay.comparison import ACTIONS, ALL, MODES, Tolerances
from reflex_core.replay.runner import FAIL_ON, Plan, judges, modes_of
from reflex_ros.cli import replay_publish
from reflex_ros.cli.parser import Parser
from reflex_ros.cli.trace_options import add_filters, selection_of

STDOUT = "-"
TOLERANCES = Tolerances()
USUAL = {
    "diff": ACTIONS, "device": "auto", "min_cos": TOLERANCES.min_cosine, "max_abs": TOLERANCES.max_abs,
    "joint_share": TOLERANCES.joint_share,
}  # fmt: skip


def parser() -> Parser:
    """Return the parser. Options of USUAL that the user does not give are None: --publish does not use them."""
    parser = Parser(
        prog="reflex replay",
        description="Run recorded requests against a policy and compare the results.",
        epilog="exit status: 0 done, 1 wrong trace or command line, or nothing compared, 2 policy not loaded,"
        " 3 what --fail-on names has failed",
        examples=(
            "reflex replay traces/20261130-101500.jsonl.gz --no-replay",
            "reflex replay traces/20261130-101500.jsonl.gz --model ./my-export --diff all --fail-on actions",
            "reflex replay bags/20261130-101500 --publish --rate 0.5",
        ),
    )
    add = parser.add_argument
    add("trace", metavar="TRACE", type=Path, help="a .jsonl or .jsonl.gz trace, or the directory of a bag")
    add(
        "--model", type=export_path, metavar="DIR",
        help="export to run, demo: the embedded one; required unless --no-replay or --publish",
    )  # fmt: skip
    add("--model-b", type=export_path, metavar="DIR", help="export to run for the answers of slot b")
    add("--diff", choices=(*MODES, ALL), help=f"what to compare [default: {ACTIONS}]")
    add("--n", type=int, default=0, metavar="N", help="only the first N records [default: all]")
    add("--output", metavar="FILE", help="write a JSON report; - for standard output")
    add("--plot", type=Path, metavar="DIR", help="draw actions and latencies as PNG; needs reflex_ros[plot]")
    add("--fail-on", default="", choices=FAIL_ON, help="exit 3 if any diff of that kind fails")
    add("--no-replay", action="store_true", help="only describe the trace; needs no model")
    add(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the images of a hash_only trace, under any names",
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        help="draw all start noise from this seed instead of the recorded one",
    )
    add("--device", choices=("auto", "cpu", "cuda", "tensorrt"), help="where inference runs [default: auto]")
    robot = parser.add_mutually_exclusive_group()
    robot.add_argument(
        "--embodiment", default="", metavar="NAME", help="instead of the recorded one; none: no preset"
    )
    robot.add_argument(
        "--custom-embodiment-config", default="", metavar="FILE", help="instead of the recorded one"
    )
    add("--min-cos", type=float, metavar="X", help=f"minimum cosine [default: {TOLERANCES.min_cosine:g}]")
    add("--max-abs", type=float, metavar="X", help=f"largest difference [default: {TOLERANCES.max_abs:g}]")
    add(
        "--joint-share", type=float, metavar="X",
        help="largest difference of a joint, relative to its largest value in the chunk"
        f" [default: {TOLERANCES.joint_share:g}]",
    )  # fmt: skip
    add(
        "--allow-damage",
        action="store_true",
        help="exit 0 for a truncated trace if what is left passes",
    )
    add_filters(parser)
    replay_publish.add_arguments(parser)
    return parser


def plan_of(options: argparse.Namespace, ros_args: Sequence[str]) -> Plan:
    """Return what to compare. Raises ValueError for options that exclude each other, or numbers out of range."""
    replay_publish.check(options, ros_args)
    for name, value in USUAL.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if not options.publish and options.model is None and not options.no_replay:
        raise ValueError("--model names the export to run; --no-replay only reads the trace")
    for name in ("max_abs", "joint_share"):
        _require(
            math.isfinite(getattr(options, name)) and getattr(options, name) > 0, options, name, "more than 0"
        )
    _require(-1.0 <= options.min_cos <= 1.0, options, "min_cos", "from -1 to 1")
    if options.n < 0:
        raise ValueError(f"--n must not be negative, got {options.n}")
    if options.seed is not None and options.seed < 0:
        raise ValueError(f"--seed must not be negative, got {options.seed}")
    if options.publish and not selection_of(options).everything:
        raise ValueError(f"--publish plays the whole recording; leave out {selection_of(options).words()}")
    if options.fail_on and options.no_replay:
        raise ValueError(f"--fail-on {options.fail_on} needs a replay, and --no-replay makes none")
    if options.plot and (options.no_replay or options.publish):
        raise ValueError("--plot draws a replay, and --no-replay and --publish make none")
    tolerances = Tolerances(options.min_cos, options.max_abs, options.joint_share)
    plan = Plan(modes_of(options.diff), tolerances, options.n, options.fail_on)
    if not judges(plan):
        raise ValueError(
            f"--fail-on {plan.fail_on}: --diff {options.diff} does not compare it; take --diff all"
        )
    return plan


def _require(right: bool, options: argparse.Namespace, name: str, expected: str) -> None:
    if not right:
        raise ValueError(f"--{name.replace('_', '-')} must be {expected}, got {getattr(options, name):g}")
