# SPDX-License-Identifier: Apache-2.0
"""Whether this machine has the memory and the disk for an export, checked before torch is loaded.

Measured with LeRobot 0.6.1 and torch 2.13: 0.8 GB and twice the weights in float32 with external data, 3.6 times without
(below 0.2 GB, where all of it is small). In a container its own limits count.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reflex_core.errors import ConfigurationError
from reflex_export.checkpoint import Checkpoint
from reflex_export.options import FP16, ExportOptions

FLOAT32_BYTES, FLOAT16_BYTES = 4, 2
LIBRARIES_BYTES = 1_000_000_000  # torch, LeRobot, transformers
COPIES, COPIES_OF_SMALL, SMALL_BYTES = 2.0, 3.6, 200_000_000
BESIDE_BYTES = 100_000_000  # graphs without weights, tokenizer, parity.npz
NO_MEMORY, NO_DISK = "not-enough-memory", "not-enough-disk"


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that an export takes at its peak."""

    memory: int
    disk: int


def need_of(checkpoint: Checkpoint, options: ExportOptions) -> Need:
    """Return what an export needs."""
    numbers = checkpoint.weights.elements
    weights = numbers * FLOAT32_BYTES
    copies = COPIES if weights > SMALL_BYTES else COPIES_OF_SMALL
    written = numbers * (FLOAT16_BYTES if options.dtype == FP16 else FLOAT32_BYTES)
    converted = checkpoint.weights.path.stat().st_size if checkpoint.version == "0.3" else 0
    return Need(LIBRARIES_BYTES + int(copies * weights), BESIDE_BYTES + written + converted)


def check_resources(
    checkpoint: Checkpoint, options: ExportOptions, where: Path, system: Path = Path("/")
) -> Need:
    """Return the need of an export that is written below `where`. Raises ConfigurationError where this machine lacks it.

    system: where /proc and /sys are.
    """
    need = need_of(checkpoint, options)
    millions = checkpoint.weights.elements / 1e6
    free = free_memory(system)
    if free is not None and need.memory > free:
        raise ConfigurationError(
            f"{checkpoint.folder}: its {millions:.0f} million numbers need about {_gb(need.memory)} of memory, and {_gb(free)} are"
            " free: close other programs, or export on a larger machine and copy the result",
            NO_MEMORY,
        )
    disk = shutil.disk_usage(where).free
    if need.disk > disk:
        raise ConfigurationError(
            f"{where}: the export needs about {_gb(need.disk)} of disk, and {_gb(disk)} are free there: name another place",
            NO_DISK,
        )
    return need


def free_memory(system: Path) -> int | None:
    """Return the bytes of memory that this process can still take; None where the system does not say."""
    found = [*_of_machine(system), *_of_group(system)]
    return min(found, default=None)


def _of_machine(system: Path) -> Iterator[int]:
    for line in _text(system / "proc" / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) * 1024


def _of_group(system: Path) -> Iterator[int]:
    """Yield what the control group of this process, and those around it, leave (cgroup v2, then v1)."""
    groups = [line.split(":", 2) for line in _text(system / "proc" / "self" / "cgroup").splitlines()]
    for _, kinds, path in (group for group in groups if len(group) == 3):
        if kinds == "":
            root, most, used = system / "sys" / "fs" / "cgroup", "memory.max", "memory.current"
        elif "memory" in kinds.split(","):
            root = system / "sys" / "fs" / "cgroup" / "memory"
            most, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        for folder in (root, *(root / part for part in _prefixes(path))):
            limit, taken = _text(folder / most).strip(), _text(folder / used).strip()
            if limit.isdigit() and taken.isdigit():
                yield int(limit) - int(taken) + _reclaimable(folder)


def _prefixes(path: str) -> Iterator[Path]:
    parts = [part for part in path.split("/") if part and part != ".."]
    for count in range(1, len(parts) + 1):
        yield Path(*parts[:count])


def _reclaimable(folder: Path) -> int:
    """Return the bytes of files in memory, which count as used and are given back when asked for."""
    for line in _text(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.strip().isdigit():
            return int(value)
    return 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
