# SPDX-License-Identifier: Apache-2.0
"""`reflex trace view`: open a trace, a bag or a live server in the Rerun viewer, or write a file for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from reflex_core.errors import ConfigurationError
from reflex_core.records.trace.parse import TraceError
from reflex_core.review.bounds import bounds_of
from reflex_core.review.episode_survey import Episode
from reflex_core.review.moments import Moment, moments
from reflex_core.review.selection import of_episodes
from reflex_core.text.untrusted import printable
from reflex_ros.cli.parser import add_command
from reflex_ros.cli.replay_console import shown
from reflex_ros.cli.trace_options import (
    add_bounds,
    add_more_filters,
    newest,
    opened,
    positive_count,
    selection_of,
    warn,
)
from reflex_ros.console.terminal import Bar

EPISODES, RECORDS = 20, 5000
LONGEST_SIDE = 480
RRD = ".rrd"


def add(commands: Any) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands, "view", "open recordings or a live server in the Rerun viewer",
        (
            "reflex trace view records --outcome failed",
            "reflex trace view http://localhost:8000",
            "reflex trace view records --headless --out grasp.rrd",
        ),
    )  # fmt: skip
    parser.add_argument(
        "paths", nargs="+", metavar="PATH|URL", help="trace files, bags, directories of them, or one server"
    )
    add_more_filters(parser)
    add = parser.add_argument
    add("--headless", action="store_true", help="open no window; needs --out")
    add(
        "--out",
        type=Path,
        metavar="FILE.rrd",
        help="write a file that `rerun FILE.rrd` opens, instead of a window",
    )
    add_bounds(parser, EPISODES, RECORDS, "in all; of a live server it ends then")
    add(
        "--image-size", type=positive_count, default=LONGEST_SIDE, metavar="PIXELS",
        help="longest side of an image; smaller images make smaller files",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Open or write the view. 0: done. Raises TraceError, ConfigurationError."""
    from reflex_ros.viewing.live import is_address, view_live

    if options.headless and options.out is None:
        raise ConfigurationError("--headless opens no window: name the file with --out FILE.rrd")
    if options.out is not None and options.out.suffix != RRD:
        raise ConfigurationError(f"--out {options.out}: must end with {RRD}, by which Rerun knows its files")
    addresses = [path for path in options.paths if is_address(path)]
    if not addresses:
        return _view(options)
    if len(options.paths) > 1:
        raise ConfigurationError("one server is viewed at a time: name its address alone")
    if not selection_of(options).everything:
        raise ConfigurationError("a live server has no episodes to choose from: leave the filters out")
    count = view_live(
        addresses[0], options.out, most=options.max_records, longest_side=options.image_size, warn=lambda text: warn([text])
    )  # fmt: skip
    print(f"{count} records of {addresses[0]}" + _written(options.out))
    return 0


def _view(options: argparse.Namespace) -> int:
    from reflex_ros.viewing.rerun_log import RerunLog

    chosen = newest(map(Path, options.paths), options, options.max_episodes)
    left_out = list(chosen.left_out)
    total = sum(episode.records for _, episodes in chosen.episodes for episode in episodes)
    with opened(chosen.episodes[0][0]) as source:
        bounds = bounds_of(source.header)
    bar, count = Bar(), 0
    with closing(RerunLog(f"reflex {printable(chosen.episodes[0][0].name)}", bounds)) as log:
        _open(log, options)
        for note in filter(None, [bounds.note, *left_out]):
            log.note(note, "WARN")
        for path, episodes in chosen.episodes:
            for moment in _moments(path, episodes, options.image_size):
                if count >= options.max_records:
                    break
                log.add(moment)
                count += 1
                bar.draw(count / max(total, 1), count)
            for episode in episodes:
                log.outcome(episode.episode_id, _ending(episode), episode.ended_ns)
    bar.clear()
    if count < total:
        left_out.append(
            f"{total - count} of {total} records are left out: --max-records {options.max_records}, or damage"
        )
    warn(dict.fromkeys(filter(None, [bounds.note, *left_out])))
    print(
        f"{count} records of {sum(len(episodes) for _, episodes in chosen.episodes)} episodes"
        + _written(options.out)
    )
    return 1 if chosen.damaged else 0


def _moments(path: Path, episodes: list[Episode], longest_side: int) -> Iterator[Moment]:
    """Yield the requests of some episodes, as far as the recording can be read: what is left out is known already."""
    with suppress(TraceError), opened(path) as source:
        records = of_episodes(source, frozenset(episode.episode_id for episode in episodes))
        yield from moments(records, source.header, longest_side)


def _open(log: Any, options: argparse.Namespace) -> None:
    if options.out is not None:
        log.save(options.out)
    else:
        print("opening the Rerun viewer; --headless --out FILE.rrd writes a file instead", file=sys.stderr)
        log.spawn()


def _ending(episode: Episode) -> str:
    return f"outcome {episode.outcome}" + (f": {shown(episode.note)}" if episode.note else "")


def _written(out: Path | None) -> str:
    if out is None:
        return ""
    return f" in {out} ({out.stat().st_size / 1e6:.1f} MB): `rerun {out}` opens it"
