# SPDX-License-Identifier: Apache-2.0
"""`reflex trace view`: open a trace, a bag or a live server in the Rerun viewer, or write a file for it."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from reflex_core.errors import ConfigurationError
from reflex_core.records.trace.parse import TraceError
from reflex_core.review.bounds import bounds_of
from reflex_core.review.episodes import Episode, Surveyed
from reflex_core.review.moments import moments
from reflex_core.review.selection import of_episodes
from reflex_ros.cli.replay_console import printable, shown
from reflex_ros.cli.trace_options import add_more_filters, opened, selection_of, surveyed, warn
from reflex_ros.console.terminal import Bar

EPISODES, RECORDS = 20, 5000
LONGEST_SIDE = 480
RRD = ".rrd"


def add(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "view", help="open recordings or a live server in the Rerun viewer", allow_abbrev=False,
        description="Show cameras, joints, commands, limits, guard events and latency on one timeline in Rerun"
        " (pip install 'reflex_ros[view]').",
        epilog="examples: reflex trace view records --outcome failed; reflex trace view http://localhost:8000;"
        " reflex trace view records --headless --out grasp.rrd",
    )  # fmt: skip
    parser.add_argument("paths", nargs="+", metavar="PATH|URL", help="trace files, bags, directories of them, or one server")
    add_more_filters(parser)
    add = parser.add_argument
    add("--headless", action="store_true", help="open no window; needs --out")
    add("--out", type=Path, metavar="FILE.rrd", help="write a file that `rerun FILE.rrd` opens, instead of a window")
    add("--max-episodes", type=_count, default=EPISODES, metavar="N", help=f"at most so many episodes, the newest ({EPISODES})")
    add("--max-records", type=_count, default=RECORDS, metavar="N", help=f"at most so many records in all ({RECORDS})")
    add(
        "--image-size", type=_count, default=LONGEST_SIDE, metavar="PIXELS",
        help=f"longest side of an image; smaller images make smaller files ({LONGEST_SIDE})",
    )  # fmt: skip
    add("--seconds", type=float, default=0.0, metavar="S", help="of a live server: end after so long; 0: at Ctrl-C")
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
        addresses[0], options.out, seconds=options.seconds, longest_side=options.image_size, warn=lambda text: warn([text])
    )  # fmt: skip
    print(f"{count} records of {addresses[0]}" + _written(options.out))
    return 0


def _view(options: argparse.Namespace) -> int:
    from reflex_ros.viewing.rerun_log import RerunLog

    chosen, left_out, damaged = _chosen(options)
    if not chosen:
        words = selection_of(options).words()
        raise TraceError(f"no episode{f' with {words}' if words else ''} in {', '.join(options.paths)}: `reflex trace ls` lists them")
    first = chosen[0][1]
    bounds = bounds_of(first.header)
    bar, total, count = Bar(), sum(episode.records for _, _, episodes in chosen for episode in episodes), 0
    with closing(RerunLog(f"reflex {printable(Path(chosen[0][0]).name)}", bounds)) as log:
        _open(log, options)
        for note in filter(None, [bounds.note, *left_out]):
            log.note(note, "WARN")
        for path, _, episodes in chosen:
            wanted = {episode.episode_id: episode for episode in episodes}
            try:
                with opened(path) as source:
                    for moment in moments(of_episodes(source, frozenset(wanted)), source.header, options.image_size):
                        if count >= options.max_records:
                            left_out.append(f"{total - count} records beyond --max-records {options.max_records} are left out")
                            break
                        log.add(moment)
                        count += 1
                        bar.draw(count / max(total, 1), count)
            except TraceError as error:
                left_out.append(f"{error}; what follows is left out")
            for episode in episodes:
                log.outcome(episode.episode_id, _ending(episode))
    bar.clear()
    warn(dict.fromkeys(filter(None, [bounds.note, *left_out])))
    episodes_shown = sum(len(episodes) for _, _, episodes in chosen)
    print(f"{count} records of {episodes_shown} episodes" + _written(options.out))
    return 1 if damaged else 0


def _chosen(options: argparse.Namespace) -> tuple[list[tuple[Path, Surveyed, list[Episode]]], list[str], bool]:
    """Return the newest episodes that are wanted, by recording, what is left out, and whether a recording could not be read."""
    wanted, left_out, damaged = selection_of(options), list[str](), False
    found: list[tuple[Path, Surveyed, list[Episode]]] = []
    for path, survey in surveyed(map(Path, options.paths)):
        if isinstance(survey, TraceError):
            left_out.append(str(survey))
            damaged = True
            continue
        left_out += survey.left_out
        found.append((path, survey, [episode for episode in survey.episodes if wanted.takes(episode)]))
    spare, kept = options.max_episodes, list[tuple[Path, Surveyed, list[Episode]]]()
    for path, survey, episodes in reversed(found):
        newest = episodes[max(len(episodes) - spare, 0) :] if spare else []
        spare -= len(newest)
        if newest:
            kept.insert(0, (path, survey, newest))
    dropped = sum(len(episodes) for _, _, episodes in found) - sum(len(episodes) for _, _, episodes in kept)
    if dropped:
        left_out.append(f"{dropped} older episodes are left out: --max-episodes {options.max_episodes}, or a filter, chooses others")
    return kept, left_out, damaged


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


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 1000000, got {text[:40]!r}")
    return int(text)
