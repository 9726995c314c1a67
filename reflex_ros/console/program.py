# SPDX-License-Identifier: Apache-2.0
"""How this program is called here, for messages that tell people what to type."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

NAME = "reflex"
COMMAND = "  "  # a line that begins so is a command line


def called() -> str:
    """Return `reflex` where PATH finds this one, else the path by which it was called: .venv/bin/reflex."""
    mine = Path(sys.argv[0])
    found = shutil.which(NAME)
    if mine.name != NAME or (found is not None and Path(found).resolve() == mine.resolve()):
        return NAME
    return str(mine)


def print_runnable(text: str) -> None:
    """Print a text without the command lines in it whose program is not here, nor the variables for them.

    text: command lines are indented; `export` lines belong to those that follow.
    """
    kept: list[str] = []
    for line in reversed(text.splitlines()):
        words = line.split()
        is_command = line.startswith(COMMAND) and bool(words)
        if is_command and words[0] == "export":
            if not (kept and kept[-1].startswith(COMMAND)):
                continue
        elif is_command and shutil.which(words[0]) is None:
            continue
        kept.append(line)
    print(*reversed(kept), sep="\n", flush=True)
