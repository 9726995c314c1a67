# SPDX-License-Identifier: Apache-2.0
"""Options that the sub-commands of `reflex trace`, and `reflex replay`, have in common: paths and which episodes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from reflex_core.records.trace.parse import TraceError
from reflex_core.replay.comparison import Source
from reflex_core.replay.sources import open_source
from reflex_core.review.episode_survey import OUTCOMES, Episode, Surveyed, survey
from reflex_core.review.selection import Selection, since
from reflex_core.review.trace_paths import recordings
from reflex_core.text.untrusted import printable

ISO_HELP = "2h, 3d, 2026-11-30, 2026-11-30T17:00"


def add_paths(parser: argparse.ArgumentParser) -> None:
    """Add the recordings that a command reads."""
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="trace files, bags, or directories of them"
    )


def add_filters(parser: argparse.ArgumentParser) -> Any:
    """Add which episodes are wanted, and return the group of options."""
    group = parser.add_argument_group("which episodes", "several of these must all hold")
    group.add_argument(
        "--episode", action="append", default=[], metavar="ID",
        help="this one; ID... takes those that begin so, - the requests without one; repeats",
    )  # fmt: skip
    group.add_argument("--outcome", choices=OUTCOMES, default="", help="those that ended like this")
    group.add_argument("--clamped", action="store_true", help="those where the guard changed an action")
    group.add_argument("--held", action="store_true", help="those where the robot was held")
    return group


def add_more_filters(parser: argparse.ArgumentParser) -> None:
    """Add filters by instruction and time too."""
    add = add_filters(parser).add_argument
    add("--instruction", default="", metavar="TEXT", help="those whose instruction contains it")
    add("--since", type=_since, metavar="TIME", help=f"those that began then or later: {ISO_HELP}")


def add_bounds(parser: argparse.ArgumentParser, episodes: int, records: int, records_help: str) -> None:
    """Add how much is shown at most. episodes, records: the defaults; records_help: of what, and which of them."""
    parser.add_argument(
        "--max-episodes", type=positive_count, default=episodes, metavar="N",
        help="at most so many episodes, the newest",
    )  # fmt: skip
    parser.add_argument(
        "--max-records", type=positive_count, default=records, metavar="N",
        help=f"at most so many records {records_help}",
    )  # fmt: skip


def selection_of(options: argparse.Namespace) -> Selection:
    """Return which episodes are wanted."""
    return Selection(
        tuple(options.episode), options.outcome, options.clamped, options.held,
        getattr(options, "instruction", ""), getattr(options, "since", None),
    )  # fmt: skip


def surveyed(paths: Iterable[Path]) -> Iterator[tuple[Path, Surveyed | TraceError]]:
    """Yield every recording below the paths with its episodes, or why there are none. Raises TraceError for a path without any."""
    for path in recordings(paths):
        try:
            with opened(path) as source:
                yield path, survey(source)
        except TraceError as error:
            yield path, error


@dataclass(frozen=True, slots=True)
class Chosen:
    """The episodes that a command works on, by recording. left_out: sentences; damaged: a recording could not be read."""

    episodes: tuple[tuple[Path, list[Episode]], ...]
    left_out: tuple[str, ...]
    damaged: bool


def newest(paths: Iterable[Path], options: argparse.Namespace, most: int) -> Chosen:
    """Return the newest `most` episodes of the paths that the options ask for. Raises TraceError where there is none."""
    wanted, left_out, damaged, seen = selection_of(options), list[str](), False, 0
    found: list[tuple[Path, list[Episode]]] = []
    paths = list(paths)
    for path, survey_of_it in surveyed(paths):
        if isinstance(survey_of_it, TraceError):
            left_out.append(str(survey_of_it))
            damaged = True
            continue
        left_out += survey_of_it.left_out
        seen += len(survey_of_it.episodes)
        found.append((path, [episode for episode in survey_of_it.episodes if wanted.takes(episode)]))
    count = sum(len(episodes) for _, episodes in found)
    if not count:
        words = f" with {wanted.words()}" if not wanted.everything else ""
        where = ", ".join(map(str, paths))
        raise TraceError(
            "; ".join(
                [f"no episode{words} among the {seen} in {where}: `reflex trace ls` lists them", *left_out]
            )
        )
    spare, kept = most, list[tuple[Path, list[Episode]]]()
    for path, episodes in reversed(found):
        last = episodes[max(len(episodes) - spare, 0) :] if spare else []
        spare -= len(last)
        if last:
            kept.insert(0, (path, last))
    if count > most:
        left_out.append(
            f"{count - most} older episodes are left out: --max-episodes {most}, or a filter, chooses others"
        )
    return Chosen(tuple(kept), tuple(left_out), damaged)


def positive_count(text: str) -> int:
    """Return a number of things, from 1 to a million."""
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1000000, got {text[:40]!r}")
    return int(text)


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a trace or a bag. Raises TraceError."""

    def bag(path: Path) -> Source:
        from reflex_ros.bag.source import BagSource  # a trace is read without what reads bags

        return BagSource(path)

    with open_source(path, bag) as source:
        yield source


def warn(sentences: Iterable[str]) -> None:
    """Print sentences about what was left out to standard error."""
    for sentence in sentences:
        print(f"WARN: {printable(sentence)}", file=sys.stderr)


def _since(text: str) -> int:
    try:
        return since(text, datetime.now().astimezone())
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"expected a duration or a time such as {ISO_HELP}, got {text[:40]!r}"
        ) from error
