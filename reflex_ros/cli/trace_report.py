# SPDX-License-Identifier: Apache-2.0
"""`reflex trace report`: what the policy saw and what was commanded, as one HTML file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reflex_core.files.atomic import atomic_write
from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.verdicts import verdict_of
from reflex_core.review.bounds import bounds_of
from reflex_core.review.choose import chosen
from reflex_core.review.episode_survey import WITHOUT_ID, Episode
from reflex_core.review.moments import Moment, moments
from reflex_core.review.page import Chapter, heading, page
from reflex_core.review.selection import of_episodes
from reflex_ros.cli.parser import add_command
from reflex_ros.cli.trace_options import add_bounds, add_more_filters, add_paths, newest, opened, warn

EPISODES, RECORDS = 10, 40
LONGEST_SIDE = 320


def add(commands: Any) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands, "report", "write an HTML report: images, raw against served with limits, reasons",
        (
            "reflex trace report records --outcome failed --plot report.html",
        ),
    )  # fmt: skip
    add_paths(parser)
    add_more_filters(parser)
    parser.add_argument(
        "--plot", type=Path, required=True, metavar="FILE.html", help="the file to write; replaced if it is there"
    )  # fmt: skip
    add_bounds(parser, EPISODES, RECORDS, "of an episode, those where something happened first")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the report. 0: done; 1: a recording could not be read. Raises TraceError, ConfigurationError."""
    found = newest(options.paths, options, options.max_episodes)
    notes = list(found.left_out)
    chapters = [
        chapter
        for path, episodes in found.episodes
        for chapter in _chapters(path, episodes, options.max_records, notes)
    ]
    title = (
        heading(chapters[0].episode)
        if len(chapters) == 1
        else f"{len(chapters)} episodes of {', '.join(map(str, options.paths))}"
    )
    atomic_write(options.plot, "".join(page(title, chapters, notes)).encode("utf-8", "replace"))
    warn(notes)
    drawn = sum(len(chapter.shown) for chapter in chapters)
    size = options.plot.stat().st_size / 1e6
    print(
        f"{drawn} of {sum(chapter.episode.records for chapter in chapters)} records in {options.plot} ({size:.1f} MB)"
    )
    return 1 if found.damaged else 0


def _chapters(path: Path, episodes: list[Episode], most: int, notes: list[str]) -> Iterator[Chapter]:
    """Yield the episodes of one recording: one pass finds what happened, a second keeps what is drawn."""
    words: dict[str, list[tuple[int, str]]] = {episode.episode_id: [] for episode in episodes}
    shown: dict[str, list[Moment]] = {episode.episode_id: [] for episode in episodes}
    wanted = frozenset(words)
    try:
        with opened(path) as source:
            bounds = bounds_of(source.header)
            for record in of_episodes(source, wanted):
                words[record.episode_id or WITHOUT_ID].append((record.seq, verdict_of(record.document).word))
    except TraceError:
        pass  # the survey has reported it
    picked = {name: chosen(found, most) for name, found in words.items()}
    try:
        with opened(path) as source:
            records = (
                record
                for record in of_episodes(source, wanted)
                if record.seq in picked[record.episode_id or WITHOUT_ID]
            )
            for moment in moments(records, source.header, LONGEST_SIDE):
                shown[moment.episode_id or WITHOUT_ID].append(moment)
    except TraceError:
        pass
    for episode in episodes:
        found = words[episode.episode_id]
        if len(found) > len(shown[episode.episode_id]):
            notes.append(
                f"episode {episode.episode_id}: {len(shown[episode.episode_id])} of {len(found)} records are drawn:"
                f" --max-records {most}"
            )
        yield Chapter(episode, found, shown[episode.episode_id], bounds)
