# SPDX-License-Identifier: Apache-2.0
"""The Pythons of this machine, whichever way they were installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

CAN_MAKE_VENV = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"


def at_hand(version: str) -> str | None:
    """Find an interpreter of a version (3.12) that can make virtual environments: on PATH, else of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [
        shutil.which(f"python{version}"),
        *map(str, sorted(pyenv.glob(f"{version}.*/bin/python{version}"))),
    ]
    return next((each for each in candidates if each and _is(each, version)), None)


def _is(interpreter: str, version: str) -> bool:
    done = subprocess.run([interpreter, "-c", CAN_MAKE_VENV], capture_output=True, text=True, check=False)
    return done.stdout.strip() == version
