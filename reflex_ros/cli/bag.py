# SPDX-License-Identifier: Apache-2.0
"""`reflex bag reindex`: repair a bag that was cut off."""

from __future__ import annotations

import sys
from pathlib import Path

from reflex_ros.cli.parser import Parser, add_command


def main(argv: list[str] | None = None) -> int:
    """Reindex a bag. 0 when it is complete now, 1 when it cannot be repaired, 2 for a bad command line."""
    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    from reflex_ros.bag.reindex import BagError, reindex  # --help needs no library

    try:
        done = reindex(options.directory)
    except BagError as error:
        print(f"reflex bag: {error}", file=sys.stderr)
        return 1
    for name in done.empty:
        print(f"{name}: holds no message, left out")
    repaired = ", ".join(done.repaired) or "none"
    print(f"{options.directory}: {done.messages} messages in {done.files} files; repaired: {repaired}")
    return 0


def parser() -> Parser:
    """Return the command line of `reflex bag`."""
    made = Parser(prog="reflex bag", description="Maintain recorded bags.")
    making = add_command(
        made.add_subparsers(dest="command", required=True), "reindex",
        "write what a killed recorder could not: index, summary and metadata.yaml", ("reflex bag reindex bags/20261130-101500",),
    )  # fmt: skip
    making.add_argument("directory", type=Path, metavar="DIR", help="the directory of the bag")
    return made


if __name__ == "__main__":
    sys.exit(main())
