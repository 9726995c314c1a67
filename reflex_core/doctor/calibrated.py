# SPDX-License-Identifier: Apache-2.0
"""What `--auto-calibrate` has measured on this machine."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def calibration(path: Path) -> dict[str, Any]:
    """Return the content of the calibration cache: {path, problem, entries: {key: {stale, and the fields of the file}}}.

    `problem`: why the file as a whole is unusable; `stale`: why an entry would be measured again. Both '' where nothing is
    wrong.
    """
    from reflex_core.calibration.cache import read, stale
    from reflex_core.calibration.fingerprint import this_machine

    try:
        cache = read(path)
    except FileNotFoundError:
        return {
            "path": str(path),
            "problem": "there is no such file yet: serve with --auto-calibrate",
            "entries": {},
        }
    except (OSError, ValueError) as error:
        return {"path": str(path), "problem": f"it cannot be read: {error}", "entries": {}}
    machine, now = this_machine(), datetime.now(timezone.utc)
    entries = {
        key: {"stale": stale(cache, key, machine, now)} | entry.document()
        for key, entry in cache.entries.items()
    }
    return {"path": str(path), "problem": "", "entries": entries}
