# SPDX-License-Identifier: Apache-2.0
"""`reflex trace ls`: list the episodes of traces and bags."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from reflex_core.files.json_lines import json_line
from reflex_core.records.trace.parse import TraceError
from reflex_core.review.episode_survey import Episode, Surveyed
from reflex_core.text.untrusted import printable
from reflex_ros.cli.parser import add_command
from reflex_ros.cli.trace_options import add_more_filters, add_paths, selection_of, surveyed, warn

WIDTH = 100  # columns of the table, on a terminal and in a pipe
TITLES = ("EPISODE", "BEGAN", "INSTRUCTION", "OUTCOME", "RECORDS", "LENGTH", "CLAMPED", "HELD", "P99")
LEFT = 4  # so many columns are text; the others are numbers
EPISODE_WIDTH, INSTRUCTION = 18, 2  # the second: which column gives way


def add(commands: Any) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands, "ls", "list episodes: instruction, outcome, length, clamps, holds, p99",
        (
            "reflex trace ls records --outcome failed --clamped",
        ),
    )  # fmt: skip
    add_paths(parser)
    add_more_filters(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per episode and line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List the episodes. 0: done; 1: a recording could not be read. Raises TraceError for a path without recordings."""
    wanted, status, listed, seen = selection_of(options), 0, 0, 0
    for path, found in surveyed(options.paths):
        if isinstance(found, TraceError):
            warn([str(found)])
            status = 1
            continue
        episodes = [episode for episode in found.episodes if wanted.takes(episode)]
        seen += len(found.episodes)
        if options.json:
            _print_json(path, episodes)
        elif episodes:
            print(*([""] if listed else []), *_lines(path, found, episodes), sep="\n")
        listed += len(episodes)
        warn(found.left_out)
    if not listed and not options.json:
        print(
            f"none of {seen} episodes matches {wanted.words()}"
            if seen and not wanted.everything
            else "no episodes"
        )
    return status


def _print_json(path: Path, episodes: Sequence[Episode]) -> None:
    for episode in episodes:
        print(json_line({"path": str(path)} | episode.document()).decode())


def _lines(path: Path, found: Surveyed, episodes: Sequence[Episode]) -> list[str]:
    count = (
        f"{len(episodes)} of {len(found.episodes)} episodes" if len(episodes) < len(found.episodes) else ""
    )
    head = f"{printable(str(path))}{f'  ({count})' if count else ''}"
    return [head, *table([TITLES, *(row(episode) for episode in episodes)])]


def row(episode: Episode) -> tuple[str, ...]:
    """Return the cells of one episode."""
    p99_ms = episode.p99_ms
    instruction = episode.instructions[0] if episode.instructions else ""
    more = len(episode.instructions) - 1
    return (
        _cut(printable(episode.episode_id), EPISODE_WIDTH), short_time(episode.began_ns),
        printable(instruction) + (f" (+{more})" if more > 0 else ""), episode.outcome, str(episode.records),
        f"{episode.length_s:.1f} s", str(episode.clamped), str(episode.held),
        "" if p99_ms is None else f"{p99_ms:.1f} ms",
    )  # fmt: skip


def table(rows: Sequence[Sequence[str]], width: int = WIDTH) -> list[str]:
    """Return the rows as lines of at most `width` columns; the instruction is cut to what the others leave."""
    widths = [max(len(cells[at]) for cells in rows) for at in range(len(rows[0]))]
    others = sum(widths) - widths[INSTRUCTION] + 2 * (len(widths) - 1)
    widths[INSTRUCTION] = min(widths[INSTRUCTION], max(width - others, len(TITLES[INSTRUCTION])))
    lines = []
    for cells in rows:
        shown = [_cut(cell, size) for cell, size in zip(cells, widths, strict=True)]
        parts = [
            cell.ljust(size) if at < LEFT else cell.rjust(size)
            for at, (cell, size) in enumerate(zip(shown, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    return lines


def local_time(time_ns: int) -> str:
    """Return a moment in local time to the second; empty where it is not known."""
    if time_ns <= 0:
        return ""
    return datetime.fromtimestamp(time_ns // 10**9, timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def short_time(time_ns: int) -> str:
    """Return the time of day of a moment today, else its date and the minute."""
    if time_ns <= 0:
        return ""
    moment, now = (
        datetime.fromtimestamp(time_ns // 10**9, timezone.utc).astimezone(),
        datetime.now().astimezone(),
    )
    return moment.strftime("%H:%M:%S" if moment.date() == now.date() else "%m-%d %H:%M")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: max(most - 3, 0)]}..."
