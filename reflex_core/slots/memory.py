# SPDX-License-Identifier: Apache-2.0
"""Check whether two policies fit into memory, before the first byte of them is loaded."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reflex_core.errors import ConfigurationError

NO_WEIGHTS = (
    ".json",
    ".md",
    ".txt",
    ".model",
    ".png",
    ".npz",
)  # all else may hold tensors: exporters name them as they like
SHARE = 0.7  # of what is free: the rest is for cuDNN, buffers and other programs
WORKSPACE_BYTES = 512 << 20  # what the graphs of both compute in
GB = 1e9
TIMEOUT_S = 10.0
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")

VRAM, MEMORY = "VRAM", "memory"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Room:
    """What is free now. kind: VRAM of a GPU of its own, or memory that everything on this machine shares."""

    free_bytes: int
    kind: str


def weight_bytes(export: Path) -> int:
    """Return the size of everything in an export directory that may be weights, subdirectories included."""
    files = (file for file in export.rglob("*") if file.suffix not in NO_WEIGHTS and file.is_file())
    return sum(file.stat().st_size for file in files)


def require_room(
    exports: Sequence[Path],
    *,
    gpu: bool,
    workspace_bytes: int = WORKSPACE_BYTES,
    probe: Callable[[bool], Room | None] | None = None,
) -> None:
    """Raise ConfigurationError when the exports and their workspace need more than 70 % of the free memory.

    gpu: they are to run on one. probe: measures the free memory; where it cannot, nothing is refused, and the log notes it.
    """
    needed = sum(map(weight_bytes, exports)) + workspace_bytes
    room = (probe or free_room)(gpu)
    if room is None:
        log.warning("free memory cannot be determined here; the policies need %.1f GB", needed / GB)
        return
    allowed = SHARE * room.free_bytes
    if needed <= allowed:
        return
    larger = "GPU" if room.kind == VRAM else "machine"
    raise ConfigurationError(
        f"2-policy mode requires {needed / GB:.1f} GB {room.kind} but only {allowed / GB:.1f} GB"
        f" ({SHARE:.0%} of {room.free_bytes / GB:.1f} GB) is available. Either pick smaller models, run on a larger"
        f" {larger}, OR drop to single-policy mode.",
        "not-enough-memory",
    )


def free_room(gpu: bool) -> Room | None:
    """Return the free memory of the GPU that is used; of the machine where there is none, or where the GPU shares it."""
    free = free_vram_bytes() if gpu else None
    if free is not None:
        return Room(free, VRAM)
    free = free_memory_bytes()
    return None if free is None else Room(free, MEMORY)


def free_vram_bytes(command: str = "nvidia-smi") -> int | None:
    """Return the free bytes of the first visible GPU; None without nvidia-smi, and for memory shared with the CPU ([N/A])."""
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    query = [command, "--query-gpu=memory.free", "--format=csv,noheader,nounits", f"--id={device}"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.fullmatch(r"\s*(\d+)\s*", done.stdout) if done.returncode == 0 else None
    return int(found[1]) << 20 if found else None


def free_memory_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Return MemAvailable, or less where a container is limited; None where neither is known."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", _text(meminfo), re.MULTILINE)
    known = [int(found[1]) << 10] if found else []
    limit, used = _text(cgroup / "memory.max").strip(), _text(cgroup / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        # pages of files without recent use are reclaimed when memory is needed
        kept = re.search(r"^inactive_file (\d+)$", _text(cgroup / "memory.stat"), re.MULTILINE)
        known.append(max(0, int(limit) - int(used) + (int(kept[1]) if kept else 0)))
    return min(known, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
