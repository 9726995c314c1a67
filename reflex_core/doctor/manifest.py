# SPDX-License-Identifier: Apache-2.0
"""The manifest of an export: SHA-256 of every file, and a chunk to compare with, for `reflex doctor` elsewhere."""

from __future__ import annotations

import platform
from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path

import onnxruntime

from reflex_core.doctor.export_files import MANIFEST, sha256
from reflex_core.doctor.finding import FAIL
from reflex_core.doctor.parity import FIXTURE, TOLERANCE, parity, recorded_chunk
from reflex_core.errors import ExportError
from reflex_core.files.atomic import atomic_write
from reflex_core.policy.base import Policy
from reflex_core.values import Observation

UNLISTABLE = "`|\n"  # what a row of the table cannot hold


def shipped_files(folder: Path) -> list[Path]:
    """Return every file that serving reads: not the Markdown files, which describe it, and nothing hidden (caches of downloads).

    Raises ExportError for a name that a table cannot hold.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or path.suffix == ".md" or any(part.startswith(".") for part in parts):
            continue
        if any(character in part for part in parts for character in UNLISTABLE):
            raise ExportError(f"{path}: the name must be without |, backtick and line break")
        found.append(path)
    return found


def hash_table(folder: Path, without: Collection[str] = ()) -> str:
    """Return a Markdown table with name, bytes and SHA-256 of every shipped file. without: names that are meant to change."""
    rows = [
        f"| `{path.relative_to(folder).as_posix()}` | {path.stat().st_size} | `{sha256(path)}` |"
        for path in shipped_files(folder)
        if path.relative_to(folder).as_posix() not in without
    ]
    return "\n".join(["| file | bytes | SHA-256 |", "|---|---|---|", *rows])


def write_manifest(
    policy: Policy, observation: Observation, what: str, *, seed: int = 0, tolerance: float = TOLERANCE,
    force: bool = False,
) -> None:  # fmt: skip
    """Write parity.npz, with the chunk that this policy makes of the observation here, and VERIFICATION.md.

    what: the observation in words. Raises ExportError where either is there already, unless forced, ObservationError
    for an observation that the policy does not take; nothing is written then.
    """
    folder = policy.export.path
    shipped_files(folder)  # refuses before anything is written
    there = [name for name in (FIXTURE, MANIFEST) if (folder / name).exists()]
    if there and not force:
        raise ExportError(
            f"{folder}: brings {' and '.join(there)} already: --force replaces what is there, --keep-parity --force"
            " only the hashes"
        )
    fixture = recorded_chunk(policy, observation, seed, tolerance)
    atomic_write(folder / FIXTURE, fixture)
    message = (
        f"`{FIXTURE}` is {what} and the chunk that this export made of it here, from seed {seed}; a difference of"
        f" {tolerance:g} is allowed.\nIt holds other machines to this one. Whether the export answers as in training,"
        " it does not say."
    )
    _write_hashes(policy, message)


def write_manifest_again(policy: Policy, *, force: bool = False) -> None:
    """Write VERIFICATION.md anew and leave parity.npz as it is.

    Raises ExportError where there is no parity.npz, where the policy makes another chunk, and for a manifest that is
    there already, unless forced.
    """
    folder = policy.export.path
    if not (folder / FIXTURE).is_file():
        raise ExportError(f"{folder}: brings no {FIXTURE} that could be kept: leave --keep-parity out")
    if (folder / MANIFEST).exists() and not force:
        raise ExportError(f"{folder}: brings {MANIFEST} already: --force replaces it")
    found = parity(policy)
    if found.level == FAIL:
        raise ExportError(
            f"{folder}: {FIXTURE} is of another policy ({found.said}): {found.do}; or leave --keep-parity out"
        )
    _write_hashes(policy, f"`{FIXTURE}` was there before and was kept: {found.said}.")


def _write_hashes(policy: Policy, parity_words: str) -> None:
    folder = policy.export.path
    text = f"""# Verification of {policy.export.model_version}

Written by `reflex manifest` on {datetime.now(timezone.utc).date().isoformat()}. Machine: {platform.machine()},
Python {platform.python_version()}, onnxruntime {onnxruntime.__version__} on {policy.providers[0]}.

## Files

{hash_table(folder)}

`sha256sum FILE` shows the same numbers; `reflex doctor DIR` compares them.

## Parity

{parity_words}
"""
    atomic_write(folder / MANIFEST, text.encode())
