# SPDX-License-Identifier: Apache-2.0
"""`reflex ab report`: compare two policies by the traces of both (docs/how-to/two-policies.md)."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from reflex_core.ab.chart import picture
from reflex_core.ab.report import report_document, table
from reflex_core.ab.sequential import ALPHA
from reflex_core.ab.tally import Tally
from reflex_core.ab.trace_order import add_traces
from reflex_core.files.json_lines import json_line
from reflex_core.records.trace.parse import TraceError
from reflex_ros.cli.parser import Parser, add_command

STDOUT = "-"


def main(argv: list[str] | None = None) -> int:
    """Report on traces. 0: done; 1: a trace cannot be read, or the report not written; 2: bad command line."""
    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    logging.getLogger("reflex_core").addHandler(logging.NullHandler())  # what matters is printed here
    tally = Tally(options.split, options.alpha)
    try:
        document = report_document(tally, add_traces(options.traces, tally))
        if options.json == STDOUT:
            print(json_line(document).decode())
        else:
            print(table(document))
        if options.json and options.json != STDOUT:
            Path(options.json).write_bytes(json_line(document) + b"\n")
        if options.picture:
            options.picture.write_text(picture(document, tally.test.path), encoding="utf-8")
    except TraceError as error:
        print(f"reflex ab: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"reflex ab: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def parser() -> Parser:
    """Return the command line of `reflex ab`."""
    made = Parser(prog="reflex ab", description="Compare the two policies of a server.")
    reporting = add_command(
        made.add_subparsers(dest="command", required=True), "report", "success, latency and violations of each slot, from traces",
        ("reflex ab report traces/", "reflex ab report traces/*.jsonl.gz --json report.json --picture report.svg"),
    )  # fmt: skip
    reporting.add_argument(
        "traces", type=Path, metavar="TRACE", nargs="+", help="trace files, or directories of them"
    )
    reporting.add_argument(
        "--split",
        type=_percent,
        metavar="PERCENT",
        help="share of episodes for a, if the traces do not record it",
    )
    reporting.add_argument(
        "--alpha", type=_share, metavar="P", default=ALPHA, help="probability of a wrong decision"
    )
    reporting.add_argument("--json", metavar="FILE", help="write the report as JSON; - prints it")
    reporting.add_argument("--picture", type=Path, metavar="FILE", help="draw the report as SVG")
    return made


def _percent(text: str) -> int:
    if not text.isdecimal() or int(text) > 100:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 100, got {text[:40]!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text[:40]!r}")
    return share


if __name__ == "__main__":
    sys.exit(main())
