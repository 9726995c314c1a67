# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced whole: a reader sees the old one or the new one, never half of it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reflex_core.errors import ConfigurationError
from reflex_core.files.json_fields import read_object


def atomic_write(path: Path, content: bytes) -> None:
    """Write or replace a file, with the mode and owner it had (0644 for a new one); a link is replaced, what it points at is not.

    Raises ConfigurationError where that cannot be done, also where another user's file cannot stay theirs; it is then as it was.
    """
    try:
        before = path.stat() if path.exists() else None
        mode = 0o644 if before is None else before.st_mode
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                made = Path(file.name)
                own = os.fstat(file.fileno())
                if before is not None and (before.st_uid, before.st_gid) != (own.st_uid, own.st_gid):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                made.chmod(mode)
                made.replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_block(path: Path, name: str, block: Mapping[str, Any]) -> None:
    """Set one block of a reflex_config.json; everything else stays. Raises ConfigurationError."""
    document = read_object(path) | {name: dict(block)}
    atomic_write(path, (json.dumps(document, indent=2) + "\n").encode())
