# SPDX-License-Identifier: Apache-2.0
"""`reflex export`: holds the former spelling of `reflex manifest` for one release more."""

from __future__ import annotations

import argparse
import sys

from reflex_ros.cli import manifest

FORMER = "seal"  # `reflex export seal FOLDER` of the first version
NEW = "the manifest of an export is written by: reflex manifest FOLDER"


def main(argv: list[str] | None = None) -> int:
    """Run `reflex manifest` for its former spelling. Exit status 2 for any other command line."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == [FORMER]:
        print(
            f"reflex export {FORMER} is now `reflex manifest FOLDER`; this spelling goes in the next release",
            file=sys.stderr,
        )
        return manifest.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="reflex export", description=NEW, allow_abbrev=False)
    _, other = parser.parse_known_args(arguments)
    parser.print_usage(sys.stderr)
    print(f"reflex export: {f'no command {other[0][:80]!r}; ' if other else ''}{NEW}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
