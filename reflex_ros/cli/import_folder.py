# SPDX-License-Identifier: Apache-2.0
"""`reflex import`: one of our exports of an ONNX export that another program made (docs/how-to/import-an-export.md)."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from pathlib import Path

from reflex_core.errors import ReflexError
from reflex_export.importing.description_of import ImportOptions
from reflex_export.importing.import_folder import run
from reflex_export.options import UNITS
from reflex_ros.cli.argument_types import comma_separated, rate_hz
from reflex_ros.cli.parser import Parser
from reflex_ros.console.program import called

REFUSED = 2


def main(argv: list[str] | None = None) -> int:
    """Import. 0: imported; 2: refused, and nothing was written."""
    given = parser().parse_args(sys.argv[1:] if argv is None else argv)
    options = ImportOptions(
        given.names,
        given.state_names,
        given.fps,
        given.units,
        given.tokenizer,
        given.image_range,
        given.force,
    )
    try:
        imported = run(given.folder, given.out, options, _say)
    except (ReflexError, OSError) as error:
        print(f"reflex import: {error}", file=sys.stderr)
        return REFUSED
    print(
        f"imported: {imported.folder}, {imported.model_version}, ran once: chunks of {imported.rows} rows and"
        f" {imported.width} actions, all finite; whether it answers as its own program does was not compared"
    )
    print(f"next: {called()} serve {shlex.quote(str(imported.folder))} --embodiment ROBOT --no-ros")
    return 0


def parser() -> Parser:
    """Return the command line of `reflex import`."""
    made = Parser(
        prog="reflex import",
        description="Describe an ONNX export of another program so that `reflex serve` takes it: a policy_package (manifest.json"
        " of LeRobot and physicalai), or a LEAPP bundle (.yaml of Isaac Lab) with one graph. No code of it is run,"
        " and neither torch nor its program is needed.",
        examples=("reflex import ./policy_package ./my-export --fps 30 --units degrees",),
    )
    made.add_argument("folder", metavar="DIR", type=Path, help="the export of the other program")
    made.add_argument("out", metavar="OUT", type=Path, help="folder that is made")
    made.add_argument(
        "--names",
        type=comma_separated,
        default=(),
        metavar="A,B,...",
        help="names of the actions, in their order",
    )
    made.add_argument(
        "--state-names", type=comma_separated, default=(), metavar="A,B,...",
        help="names of the numbers of the state, where they are not those of the actions",
    )  # fmt: skip
    made.add_argument("--fps", type=rate_hz, metavar="HZ", help="control rate")
    made.add_argument(
        "--units", type=comma_separated, default=(), metavar="UNIT[,UNIT...]",
        help=f"of states and actions: {', '.join(UNITS)}; one for all, or one for each action",
    )  # fmt: skip
    made.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="folder with the tokenizer.json of the language model"
    )
    made.add_argument(
        "--image-range", type=_range, metavar="LOW,HIGH",
        help="pixels that the graph of a LEAPP bundle takes for black and white: 0,1 or 0,255",
    )  # fmt: skip
    made.add_argument("--force", action="store_true", help="replace an export that is there")
    return made


def _range(text: str) -> tuple[float, float]:
    low, high = (float(part) for part in text.split(","))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise argparse.ArgumentTypeError(f"must be two numbers, the lower one first, got {text}")
    return low, high


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
