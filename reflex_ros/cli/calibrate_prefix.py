# SPDX-License-Identifier: Apache-2.0
"""`reflex calibrate-prefix`: measure how much an image may change before a cached prefix is invalid (docs/how-to/measure-prefix-threshold.md)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from reflex_core.calibration.prefix_threshold import (
    ENOUGH,
    MAX_AGE_MS,
    Measured,
    measured,
    prefix_block,
    threshold,
    uncalibrated,
)
from reflex_core.errors import ReflexError
from reflex_core.export.config_schema import MOST_AGE_MS
from reflex_core.export.export import CONFIG_NAME, config_path, open_export
from reflex_core.files.atomic import write_block
from reflex_core.files.observations import named_observations
from reflex_core.files.share import export_path
from reflex_core.policy.load import load_policy
from reflex_ros.cli.parser import Parser
from reflex_ros.cli.robot_options import add_robot, robot_of
from reflex_ros.console.terminal import plain_table


def main(argv: list[str] | None = None) -> int:
    """Measure and print. 0: a threshold was found; 1: there is none, or it could not be measured; 2: usage."""
    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        return _calibrate(options.export_dir, options)
    except (ReflexError, OSError) as error:
        print(f"reflex calibrate-prefix: {error}", file=sys.stderr)
        return 1


def parser() -> Parser:
    """Return the command line of `reflex calibrate-prefix`."""
    made = Parser(
        prog="reflex calibrate-prefix",
        description="Measure how much an image may change before --prefix-cache computes a new prefix.",
        examples=("reflex calibrate-prefix ./my-export --observations still/ --moved moved/ --write",),
    )
    made.add_argument(
        "export_dir", metavar="EXPORT", type=export_path, help="the export; demo: the embedded one"
    )
    made.add_argument(
        "--observations", type=Path, required=True, metavar="DIR",
        help="recorded observations (docs/reference/observations.md); files whose names differ only in the number at the end"
        " show one unchanged scene",
    )  # fmt: skip
    made.add_argument(
        "--moved", type=Path, metavar="DIR",
        help="the same scenes after the smallest move that must be detected, under the same file names",
    )  # fmt: skip
    add_robot(made)
    made.add_argument(
        "--max-age-ms", type=_age, metavar="MS", default=MAX_AGE_MS, help="maximum age of a prefix"
    )
    made.add_argument(
        "--write", action="store_true", help=f"write the result into the export's {CONFIG_NAME}"
    )
    return made


def _age(text: str) -> float:
    value = float(text)
    if not 1.0 <= value <= MOST_AGE_MS:
        raise argparse.ArgumentTypeError(f"must lie between 1 and {MOST_AGE_MS:g}, got {text}")
    return value


def _calibrate(path: Path, options: argparse.Namespace) -> int:
    export = open_export(path)
    policy = load_policy(uncalibrated(export), robot_of(path, options), "cpu", 1)
    seen = named_observations(options.observations)
    found = measured(policy, seen, named_observations(options.moved) if options.moved else {})
    chosen = threshold(found)
    print(f"{export.model_version}: {_words(found)}\n")
    print(_table(found))
    print(f"\nthreshold {chosen:g}: {_rule(found)}")
    for note in _notes(found):
        print(f"note: {note}")
    if not options.write:
        print(f"nothing was written; --write keeps the threshold in {config_path(path)}")
        return 0
    figures: dict[str, float] = (
        {"still_pairs": len(found.still), "noise": round(found.noise, 4)} if found.still else {}
    )
    if found.moved:
        median = float(np.median(found.moved))
        figures |= {"least_change": round(found.least, 4), "median_change": round(median, 4)}
    block = prefix_block(chosen, options.max_age_ms, export.model_hash, _words(found), **figures)
    write_block(config_path(path), "prefix_cache", block)
    print(f"written to {config_path(path)}")
    return 0


def _words(found: Measured) -> str:
    parts = [f"{len(found.still)} recorded pairs of an unchanged scene"] if found.still else []
    parts += [f"{len(found.moved)} before and after a move"] if found.moved else []
    return ", ".join(parts)


def _rule(found: Measured) -> str:
    if found.moved:
        return "what 95 % of the moves exceed"
    return "what 95 % of the pictures of an unchanged scene do not exceed; anything more is a change"


def _notes(found: Measured) -> list[str]:
    notes = []
    for name, pairs in (("moves", found.moved), ("pairs of an unchanged scene", found.still)):
        if 0 < len(pairs) < ENOUGH:
            notes.append(
                f"{len(pairs)} {name}: of fewer than {ENOUGH}, 95 % are no more than the extreme one"
            )
    if found.moved and not found.still:
        notes.append(
            "no two images of one unchanged scene: whether the camera's noise is below it is unknown"
        )
    if not found.moved:
        notes.append("without --moved the cache saves only while nothing in the picture moves at all")
    return notes


def _table(found: Measured) -> str:
    head = ("image change", "pairs", "median", "5 %", "95 %", "max")
    rows = [
        (name, str(len(pairs)), *(f"{value:.4f}" for value in np.quantile(pairs, (0.5, 0.05, 0.95, 1.0))))
        for name, pairs in (("unchanged", found.still), ("moved", found.moved))
        if pairs
    ]
    return "\n".join(plain_table([head, *rows]))


if __name__ == "__main__":
    sys.exit(main())
