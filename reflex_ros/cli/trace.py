# SPDX-License-Identifier: Apache-2.0
"""`reflex trace`: list, show and view recordings, report on them, export a dataset of them (docs/reference/trace-tools.md)."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reflex_core.dataset.convert import WRITERS, export
from reflex_core.dataset.survey import Survey
from reflex_core.errors import ConfigurationError
from reflex_core.records.trace.parse import TraceError
from reflex_core.replay.comparison import Source
from reflex_core.replay.recorded_images import ImageFiles
from reflex_core.replay.sources import open_source
from reflex_core.text.untrusted import printable
from reflex_ros.cli import trace_ls, trace_report, trace_show, trace_view
from reflex_ros.cli.parser import Parser, add_command
from reflex_ros.cli.replay_console import shown
from reflex_ros.cli.trace_streams import add_rate_options, streams_of
from reflex_ros.console.terminal import Bar


def main(argv: list[str] | None = None) -> int:
    """Use traces. 0: done; 1: a recording cannot be read, or something not be written; 2: bad command line."""
    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    logging.getLogger("reflex_core").addHandler(logging.NullHandler())  # what matters is printed here
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a recorded text must not end a command
    try:
        return int(options.run(options))
    except (TraceError, ConfigurationError) as error:
        print(f"reflex trace: {printable(str(error))}", file=sys.stderr)
        return 1


def run_export(options: argparse.Namespace) -> int:
    """Export a dataset. Raises TraceError, ConfigurationError."""
    bar = Bar(plain=partial(print, file=sys.stderr, flush=True))
    try:
        images = ImageFiles(options.images) if options.images else None
        found = export(
            options.traces, _open, options.format, options.output, images=images, streams=streams_of(options, _open), fps=options.fps,
            allow_damage=options.allow_damage, progress=bar.draw,
        )  # fmt: skip
    except KeyboardInterrupt:
        bar.clear()
        print("reflex trace: stopped, nothing was written", file=sys.stderr)
        return 130
    finally:
        bar.clear()
    print(*_summary(found, options.output), sep="\n")
    return 0


def parser() -> Parser:
    """Return the command line of `reflex trace`."""
    made = Parser(
        prog="reflex trace", description="Use recordings: list, show and view their episodes, export them."
    )
    commands = made.add_subparsers(dest="command", required=True)
    for command in (trace_ls, trace_show, trace_view, trace_report):
        command.add(commands)
    exporting = add_command(
        commands, "export", "export a training dataset",
        ("reflex trace export traces/*.jsonl.gz --format lerobot --output ./dataset",),
    )  # fmt: skip
    add = exporting.add_argument
    add("traces", metavar="TRACE", type=Path, nargs="+", help="trace files and bags, each named")
    add("--format", choices=tuple(WRITERS), required=True, help="lerobot needs reflex_ros[lerobot]")
    add("--output", type=Path, metavar="DIR", required=True, help="directory of the dataset; must be new")
    add_rate_options(add)
    add(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the images of hash_only traces, under any names",
    )
    add("--allow-damage", action="store_true", help="export what is left of a truncated trace")
    exporting.set_defaults(run=run_export)
    return made


def _open(path: Path) -> Source:
    def bag(path: Path) -> Source:
        from reflex_ros.bag.source import BagSource  # a trace is exported without what reads bags

        return BagSource(path)

    return open_source(path, bag)


def _summary(found: Survey, output: Path) -> Iterator[str]:
    layout = found.layout
    cameras = ", ".join(f"{shown(name)} {width}x{height}" for name, (height, width) in layout.cameras.items())
    yield f"{output}: {found.count} frames of {len(found.episodes)} episodes, {len(found.tasks)} instructions"
    yield f"  cameras: {cameras or 'none'}"
    chunks = f"chunks {layout.horizon}x" if found.fps is None else "actions "
    yield f"  state {layout.state_dim}, {chunks}{len(layout.action_names)}"
    if found.fps is not None:
        yield f"  frames per second: {found.fps:g}"
    elif found.rate_hz is not None:
        yield f"  frames per second, mean: {found.rate_hz:.3g}"
    if found.left_out:
        yield "  left out: " + ", ".join(
            f"{shown(why)} {count}" for why, count in sorted(found.left_out.items())
        )
    if found.without_id:
        yield (
            f"WARN: {found.without_id} requests belong to no episode: those of each trace are taken as one episode"
        )
    for warning in found.warnings:
        yield f"WARN: {printable(warning)}"


if __name__ == "__main__":
    sys.exit(main())
