# SPDX-License-Identifier: Apache-2.0
"""`reflex help [VERB [COMMAND]]`: the verbs, or what one of them takes."""

from __future__ import annotations

import sys

from reflex_core.text.suggestions import no_such
from reflex_ros.cli.parser import Parser
from reflex_ros.cli.verbs import VERBS, overview
from reflex_ros.console.program import called


def main(argv: list[str] | None = None) -> int:
    """Print help. 0: shown; 2: there is no such verb."""
    words: list[str] = parser().parse_args(sys.argv[1:] if argv is None else argv).words
    if not words:
        print(overview())
        return 0
    if words[0] not in VERBS:
        print(f"reflex help: {no_such('verb', words[:1], list(VERBS))}", file=sys.stderr)
        print(f"`{called()} help` lists the verbs.", file=sys.stderr)
        return 2
    return int(VERBS[words[0]].load().main([*words[1:], "--help"]))


def parser() -> Parser:
    """Return the command line of `reflex help`."""
    made = Parser(
        prog="reflex help",
        description="Show the verbs, or the options of one.",
        examples=("reflex help", "reflex help serve", "reflex help trace export"),
    )
    made.add_argument("words", nargs="*", metavar="VERB", help="a verb, and a command of it")
    return made


if __name__ == "__main__":
    sys.exit(main())
