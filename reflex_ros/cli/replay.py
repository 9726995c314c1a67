# SPDX-License-Identifier: Apache-2.0
"""`reflex replay`: not built yet, and it says so."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:  # noqa: ARG001  (the signature of every command)
    """Say that there is nothing to replay yet. Always exit status 1."""
    print(
        "reflex replay: not in this version; it comes with recording, so there is nothing to replay yet",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
