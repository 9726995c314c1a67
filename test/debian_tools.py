# SPDX-License-Identifier: Apache-2.0
"""Programs that `make test` unpacks from Debian packages into the virtual environment (requirements/debian.sh)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

UNPACKED = Path(sys.prefix) / "debian"


def promtool() -> str:
    """Checks rules, and runs their unit tests."""
    return _program("promtool")


def prometheus() -> str:
    """The server."""
    return _program("prometheus")


def _program(name: str) -> str:
    unpacked = UNPACKED / "usr" / "bin" / name
    found = str(unpacked) if unpacked.is_file() else shutil.which(name)
    assert found, f"{name} is neither {unpacked} nor on PATH: run `make test`, or install Debian's prometheus"
    return found
