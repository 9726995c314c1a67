# SPDX-License-Identifier: Apache-2.0
"""`reflex trace show`: what happened in an episode, record by record, or in one record."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.verdicts import verdict_of
from reflex_core.review.bounds import Bounds, bounds_of
from reflex_core.review.episode_survey import Episode
from reflex_core.review.moments import Moment, moments, spans
from reflex_core.review.selection import of_episodes
from reflex_core.text.untrusted import printable
from reflex_core.values import Floats
from reflex_ros.cli.parser import add_command
from reflex_ros.cli.replay_console import shown
from reflex_ros.cli.trace_ls import local_time
from reflex_ros.cli.trace_options import add_filters, add_paths, opened, selection_of, surveyed, warn

RECORDS_SHOWN = 200
THUMBNAIL = 16  # an image is only decoded here, to report whether that is possible


def add(commands: Any) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands, "show", "print an episode record by record, or one record in full",
        (
            "reflex trace show records --episode grasp-17",
        ),
    )  # fmt: skip
    add_paths(parser)
    add_filters(parser)
    parser.add_argument("--record", type=int, metavar="N", help="only the record with this seq, in full")
    parser.add_argument(
        "--n", type=int, default=RECORDS_SHOWN, metavar="N", help="at most so many records per episode"
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the episodes. 0: done; 1: a recording could not be read, or nothing was found. Raises TraceError."""
    wanted, found_any, status, number = selection_of(options), False, 0, 0
    for path, found in surveyed(options.paths):
        if isinstance(found, TraceError):
            warn([str(found)])
            status = 1
            continue
        number += len(found.episodes)
        if options.record is not None:
            names = frozenset(episode.episode_id for episode in found.episodes if wanted.takes(episode))
            found_any |= _record(path, options.record, names)
            continue
        warn(found.left_out)
        for episode in filter(wanted.takes, found.episodes):
            found_any = True
            print(*_episode(path, episode, options.n), sep="\n")
    if not found_any:
        what = f"record {options.record}" if options.record is not None else wanted.words() or "episodes"
        raise TraceError(
            f"no {what} in {', '.join(map(str, options.paths))}: `reflex trace ls` lists its {number} episodes"
        )
    return status


def _episode(path: Path, episode: Episode, most: int) -> Iterator[str]:
    yield f"episode {shown(episode.episode_id)} in {printable(str(path))}"
    for instruction in episode.instructions:
        yield f"  instruction: {shown(instruction)}"
    note = f": {shown(episode.note)}" if episode.note else ""
    yield f"  outcome: {episode.outcome}{note}"
    p99 = "" if episode.p99_ms is None else f", p99 {episode.p99_ms:.1f} ms"
    yield (
        f"  {episode.records} records in {episode.length_s:.1f} s from {local_time(episode.began_ns) or 'unknown'}:"
        f" {episode.clamped} clamped, {episode.held} held, {episode.errors} errors{p99}"
    )
    with opened(path) as source:
        records = of_episodes(source, frozenset([episode.episode_id]))
        for number, record in enumerate(records):
            if number == most:
                yield f"  and {episode.records - most} more: --n {episode.records} prints them"
                return
            yield f"  seq={record.seq:4d}  {record.total_ms:7.1f} ms  {shown(verdict_of(record.document).sentence)}"


def _record(path: Path, seq: int, wanted: frozenset[str]) -> bool:
    with opened(path) as source:
        bounds = bounds_of(source.header)
        records = (record for record in of_episodes(source, wanted) if record.seq == seq)
        for moment in moments(records, source.header, THUMBNAIL):
            print(f"record {seq} in {printable(str(path))}", *_full(moment, bounds), sep="\n")
            return True
    return False


def _full(moment: Moment, bounds: Bounds) -> Iterator[str]:
    document = moment.document
    yield f"  {shown(moment.verdict.sentence)}"
    yield f"  instruction: {shown(moment.instruction)}"
    yield f"  episode: {shown(moment.episode_id or '-')}, answered {shown(document.get('timestamp') or 'at an unknown time')}"
    stages = ", ".join(f"{shown(name)} {ms:.1f}" for name, ms in moment.stages_ms.items())
    budget = f" of {moment.budget_ms:.1f} ms" if moment.budget_ms is not None else ""
    yield f"  latency: {moment.total_ms:.1f} ms{budget}{f' ({stages})' if stages else ''}"
    for line in moment.verdict.violations:
        yield f"  guard: {shown(line)}"
    for camera in moment.images:
        yield f"  camera {shown(camera)}: recorded"
    for camera, why in moment.without.items():
        yield f"  camera {shown(camera)}: {shown(why)}"
    if bounds.note:
        yield f"  {bounds.note}"
    yield from _joints(moment, bounds)


def _joints(moment: Moment, bounds: Bounds) -> Iterator[str]:
    if not moment.served.size:
        return
    yield f"  {len(moment.served)} rows of {moment.dt_s:g} s:"
    rows = [("joint", "measured", "served", "raw", "limits", "speed limit", "rows changed")]
    for column, name in enumerate(moment.names):
        low, high = bounds.of(name)
        measured = moment.measured.get(name)
        changed = ", ".join(
            f"{first}-{last}" if first < last else f"{first}"
            for first, last in spans(moment.changed[:, column])
        )
        raw = _range(moment.raw, column) if changed else ""
        limits = "" if low is None and high is None else f"{_side(low)} to {_side(high)}"
        speed = f"{bounds.speeds[name]:.3g} /s" if name in bounds.speeds else ""
        at = "" if measured is None else f"{measured:.3f}"
        rows.append((shown(name), at, _range(moment.served, column), raw, limits, speed, changed))
    widths = [max(len(cells[at]) for cells in rows) for at in range(len(rows[0]))]
    for cells in rows:
        yield "    " + "  ".join(cell.ljust(size) for cell, size in zip(cells, widths, strict=True)).rstrip()


def _range(rows: Floats, column: int) -> str:
    if column >= rows.shape[1] or not len(rows):
        return ""
    values = rows[:, column]
    return f"{np.min(values):.3f} to {np.max(values):.3f}"


def _side(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
