# SPDX-License-Identifier: Apache-2.0
"""Checks of an export's files: there, readable, and as they were when the exporter verified them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.errors import ConfigurationError
from reflex_core.export.export import CONFIG_NAME, TETHER_NAME, open_export
from reflex_core.export.lookalikes import NOT_AN_EXPORT
from reflex_core.robot.skeleton import FILE as EMBODIMENT

MANIFEST = "VERIFICATION.md"
# people change these on purpose: `reflex calibrate-adaptive --write`, a robot's own ranges
EDITED = (CONFIG_NAME, TETHER_NAME, EMBODIMENT)
_ROW = re.compile(r"^\|\s*`?([^`|]+?)`?\s*\|.*\b([0-9a-f]{64})\b", re.MULTILINE)


def export(path: Path, label: str = "") -> Iterator[Finding]:
    """Check the directory, its configuration, and its hashes. label: which of several exports it is."""
    again = "copy the export again, or name another one"
    try:
        found = open_export(path)
    except ConfigurationError as error:
        another = "name an ONNX export: docs/reference/exports.md says what is in one"
        yield Finding(f"export{label}", FAIL, str(error), another if error.slug == NOT_AN_EXPORT else again)
        return
    yield Finding(f"export{label}", OK, f"{path}: {found.model_version}")
    yield replace(hashes(path), name=f"hashes{label}")


def hashes(path: Path) -> Finding:
    """Check that every file that VERIFICATION.md lists has the listed SHA-256."""
    manifest = path / MANIFEST
    try:
        listed = dict(_ROW.findall(manifest.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Finding(
            "hashes", WARN, f"{path} has no {MANIFEST}: whether its files are complete cannot be checked",
            f"copy the one that the exporter wrote along, or write one here: reflex manifest {path}",
        )  # fmt: skip
    except (OSError, ValueError) as error:
        return Finding("hashes", FAIL, f"{manifest}: not readable: {error}", "copy the export again")
    if not listed:
        return Finding("hashes", WARN, f"{manifest} lists no SHA-256", "export the policy again")
    missing = [name for name in listed if not (path / name).is_file()]
    changed = [name for name in listed if name not in missing and sha256(path / name) != listed[name]]
    if not missing and not changed:
        return Finding("hashes", OK, f"{len(listed)} files are as {MANIFEST} says")
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += [f"changed since {MANIFEST} was written: {', '.join(changed)}"] if changed else []
    if not missing and set(changed) <= set(EDITED):
        return Finding(
            "hashes",
            WARN,
            "; ".join(problems),
            f"if that was you, write the new SHA-256 (sha256sum) into {MANIFEST}, or write it anew:"
            f" reflex manifest {path} --keep-parity --force",
        )
    return Finding(
        "hashes", FAIL, "; ".join(problems), "copy the export again: a file was cut off or replaced"
    )


def sha256(path: Path) -> str:
    """Return the file's SHA-256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
