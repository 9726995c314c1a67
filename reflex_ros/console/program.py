# SPDX-License-Identifier: Apache-2.0
"""How this program is called here, for messages that tell people what to type."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

NAME = "reflex"


def called() -> str:
    """Return `reflex` where PATH finds this one, else the path by which it was called: .venv/bin/reflex."""
    mine = Path(sys.argv[0])
    found = shutil.which(NAME)
    if mine.name != NAME or (found is not None and Path(found).resolve() == mine.resolve()):
        return NAME
    return str(mine)
